//! What a node of a cluster is told of its clients and subscriptions, and what it does at the cluster's command.

mod closing;
mod restarts;
mod selecting;

use handoff::{Reader, ReaderOptions};
use protocol::counters as count;
use protocol::message::{Event, Message, QoS, What};

use crate::client::{Client, Login};
use crate::logins::{OPEN_ACCESS, dynamic_security_with, password_file};
use crate::support::{Broker, Setup, Version, oldest, until, versions};

const KEEP: Login<'static> = Login {
    v5: false,
    will: None,
    username: None,
    password: None,
    keep_session: true,
    will_delay: None,
};

fn node(version: &Version) -> Setup {
    let mut setup = Setup::new(version);
    setup.option("cluster", "test").option("share", "chat/#");
    setup
}

/// The sidecar's side of the log of events.
struct Events {
    reader: Reader,
    /// The newest login that was told.
    login: u64,
}

impl Events {
    fn of(broker: &Broker) -> Events {
        let reader = Reader::open(&broker.spool().join("events"), &ReaderOptions::default())
            .expect("the log of events");
        Events { reader, login: 0 }
    }

    /// The next event, without times and positions.
    fn poll(&mut self) -> Option<String> {
        let frame = self.reader.poll().expect("a good log")?;
        let event = Event::decode(frame.payload).expect("an event");
        assert!(event.at_ms > 0);
        Some(match event.what {
            What::Started { saved_at_ms: 0, .. } => "started".to_owned(),
            What::Started { .. } => "started saved".to_owned(),
            What::Online {
                client_id,
                username,
                login,
                mqtt_version,
                clean,
            } => {
                assert!(login > self.login, "logins grow");
                self.login = login;
                let name = username.unwrap_or("-");
                let kind = if clean { "clean" } else { "kept" };
                format!("online {client_id} {name} {mqtt_version} {kind}")
            }
            What::Offline {
                client_id,
                login,
                cause,
                session_stays,
            } => {
                assert!(login <= self.login, "a login that was told");
                let kind = if session_stays { "stays" } else { "ends" };
                format!("offline {client_id} {cause:02x} {kind}")
            }
            What::Subscribed {
                client_id,
                filter,
                qos,
                ..
            } => format!("subscribed {client_id} {filter} {qos}"),
            What::Unsubscribed { client_id, filter } => {
                format!("unsubscribed {client_id} {filter}")
            }
            What::Restored {
                client_id,
                filter,
                qos,
            } => format!("restored {client_id} {filter} {qos}"),
            What::Resumed { client_id, .. } => format!("resumed {client_id}"),
            What::Deaf { why } => format!("deaf {why}"),
        })
    }

    fn next(&mut self) -> String {
        until("an event", || self.poll())
    }

    /// The next ones are these, in this order.
    fn expect(&mut self, version: &Version, events: &[&str]) {
        for event in events {
            assert_eq!(self.next(), *event, "{version:?}");
        }
    }
}

