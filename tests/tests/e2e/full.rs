//! A full spool: refused without a false acknowledgement, as each broker version and MQTT version allows.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::ledger;
use harness::mqtt::Outcome;
use harness::probe::unique;
use harness::{Broker, BrokerSpec, Client, ClientOptions, Mosquitto, Publication, Topic, Version};

use crate::outage::{own, turn};

const SPOOL: &str = "4MiB";
const SEGMENT: &str = "1MiB";
/// Fills that many times over.
const FILL: u64 = 2_000;

fn spec(namesrv: &str, topic: &Topic, version: Mosquitto) -> BrokerSpec {
    BrokerSpec::new(version)
        .option("namesrv", namesrv)
        .option("spool_bytes_max", SPOOL)
        .option("spool_segment_bytes", SEGMENT)
        // The clients of this test come when it is full.
        .option("spool_high_water", "100%")
        .uplink(format!("full/+ {} key=%c", topic.name()))
        .without_waiting_for_rocketmq()
}

/// A numbered payload of 10 kB.
fn bulky(number: ledger::Number) -> String {
    format!("{} {}", ledger::payload(number), "x".repeat(10_000))
}

/// More than three of the spool's four segments hold: a refusal before that may also mean that the next segment was not
/// prepared yet, which passes.
const NEARLY_FULL: usize = 330;

/// Publishes until the broker refuses for good; returns what was acknowledged and how it refused.
fn fill(
    broker: &Broker,
    version: Version,
    device: usize,
) -> (BTreeSet<ledger::Number>, Outcome, Client) {
    let connect = || broker.client(version, &format!("filler-{device}"));
    let mut client = connect();
    let mut taken = BTreeSet::new();
    for sequence in 0..FILL {
        let number = (device, sequence);
        let outcome = client.try_publish(Publication::new("full/fill", bulky(number)));
        if outcome.is_taken() {
            taken.insert(number);
        } else if taken.len() > NEARLY_FULL {
            return (taken, outcome, client);
        } else {
            client = connect();
        }
    }
    panic!(
        "{} of {FILL} messages of 10 kB taken by a spool of {SPOOL}, with RocketMQ away:\n{}",
        taken.len(),
        broker.log()
    );
}

/// What Mosquitto's API allows: on 2.1 an MQTT 5 client hears 0x97 and stays; every other one is closed without an
/// acknowledgement, on 2.0 an MQTT 5 one with DISCONNECT 0x80.
#[track_caller]
fn assert_refused(outcome: &Outcome, client: &Client, broker: Mosquitto, version: Version) {
    let seen = format!("{broker:?}, MQTT {version:?}: {outcome:?}");
    match (broker, version, outcome) {
        (Mosquitto::V2_1_2, Version::V5, Outcome::Acknowledged(reason)) => {
            assert_eq!(reason, "QuotaExceeded", "{seen}");
            assert!(!client.is_closed(), "{seen}");
        }
        (Mosquitto::V2_1_2, Version::V5, _) => panic!("{seen}"),
        // The code is looked at by libmosquitto below: rumqttc can't read a DISCONNECT without properties.
        (_, _, Outcome::Closed(_)) => {}
        _ => panic!("{seen}"),
    }
}

/// The same through libmosquitto, which tells the codes.
#[track_caller]
fn assert_refused_as_libmosquitto_sees_it(
    broker: &Broker,
    version: Mosquitto,
    mqtt: Version,
    qos: u8,
) {
    let output = Command::new("mosquitto_pub")
        .args(["-d", "-h", "127.0.0.1", "-p", &broker.port.to_string()])
        .args([
            "-V",
            if mqtt == Version::V5 { "5" } else { "311" },
            "-q",
            &qos.to_string(),
        ])
        .args(["-t", "full/late", "-m", &bulky((9, 9))])
        .stdin(Stdio::null())
        .output()
        .expect("mosquitto_pub: run scripts/test, which installs it");
    let seen = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let expected = match (version, mqtt) {
        (Mosquitto::V2_1_2, Version::V5) => "Publish 1 failed: Quota exceeded.",
        (_, Version::V5) => "Received DISCONNECT (128)",
        (_, Version::V311) => "The connection was lost.",
    };
    assert!(
        seen.contains(expected),
        "{version:?} {mqtt:?} QoS {qos}: no {expected:?} in\n{seen}"
    );
    for acknowledgement in ["RC:0)", "received PUBCOMP"] {
        assert!(
            !seen.contains(acknowledgement),
            "{version:?} {mqtt:?} QoS {qos}:\n{seen}"
        );
    }
    if mqtt == Version::V311 {
        assert!(
            !seen.contains("PUBACK") && !seen.contains("PUBREC"),
            "{version:?} QoS {qos}:\n{seen}"
        );
    }
}

