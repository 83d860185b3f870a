//! Logins: refused while the spool is nearly full, and else as they are without us.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use protocol::counters as count;

use crate::client::{Client, Login};
use crate::support::{Broker, DEADLINE, Setup, Version, free_port, until, versions};

const V5: Login<'static> = Login {
    v5: true,
    will: None,
    username: None,
    password: None,
    keep_session: false,
    will_delay: None,
};

/// A spool of 4 × 64 KiB that may be filled to the half.
fn small_spool(version: &Version) -> Setup {
    let mut setup = Setup::new(version);
    setup
        .option("spool_segment_bytes", "64KiB")
        .option("spool_bytes_max", "256KiB")
        .option("spool_high_water", "50%");
    setup
}

/// Publishes until more than the half is filled. At QoS 0: on a busy machine the next segment may not be ready in time,
/// which closes other publishers.
fn fill(broker: &Broker, client: &mut Client) {
    until("the spool is filled to the half", || {
        client.publish("up/a", &[7; 4 << 10], 0);
        (broker.counter(count::UPLINK_BYTES) > 150 << 10).then_some(())
    });
}

fn code(broker: &Broker, login: Login<'_>) -> u8 {
    Client::try_connect(broker, "new", login).1
}

#[test]
fn above_the_high_water_mark_new_logins_are_refused_and_who_is_there_stays() {
    for version in versions() {
        let broker = small_spool(&version).start();
        let mut uplink = broker.uplink();
        let mut there = Client::connect(&broker, "there", Login::default());
        let mut silent = Client::connect(&broker, "silent", V5);
        assert_eq!(code(&broker, Login::default()), 0);
        fill(&broker, &mut there);
        broker.wait_for_log("new logins are refused");
        assert_eq!(code(&broker, Login::default()), 5, "{version:?}");
        let why = if version.name == "2.1.2" { 0x89 } else { 0x87 };
        assert_eq!(code(&broker, V5), why, "{version:?}");
        // A session that is there is no ticket for another connection.
        let (_, again) = Client::try_connect(&broker, "there", Login::default());
        assert_eq!(again, 5, "{version:?}");
        assert_eq!(broker.counter(count::LOGINS_REFUSED), 3);
        // Mosquitto checks every login again.
        for reloads in 1..=2 {
            broker.signal(libc::SIGHUP);
            broker.wait_for_counter(count::RELOADS_OK, reloads);
            for client in [&mut there, &mut silent] {
                let answer = client.publish("free/a", b"x", 1);
                assert_eq!(answer.map(|a| a.0), Some(0x40), "{version:?}: thrown out");
            }
        }
        assert_eq!(code(&broker, Login::default()), 5, "{version:?}: reloaded");
        uplink.release_all();
        broker.wait_for_log("new logins are let in again");
        assert_eq!(code(&broker, Login::default()), 0, "{version:?}");
        assert_eq!(code(&broker, V5), 0, "{version:?}");
        assert_eq!(broker.counter(count::LOGINS_REFUSED), 4);
    }
}

#[test]
fn the_wake_up_connection_is_let_in_above_the_mark() {
    for version in versions() {
        let mut setup = small_spool(&version);
        setup.option("wake", "pingreq");
        let mut broker = setup.start();
        fill(
            &broker,
            &mut Client::connect(&broker, "there", Login::default()),
        );
        broker.wait_for_log("new logins are refused");
        broker.stop();
        // The spool is as full as it was.
        let mut next = small_spool(&version);
        next.option("wake", "pingreq");
        std::fs::rename(broker.spool(), next.path("spool")).expect("moved");
        let broker = next.start();
        broker.wait_for_log("as mosquitto-rocketmq-wake-");
        broker.wait_for_log("new logins are refused");
        assert_eq!(code(&broker, Login::default()), 5, "{version:?}");
        assert_eq!(broker.counter(count::WAKEUP), 2);
    }
}