/// The reason of an end: 2.0 tells none.
fn cause(version: &Version, code: &'static str) -> &'static str {
    if version.name == "2.1.2" { code } else { "80" }
}

#[test]
fn clients_and_subscriptions_are_told_as_they_come_and_go() {
    for version in versions() {
        let broker = node(&version).start();
        let mut events = Events::of(&broker);
        events.expect(&version, &["started"]);
        let login = Login {
            username: Some("u"),
            ..Login::default()
        };
        let mut client = Client::connect(&broker, "device", login);
        assert_eq!(client.subscribe("chat/+/a"), 1);
        assert_eq!(client.subscribe("$share/group/chat/#"), 1);
        client.unsubscribe("chat/+/a");
        client.disconnect();
        let mut kept = Client::connect(&broker, "kept", KEEP);
        kept.subscribe("chat/#");
        drop(kept);
        events.expect(
            &version,
            &[
                "online device u 4 clean",
                "subscribed device chat/+/a 1",
                "subscribed device $share/group/chat/# 1",
                "unsubscribed device chat/+/a",
                &format!("offline device {} ends", cause(&version, "00")),
                "online kept - 4 kept",
                "subscribed kept chat/# 1",
                "offline kept 80 stays",
            ],
        );
        // One that says nothing is there too.
        let silent = Client::connect(&broker, "silent", Login { v5: true, ..KEEP });
        events.expect(&version, &["online silent - 5 kept"]);
        drop(silent);
        // Its session has no expiry, and that of the next one has.
        events.expect(&version, &["offline silent 80 ends"]);
        let login = Login {
            v5: true,
            will: Some(("w", "x")),
            will_delay: Some(30),
            ..Login::default()
        };
        drop(Client::connect(&broker, "long", login));
        events.expect(
            &version,
            &["online long - 5 clean", "offline long 80 stays"],
        );
        assert_eq!(events.poll(), None);
    }
}

#[test]
fn a_failed_login_is_none() {
    for version in versions() {
        let mut setup = node(&version);
        setup.after("allow_anonymous false");
        let line = password_file(&setup);
        setup.after(&line);
        let broker = setup.start();
        let mut events = Events::of(&broker);
        events.expect(&version, &["started"]);
        let login = Login {
            username: Some("u"),
            password: Some("wrong"),
            ..Login::default()
        };
        for login in [login, Login { v5: true, ..login }] {
            let (client, code) = Client::try_connect(&broker, "device", login);
            assert_ne!(code, 0);
            drop(client);
        }
        let ticked = || broker.counter(count::LAST_TICK_MS);
        let now = ticked();
        until("another tick", || (ticked() > now + 200).then_some(()));
        assert_eq!(events.poll(), None, "{version:?}");
    }
}

#[test]
fn a_reload_makes_no_new_logins() {
    for version in versions() {
        let broker = node(&version).start();
        let mut events = Events::of(&broker);
        let mut there = Client::connect(&broker, "there", KEEP);
        let away = Client::connect(&broker, "away", KEEP);
        away.disconnect();
        events.expect(
            &version,
            &["started", "online there - 4 kept", "online away - 4 kept"],
        );
        assert!(events.next().starts_with("offline away"), "{version:?}");
        broker.signal(libc::SIGHUP);
        broker.wait_for_counter(count::RELOADS_OK, 1);
        there
            .publish("chat/a", b"1", 1)
            .expect("an acknowledgement");
        let late = Client::connect(&broker, "late", KEEP);
        events.expect(&version, &["online late - 4 kept"]);
        drop(late);
    }
}

#[test]
fn a_takeover_ends_the_old_login_before_the_new_one() {
    for version in versions() {
        for (v5, end) in [
            (false, "offline device 8e stays"),
            (true, "offline device 8e stays"),
        ] {
            let broker = node(&version).start();
            let mut events = Events::of(&broker);
            let login = Login { v5, ..KEEP };
            let first = Client::connect(&broker, "device", login);
            let online = format!("online device - {} kept", if v5 { 5 } else { 4 });
            events.expect(&version, &["started", &online]);
            let second = Client::connect(&broker, "device", login);
            events.expect(&version, &[end, &online]);
            drop((first, second));
        }
    }
}

#[test]
fn a_broker_that_leaves_no_neutral_answer_is_deaf_on_2_0() {
    for version in versions() {
        let mut setup = node(&version);
        setup.before("per_listener_settings true");
        if version.name == "2.0.11" {
            continue; // It would not tick.
        }
        let line = password_file(&setup);
        setup.after(&line);
        let acl = setup.write("acl", "topic readwrite #\n");
        setup.after(&format!("acl_file {}", acl.display()));
        let broker = setup.start();
        let mut events = Events::of(&broker);
        events.expect(&version, &["started"]);
        let mut client = Client::connect(&broker, "device", Login::default());
        client.subscribe("chat/#");
        if version.name == "2.1.2" {
            events.expect(
                &version,
                &["online device - 4 clean", "subscribed device chat/# 1"],
            );
        } else {
            assert!(
                events.next().starts_with("deaf subscriptions"),
                "{version:?}"
            );
        }
    }
}

/// What was injected and published before a subscription is told with it, and with a retained message what was injected.
#[test]
fn positions_tell_what_was_before() {
    for version in versions() {
        let broker = node(&version).start();
        let mut uplink = broker.uplink();
        let mut reader = Events::of(&broker).reader;
        let mut client = Client::connect(&broker, "device", Login::default());
        client
            .publish("chat/a", b"1", 1)
            .expect("an acknowledgement");
        let message = Message {
            topic: "chat/b",
            payload: b"2",
            qos: QoS::AtLeastOnce,
            ..Message::default()
        };
        let mut frame = vec![0; message.encoded_len()];
        message.encode_into(&mut frame);
        let mut downlink = broker.downlink();
        downlink.append(&frame).expect("room");
        broker.wait_for_counter(count::DOWNLINK_INJECTED, 1);
        client.subscribe("chat/#");
        let retained = [
            0x31, 12, 0, 6, b'c', b'h', b'a', b't', b'/', b'c', b'k', b'e', b'p', b't',
        ];
        client.send(&retained);
        assert_eq!(uplink.next(), "chat/a 1");
        until("the retained message", || {
            (broker.counter(count::UPLINK_APPENDED) == 2).then_some(())
        });
        let published = uplink.with(|message| {
            assert!(message.retain);
            message.injected
        });
        assert_eq!(published, Some(downlink.end()), "{version:?}");
        until("the subscription", || {
            let frame = reader.poll().expect("a good log")?;
            match Event::decode(frame.payload).expect("an event").what {
                What::Subscribed {
                    downlink_position,
                    uplink_position,
                    ..
                } => {
                    assert_eq!(downlink_position, downlink.end(), "{version:?}");
                    assert!(uplink_position > 0, "{version:?}");
                    Some(())
                }
                _ => None,
            }
        });
    }
}

#[test]
fn the_wake_up_connection_is_nobody() {
    for version in versions() {
        let mut setup = node(&version);
        setup.option("wake", "pingreq");
        let broker = setup.start();
        broker.wait_for_log("as mosquitto-rocketmq-wake-");
        let mut events = Events::of(&broker);
        broker.signal(libc::SIGHUP);
        broker.wait_for_counter(count::RELOADS_OK, 1);
        let _client = Client::connect(&broker, "device", KEEP);
        events.expect(&version, &["started", "online device - 4 kept"]);
    }
}

/// Who may not unsubscribe goes on getting messages.
#[test]
fn an_unsubscribe_that_another_plugin_refuses_is_none() {
    let version = oldest();
    for (allowed, expected) in [
        (
            "true",
            &["unsubscribed device chat/a", "offline device 80 ends"][..],
        ),
        ("false", &["offline device 80 ends"]),
    ] {
        let mut setup = node(&version);
        let access = format!("\"unsubscribe\":{allowed}");
        let access = OPEN_ACCESS.replace("\"unsubscribe\":true", &access);
        dynamic_security_with(&mut setup, &access);
        let broker = setup.start();
        let mut events = Events::of(&broker);
        let mut client = Client::connect(&broker, "device", Login::default());
        client.subscribe("chat/a");
        client.unsubscribe("chat/a");
        client.disconnect();
        let online = [
            "started",
            "online device - 4 clean",
            "subscribed device chat/a 1",
        ];
        events.expect(&version, &online);
        events.expect(&version, expected);
    }
}
