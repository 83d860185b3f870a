//! The plugin listens to access checks and decides none.

use crate::client::{Client, Login};
use crate::support::{Setup, Version, until, versions};

const REFUSED: u8 = 0x80;

fn will(topic: &'static str) -> Login<'static> {
    Login {
        will: Some((topic, "bye")),
        ..Login::default()
    }
}

#[test]
fn without_access_control_everything_stays_allowed() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut client = Client::connect(
            &broker,
            "any",
            Login {
                v5: true,
                username: Some("x"),
                ..Login::default()
            },
        );
        assert_eq!(client.subscribe("any/#"), 1, "{version:?}");
        // 0x10: nobody subscribes to that.
        assert_eq!(client.publish("free/a", b"x", 1), Some((0x40, 0x10)));
    }
}

fn with_acl_file(version: &Version) -> Setup {
    let mut setup = Setup::new(version);
    let file = setup.write(
        "acl",
        "topic readwrite up/allowed\ntopic readwrite other/#\n",
    );
    setup.after(&format!("acl_file {}", file.display()));
    setup
}

#[test]
fn an_acl_file_decides_as_it_did() {
    for version in versions() {
        let broker = with_acl_file(&version).start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(
            &broker,
            "any",
            Login {
                v5: true,
                ..Login::default()
            },
        );
        assert_eq!(client.subscribe("other/#"), 1, "{version:?}");
        assert_eq!(
            client.publish("up/allowed", b"x", 1).map(|answer| answer.0),
            Some(0x40)
        );
        assert_eq!(
            client.publish("up/denied", b"x", 1),
            Some((0x40, 0x87)),
            "{version:?}"
        );
        assert_eq!(uplink.next(), "up/allowed x");
        assert_eq!(uplink.poll(), None, "{version:?}");
    }
}

#[test]
fn a_will_that_the_acl_file_denies_does_not_go_up() {
    for version in versions() {
        let mut broker = with_acl_file(&version).start();
        let mut uplink = broker.uplink();
        drop(Client::connect(&broker, "denied", will("up/denied")));
        drop(Client::connect(&broker, "allowed", will("up/allowed")));
        assert_eq!(uplink.next(), "up/allowed bye will", "{version:?}");
        // Taken over, and the end of the broker.
        let _first = Client::connect(&broker, "same", will("up/denied"));
        let _second = Client::connect(&broker, "same", will("up/denied"));
        let _third = Client::connect(&broker, "there", will("up/allowed"));
        broker.stop();
        assert_eq!(
            uplink.poll().as_deref(),
            Some("up/allowed bye will"),
            "{version:?}"
        );
        assert_eq!(uplink.poll(), None, "{version:?}");
    }
}

/// With `check_retain_source` the broker asks whether the sender of a retained message may still write, with a record of
/// a client that does not exist.
#[test]
fn the_check_of_a_retained_messages_source_is_no_will() {
    for version in versions() {
        let mut setup = with_acl_file(&version);
        setup.before("check_retain_source true");
        let mut broker = setup.start();
        let mut uplink = broker.uplink();
        let mut sender = Client::connect(&broker, "sender", Login::default());
        let mut packet = sender.publish_packet("up/allowed", b"kept", 1, &[]);
        packet[0] |= 1; // retained
        sender.send(&packet);
        assert_eq!(sender.read().expect("an answer").0, 0x40);
        assert_eq!(uplink.next(), "up/allowed kept", "{version:?}");
        for _ in 0..20 {
            let mut reader = Client::connect(&broker, "reader", Login::default());
            reader.subscribe("up/#");
            assert_eq!(reader.message().0, "up/allowed kept", "{version:?}");
        }
        // And in the broker's last turn, when a check may well be a will's: it has enough to do when it is told to end.
        let mut busy: Vec<_> = (0..8)
            .map(|n| Client::connect(&broker, &format!("busy-{n}"), Login::default()))
            .collect();
        for client in &mut busy {
            for _ in 0..3_000 {
                client.send_subscribe("up/#", 0);
            }
        }
        busy[0].read().expect("it has begun");
        broker.signal(libc::SIGTERM);
        until("Mosquitto ends", || broker.ended());
        assert_eq!(uplink.poll(), None, "{version:?}");
    }
}