#[test]
fn the_mark_can_be_switched_off() {
    for options in [("spool_high_water", "100%"), ("spool_full", "drop")] {
        let mut setup = Setup::new(&crate::support::oldest());
        setup
            .option("spool_segment_bytes", "64KiB")
            .option("spool_bytes_max", "256KiB")
            .option(options.0, options.1);
        let broker = setup.start();
        let mut there = Client::connect(&broker, "there", Login::default());
        while broker.counter(count::UPLINK_DROPPED_QOS0_FULL) == 0 {
            there.publish("up/a", &[7; 16 << 10], 0);
        }
        assert_eq!(code(&broker, Login::default()), 0, "{options:?}");
    }
}

/// A password file with the user `u`, password `p`.
pub(crate) fn password_file(setup: &Setup) -> String {
    let path = setup.path("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-c", "-b"])
        .arg(&path)
        .args(["u", "p"])
        .status()
        .expect("mosquitto_passwd is installed with Mosquitto");
    assert!(made.success());
    format!("password_file {}", path.display())
}

pub(crate) const OPEN_ACCESS: &str = r#"{"defaultACLAccess":{"publishClientSend":true,"publishClientReceive":true,"subscribe":true,"unsubscribe":true}}"#;

fn dynamic_security(setup: &mut Setup) {
    dynamic_security_with(setup, OPEN_ACCESS);
}

