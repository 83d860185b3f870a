//! What Mosquitto does when something is wrong: it does not start, or it withholds an acknowledgement.

use std::fs;

use protocol::counters as count;

use crate::client::{Client, Login};
use crate::support::{Setup, oldest, until, versions};

/// The broker must end with an error, with this in one line of its log.
fn must_not_start(setup: Setup, parts: &[&str]) {
    let mut broker = setup.launch();
    let status = until("Mosquitto gives up", || broker.ended());
    let log = broker.log();
    assert!(!status.success(), "Mosquitto started:\n{log}");
    let line = log
        .lines()
        .find(|line| line.contains("mosquitto-rocketmq: not started"));
    let line = line.unwrap_or_else(|| panic!("no reason in:\n{log}"));
    for part in parts {
        assert!(line.contains(part), "`{part}` is missing in: {line}");
    }
}

#[test]
fn a_wrong_configuration_keeps_mosquitto_from_starting() {
    for version in versions() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("uplnk", "a/# A", &["uplnk"]),
            ("uplink", "a/#/b A", &["uplink", "a/#/b"]),
            ("uplink", "a/# bad*topic", &["uplink", "bad*topic"]),
            ("spool_bytes_max", "plenty", &["spool_bytes_max", "plenty"]),
            ("wake", "bell", &["wake", "bell", "eventfd"]),
            (
                "rules_file",
                "/nonexistent/rules",
                &["rules_file", "/nonexistent/rules"],
            ),
        ];
        for (option, value, parts) in cases {
            let mut setup = Setup::new(&version);
            setup.option(option, value);
            must_not_start(setup, parts);
        }
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let mut setup = Setup::new(&oldest());
    setup.option("wake", "bell").option("layout", "strange");
    must_not_start(setup, &["bell", "strange"]);
}

#[test]
fn a_missing_sidecar_keeps_mosquitto_from_starting() {
    let mut setup = Setup::bare(&oldest());
    setup
        .option("namesrv", "127.0.0.1:9876")
        .option("sidecar_path", "/nonexistent/sidecar");
    must_not_start(
        setup,
        &["sidecar_path", "/nonexistent/sidecar", "does not exist"],
    );
}

#[test]
fn an_unusable_spool_keeps_mosquitto_from_starting() {
    let setup = Setup::new(&oldest());
    // Tests may run as root, for whom no directory is unwritable: a file in its place is, for everybody.
    setup.write("spool", "not a directory");
    must_not_start(setup, &["spool_dir", "spool", "make it a directory"]);
}

#[test]
fn a_spool_of_another_version_keeps_mosquitto_from_starting() {
    let mut broker = Setup::new(&oldest()).start();
    broker.stop();
    let cursor = broker.spool().join("uplink/cursor");
    let mut bytes = fs::read(&cursor).expect("the cursor page");
    // The format's version stands behind the magic number. Not a change of one byte: that is mended.
    bytes[8..12].copy_from_slice(&9999u32.to_le_bytes());
    fs::write(&cursor, bytes).expect("written");
    let mut setup = Setup::new(&oldest());
    setup.option("spool_dir", &broker.spool().display().to_string());
    // The option stands twice now: the later one is wrong for that too, so replace the directory instead.
    let other = Setup::new(&oldest());
    fs::rename(broker.spool(), other.path("spool")).expect("moved");
    must_not_start(other, &["spool_dir", "version"]);
}

#[test]
fn a_spool_in_use_keeps_a_second_mosquitto_from_starting() {
    let first = Setup::new(&oldest()).start();
    let second = Setup::new(&oldest());
    std::os::unix::fs::symlink(first.spool(), second.path("spool")).expect("a link");
    must_not_start(
        second,
        &["spool_dir", "already has a writer", "stop that process"],
    );
}

#[test]
fn a_mosquitto_that_never_ticks_is_refused() {
    let mut setup = Setup::new(&oldest());
    setup.before("per_listener_settings true");
    must_not_start(setup, &["per_listener_settings true", "2.0.11"]);
}

#[test]
fn a_full_spool_gives_no_false_acknowledgement() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup
            .option("spool_segment_bytes", "64KiB")
            .option("spool_bytes_max", "256KiB")
            .option("spool_high_water", "100%");
        let broker = setup.start();
        let mut local = Client::connect(&broker, "local", Login::default());
        local.subscribe("up/q0");
        let mut filler = Client::connect(&broker, "filler", Login::default());
        let payload = [7; 16 << 10];
        let mut acknowledged = 0;
        // MQTT 3.1.1: closed, no acknowledgement.
        while let Some((kind, _)) = filler.publish("up/a", &payload, 1) {
            assert_eq!(kind, 0x40);
            acknowledged += 1;
            assert!(acknowledged < 100, "256 KiB hold no 100 times 16 KiB");
        }
        // The others, each with a connection of its own: version 5, QoS.
        for (v5, qos) in [(false, 2), (true, 1), (true, 2)] {
            let login = Login {
                v5,
                ..Login::default()
            };
            let mut new = Client::connect(&broker, "new", login);
            let answer = new.publish("up/a", &payload, qos);
            if v5 && version.name == "2.1.2" {
                let ack = if qos == 1 { 0x40 } else { 0x50 };
                assert_eq!(
                    answer,
                    Some((ack, 0x97)),
                    "quota exceeded, and it stays connected"
                );
                assert_eq!(new.publish("free/a", b"x", 1), Some((0x40, 0x10)));
            } else {
                // Closed; MQTT 5 may be told so.
                assert!(
                    answer.is_none_or(|(kind, _)| v5 && kind == 0xE0),
                    "{version:?}, MQTT 5 {v5}, QoS {qos}: {answer:?}"
                );
            }
        }
        // QoS 0 is still delivered locally.
        let mut quiet = Client::connect(&broker, "quiet", Login::default());
        quiet.publish("up/q0", &payload, 0);
        assert!(local.message().0.starts_with("up/q0 "));
        assert_eq!(broker.counter(count::UPLINK_DROPPED_QOS0_FULL), 1);
        assert_eq!(broker.counter(count::UPLINK_REFUSED), 4);
        let mut uplink = broker.uplink();
        let kept = std::iter::from_fn(|| uplink.poll()).count();
        assert_eq!(
            kept, acknowledged,
            "{version:?}: exactly what was acknowledged was kept"
        );
    }
}

#[test]
fn a_message_larger_than_a_segment_is_refused() {
    let mut setup = Setup::new(&oldest());
    setup
        .option("spool_segment_bytes", "64KiB")
        .option("spool_bytes_max", "1MiB");
    let broker = setup.start();
    let mut client = Client::connect(&broker, "large", Login::default());
    assert_eq!(client.publish("up/a", &[0; 70 << 10], 1), None);
    assert_eq!(broker.counter(count::UPLINK_TOO_LARGE), 1);
    broker.wait_for_log("a message of `large` on `up/a` was refused");
}