#[test]
fn a_full_spool_gives_no_false_acknowledgement_and_what_was_acknowledged_arrives() {
    let own = own();
    let mut rocketmq = turn(&own);
    let namesrv = rocketmq.namesrv();
    let versions = [Mosquitto::V2_0_11, Mosquitto::V2_0_21, Mosquitto::V2_1_2];
    let topics: Vec<Topic> = versions
        .iter()
        .map(|_| Topic::create(&namesrv, &unique("FULL"), 2))
        .collect();
    rocketmq.kill();
    let mut kept = Vec::new();
    for (version, topic) in versions.into_iter().zip(&topics) {
        let mut broker = spec(&namesrv, topic, version).start();
        // The clients that will see it were there before: from some mark on, new logins may be refused too.
        let clients = Version::ALL.map(|mqtt| {
            [1u8, 2].map(|qos| {
                let id = format!("late-{}-{qos}", mqtt.number());
                (mqtt, qos, broker.connect(&ClientOptions::new(mqtt, &id)))
            })
        });
        let watcher = broker.client(Version::V5, "watcher");
        watcher.subscribe("full/#", 1);
        let quiet = broker.client(Version::V311, "quiet");
        let (taken, outcome, filler) = fill(&broker, Version::V5, 0);
        assert_refused(&outcome, &filler, version, Version::V5);
        for (mqtt, qos, client) in clients.iter().flatten() {
            let outcome =
                client.try_publish(Publication::new("full/late", bulky((9, 9))).qos(*qos));
            assert_refused(&outcome, client, version, *mqtt);
        }
        for (mqtt, qos, _) in clients.iter().flatten() {
            assert_refused_as_libmosquitto_sees_it(&broker, version, *mqtt, *qos);
        }
        // QoS 0 promises nothing to RocketMQ, and is delivered here all the same, and counted.
        quiet.publish(Publication::new("full/quiet", bulky((8, 8))).qos(0));
        watcher.receive_until(bulky((8, 8)).as_bytes());
        let dropped = broker.status_number("uplink_dropped_qos0_full");
        assert!(dropped >= Some(1), "status counts {dropped:?} dropped");
        let refused = broker.status_number("uplink_refused");
        assert!(refused >= Some(9), "status counts {refused:?} refused");
        assert!(broker.is_running());
        kept.push((broker, taken));
    }
    rocketmq.start();
    for ((broker, taken), topic) in kept.iter().zip(&topics) {
        let mut reader = topic.reader();
        let counted = ledger::settle(taken, &mut reader);
        assert_eq!(
            (counted.lost, counted.reordered, counted.doubled),
            (Vec::new(), 0, 0)
        );
        // There is room again, for everyone.
        let client = broker.client(Version::V311, "again");
        client.publish(Publication::new("full/again", "there is room"));
        reader.wait_for_body(b"there is room");
        // What was refused was not sent by the back door.
        let refused = reader
            .texts()
            .iter()
            .any(|text| text.starts_with("device 9") || text.starts_with("device 8"));
        assert!(!refused, "a refused message has arrived");
    }
}

#[test]
fn with_spool_full_drop_the_devices_are_acknowledged_and_the_drops_are_counted() {
    let nowhere = format!("127.0.0.1:{}", harness::broker::free_port());
    let topic = Topic::named(&nowhere, "DROPPED");
    let mut broker = spec(&nowhere, &topic, Mosquitto::V2_0_11)
        .option("spool_full", "drop")
        .start();
    let watcher = broker.client(Version::V5, "watcher");
    watcher.subscribe("full/#", 1);
    let client = broker.client(Version::V311, "filler");
    for sequence in 0..FILL {
        client.publish(Publication::new("full/fill", bulky((0, sequence))));
        assert!(
            watcher.receive_within(Duration::from_secs(60)).is_some(),
            "delivered here, full or not"
        );
    }
    let dropped = broker
        .status_number("uplink_dropped_full")
        .expect("counted");
    assert!(
        dropped > FILL / 2,
        "{dropped} of {FILL} dropped, in a spool of {SPOOL}"
    );
    assert!(broker.is_running());
}