/// Debian ships one other plugin that decides: dynamic-security.
fn dynamic_security(version: &Version, send: bool) -> Option<Setup> {
    let so = match version.name {
        "2.0.11" => "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so",
        // The other brokers have theirs inside their own directories.
        _ => return None,
    };
    let mut setup = Setup::new(version);
    let access = format!(
        r#"{{"defaultACLAccess":{{"publishClientSend":{send},"publishClientReceive":true,"subscribe":true,"unsubscribe":true}}}}"#
    );
    let file = setup.write("dynsec.json", &access);
    setup
        .after(&format!("plugin {so}"))
        .after(&format!("plugin_opt_config_file {}", file.display()));
    Some(setup)
}

#[test]
fn another_plugin_decides_as_it_did() {
    for version in versions() {
        for send in [true, false] {
            let Some(setup) = dynamic_security(&version, send) else {
                continue;
            };
            let broker = setup.start();
            let mut uplink = broker.uplink();
            drop(Client::connect(&broker, "lost", will("up/will")));
            let mut client = Client::connect(
                &broker,
                "any",
                Login {
                    v5: true,
                    ..Login::default()
                },
            );
            assert_ne!(client.subscribe("x"), REFUSED);
            let answer = client.publish("up/a", b"x", 1);
            if send {
                assert_eq!(answer.map(|answer| answer.0), Some(0x40));
                assert_eq!(
                    [uplink.next(), uplink.next()],
                    ["up/will bye will", "up/a x"]
                );
            } else {
                assert_eq!(answer, Some((0x40, 0x87)));
                assert_eq!(uplink.poll(), None);
            }
        }
    }
}

#[test]
fn the_wake_up_connection_leaves_logins_as_they_were() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup.option("wake", "pingreq").option("uplink", "# ALL");
        let broker = setup.start();
        let mut uplink = broker.uplink();
        broker.wait_for_log("as mosquitto-rocketmq-wake-");
        // Anonymous may log in, with a user name or without.
        Client::connect(&broker, "a", Login::default()).disconnect();
        Client::connect(
            &broker,
            "b",
            Login {
                username: Some("x"),
                ..Login::default()
            },
        )
        .disconnect();
        assert_eq!(uplink.poll(), None, "the connection is not bridged");
    }
}

#[test]
fn the_wake_up_connection_gets_in_where_a_password_is_needed() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        let file = setup.write("passwords", "");
        setup
            .option("wake", "pingreq")
            .after(&format!("password_file {}", file.display()));
        setup.after("allow_anonymous false");
        let broker = setup.start();
        broker.wait_for_log("as mosquitto-rocketmq-wake-");
        for username in [None, Some("x")] {
            let (_, code) = Client::try_connect(
                &broker,
                "c",
                Login {
                    username,
                    ..Login::default()
                },
            );
            assert_ne!(code, 0, "{version:?}: a stranger got in");
        }
    }
}

#[test]
fn an_acl_file_added_or_removed_by_reload_counts_at_once() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup.write("acl", "topic readwrite up/allowed\n");
        // An include, so that the test can change it while the port stays.
        let included = setup.path("included");
        std::fs::create_dir(&included).expect("made");
        setup.after(&format!("include_dir {}", included.display()));
        let line = format!("acl_file {}\n", setup.path("acl").display());
        let broker = setup.start();
        let mut client = Client::connect(
            &broker,
            "any",
            Login {
                v5: true,
                ..Login::default()
            },
        );
        let mut answers = |reloads| {
            broker.signal(libc::SIGHUP);
            broker.wait_for_counter(protocol::counters::RELOADS_OK, reloads);
            let mut answer = |topic| client.publish(topic, b"x", 1).map(|answer| answer.1);
            (answer("up/allowed"), answer("up/denied"))
        };
        let (allowed, denied) = (Some(0x10), Some(0x87));
        std::fs::write(included.join("acl.conf"), &line).expect("written");
        assert_eq!(answers(1), (allowed, denied), "{version:?}: added");
        std::fs::write(included.join("acl.conf"), "").expect("written");
        assert_eq!(answers(2), (allowed, allowed), "{version:?}: removed");
        std::fs::write(included.join("acl.conf"), &line).expect("written");
        assert_eq!(answers(3), (allowed, denied), "{version:?}: added again");
    }
}