/// 2.0.11's: the others' is not installed.
pub(crate) fn dynamic_security_with(setup: &mut Setup, access: &str) {
    let file = setup.write("dynsec.json", access);
    setup
        .after("plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
        .after(&format!("plugin_opt_config_file {}", file.display()));
}

/// What each kind of login is answered.
fn answers(broker: &Broker) -> Vec<u8> {
    let names = [
        (None, None),
        (Some("x"), None),
        (Some("u"), Some("p")),
        (Some("u"), Some("wrong")),
    ];
    let mut answers = Vec::new();
    for v5 in [false, true] {
        for (username, password) in names {
            let login = Login {
                v5,
                username,
                password,
                ..Login::default()
            };
            answers.push(code(broker, login));
        }
    }
    answers
}

#[test]
fn below_the_mark_logins_are_answered_as_without_us() {
    type Change = fn(&mut Setup);
    let per_listener: Change = |setup| {
        setup.before("per_listener_settings true");
    };
    let with_file: Change = |setup| {
        let line = password_file(setup);
        setup.after(&line);
    };
    let closed: Change = |setup| {
        setup.after("allow_anonymous false");
    };
    let cases: &[(&str, &[Change])] = &[
        ("open", &[]),
        ("closed", &[closed]),
        ("a password file", &[with_file]),
        ("a password file, closed", &[with_file, closed]),
        ("dynamic security", &[dynamic_security]),
        ("dynamic security, closed", &[dynamic_security, closed]),
        ("per listener", &[per_listener]),
        ("per listener, a password file", &[per_listener, with_file]),
        (
            "per listener, a password file, closed",
            &[per_listener, with_file, closed],
        ),
    ];
    for version in versions() {
        for (name, changes) in cases {
            let oldest = version.name == "2.0.11";
            // 2.0.11 never ticks with the one, and only its dynamic security is installed.
            if oldest && name.contains("listener") || !oldest && name.contains("dynamic") {
                continue;
            }
            let mut bare = Setup::without_plugin(&version);
            let mut ours = Setup::new(&version);
            for change in *changes {
                change(&mut bare);
                change(&mut ours);
            }
            let (bare, ours) = (bare.start(), ours.start());
            let expected = answers(&bare);
            assert_eq!(answers(&ours), expected, "{version:?}: {name}");
            ours.signal(libc::SIGHUP);
            ours.wait_for_counter(count::RELOADS_OK, 1);
            assert_eq!(answers(&ours), expected, "{version:?}: {name}, reloaded");
        }
    }
}

#[test]
fn above_the_mark_passwords_do_not_help() {
    for version in versions() {
        let mut setup = small_spool(&version);
        let line = password_file(&setup);
        setup.after(&line);
        if version.name == "2.0.11" {
            dynamic_security(&mut setup);
        }
        let broker = setup.start();
        fill(
            &broker,
            &mut Client::connect(&broker, "there", Login::default()),
        );
        broker.wait_for_log("new logins are refused");
        let answers = answers(&broker);
        assert!(!answers.contains(&0), "{version:?}: {answers:?}");
    }
}

/// A plugin of which it can't be told whether it checks logins: then there is no neutral answer on 2.0.
#[test]
fn beside_a_plugin_of_unknown_kind_the_others_are_refused() {
    let version = crate::support::oldest();
    let unknown = |setup: &mut Setup| {
        let so = setup.path("unknown.so");
        let dynsec = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so";
        std::fs::copy(dynsec, &so).expect("copied");
        let file = setup.write("dynsec.json", OPEN_ACCESS);
        setup
            .after(&format!("plugin {}", so.display()))
            .after(&format!("plugin_opt_config_file {}", file.display()));
    };
    let mut bare = Setup::without_plugin(&version);
    unknown(&mut bare);
    let mut setup = small_spool(&version);
    unknown(&mut setup);
    let broker = setup.start();
    broker.wait_for_log("logins that another plugin");
    assert_eq!(answers(&broker), answers(&bare.start()));
    let mut uplink = broker.uplink();
    let mut there = Client::connect(&broker, "there", Login::default());
    fill(&broker, &mut there);
    broker.wait_for_log("new logins are refused");
    for reloads in 1..=2 {
        assert_eq!(code(&broker, Login::default()), 5);
        broker.signal(libc::SIGHUP);
        broker.wait_for_counter(count::RELOADS_OK, reloads);
        let answer = there.publish("free/a", b"x", 1);
        assert_eq!(answer.map(|answer| answer.0), Some(0x40), "thrown out");
    }
    uplink.release_all();
    broker.wait_for_log("new logins are let in again");
    assert_eq!(code(&broker, Login::default()), 0);
}

/// GET without a name: the status code.
fn http_get(port: u16, path: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the HTTP API listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status line: {answer}"))
}

/// Mosquitto 2.1 asks about them on a thread of its own.
#[test]
fn the_users_of_the_http_api_are_none_of_our_business() {
    for version in versions().iter().filter(|it| it.name == "2.1.2") {
        let mut setup = small_spool(version);
        let port = free_port();
        setup.before(&format!("listener {port} 127.0.0.1"));
        setup
            .before("protocol http_api")
            .before("listener_allow_anonymous true");
        let mut broker = setup.start();
        // It has an epoll set with a listening socket of its own.
        broker.wait_for_log("woken by an eventfd");
        assert_eq!(http_get(port, "/api/v1/version"), 200);
        let mut there = Client::connect(&broker, "there", Login::default());
        fill(&broker, &mut there);
        broker.wait_for_log("new logins are refused");
        assert_eq!(code(&broker, Login::default()), 5);
        // Theirs are no logins of devices, and refused by nobody. And while they are asked about, the broker works.
        let users: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    (0..500).all(|_| http_get(port, "/api/v1/listeners") == 200)
                })
            })
            .collect();
        while !users.iter().all(std::thread::JoinHandle::is_finished) {
            assert_eq!(code(&broker, Login::default()), 5);
            there.publish("free/a", b"x", 0);
        }
        for user in users {
            assert!(user.join().expect("an answer each time"), "refused");
        }
        assert!(broker.stop().success());
    }
}

/// A file system of its own.
struct Tiny(std::path::PathBuf);

impl Tiny {
    fn mount(path: std::path::PathBuf) -> Tiny {
        std::fs::create_dir(&path).expect("made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=500k,mode=700", "none"])
            .arg(&path)
            .status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a small disk: run it as root"
        );
        Tiny(path)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_as_good_as_a_full_spool() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup
            .option("spool_segment_bytes", "64KiB")
            .option("spool_bytes_max", "8MiB");
        let _tiny = Tiny::mount(setup.path("spool"));
        let broker = setup.start();
        let mut uplink = broker.uplink();
        let mut there = Client::connect(&broker, "there", Login::default());
        until("the disk is full", || {
            there.publish("up/a", &[7; 4 << 10], 0);
            broker.log().contains("refused until").then_some(())
        });
        assert!(broker.log().contains("its disk is full"));
        assert_eq!(code(&broker, Login::default()), 5, "{version:?}");
        uplink.release_all();
        until("logins are let in again", || {
            (code(&broker, Login::default()) == 0).then_some(())
        });
        // And there is room again.
        until("the spool takes messages", || {
            there.publish("up/a", b"again", 0);
            (uplink.poll()? == "up/a again").then_some(())
        });
    }
}
