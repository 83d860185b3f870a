//! What can't be delivered is kept, shown, and delivered once its cause is mended.

use std::fs;
use std::process::{Command, Output, Stdio};

use harness::environment::sidecar;
use harness::probe::unique;
use harness::rocketmq::OwnRocketMq;
use harness::wait::comes_true;
use harness::{
    Broker, BrokerSpec, DEADLINE, Mosquitto, Produced, Publication, Topic, Version, eventually,
};
use serde_json::Value;

use crate::every_byte;

/// `mosquitto-rocketmq … --spool-dir SPOOL`.
fn run(broker: &Broker, arguments: &[&str]) -> Output {
    Command::new(sidecar())
        .args(arguments)
        .arg("--spool-dir")
        .arg(broker.spool_dir())
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

#[track_caller]
fn ok(broker: &Broker, arguments: &[&str]) -> Vec<u8> {
    let output = run(broker, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

/// What `dead-letter list --json` says.
fn letters(broker: &Broker) -> Vec<Value> {
    let out = ok(broker, &["dead-letter", "list", "--json"]);
    serde_json::from_slice(&out).expect("a JSON array")
}

fn wait_for_letters(broker: &Broker, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters"), || {
        Some(letters(broker)).filter(|letters| letters.len() == count)
    })
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn a_letter_is_shown_whole_and_arrives_once_its_topic_is_there() {
    let mut rocketmq = OwnRocketMq::stopped().setting("autoCreateTopicEnable=false");
    rocketmq.start();
    let name = unique("LATER");
    let broker = BrokerSpec::new(Mosquitto::V2_1_2)
        .option("namesrv", rocketmq.namesrv())
        .option("node_id", "letters-1")
        .option("topic_missing_timeout", "1s")
        .uplink(format!("l/# {name} tag=%2 key=%c"))
        .start();
    let client = broker.client(Version::V5, "device-1");
    let payload = every_byte(300);
    client.publish(Publication::new("l/first", payload.clone()).qos(2));
    client.publish(Publication::new("l/second", "text"));
    let found = wait_for_letters(&broker, 2);
    let first = &found[0];
    assert_eq!(text(first, "topic"), "l/first");
    assert_eq!(text(first, "client_id"), "device-1");
    assert_eq!(text(first, "direction"), "uplink");
    assert_eq!(text(first, "rocketmq_topic"), name);
    assert_eq!(first["bytes"], 300);
    assert!(text(first, "reason").contains(&name), "{first}");
    let id = text(first, "id");
    // In a table, whole, and byte by byte.
    let table = String::from_utf8(ok(&broker, &["dead-letter", "list"])).expect("text");
    assert!(table.contains(id) && table.contains("l/second"), "{table}");
    let shown = String::from_utf8(ok(&broker, &["dead-letter", "show", id])).expect("text");
    for word in ["l/first", "device-1", &name, "mqtt_qos=2", "000000a0"] {
        assert!(shown.contains(word), "{word} is not in\n{shown}");
    }
    assert_eq!(
        ok(&broker, &["dead-letter", "show", id, "--payload"]),
        payload
    );
    // Nothing is mended: it stays, and says why.
    let refused = run(&broker, &["dead-letter", "replay", id]);
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains(id) && why.contains(&name), "{why}");
    assert_eq!(letters(&broker).len(), 2);

    let topic = Topic::create(&rocketmq.namesrv(), &name, 2);
    eventually("both letters are delivered", || {
        run(&broker, &["dead-letter", "replay", "--all"])
            .status
            .success()
            .then_some(())
    });
    assert!(letters(&broker).is_empty());
    let mut reader = topic.reader();
    let stored = reader.wait_for_body(&payload);
    reader.wait_for_body(b"text");
    assert_eq!(stored.property("mqtt_topic"), Some("l/first"));
    assert_eq!(stored.property("mqtt_qos"), Some("2"));
    assert_eq!(stored.property("mqtt_replayed"), Some(id));
    assert!(
        stored
            .property("mqtt_id")
            .is_some_and(|id| id.starts_with("letters-1:"))
    );
    assert_eq!(
        (stored.tag.as_deref(), stored.keys.as_deref()),
        (Some("first"), Some("device-1"))
    );
    assert_eq!(reader.messages.len(), 2, "each once");
    let status = broker.status().expect("a status");
    assert_eq!(status["dead_letters"]["count"], 0);
    assert_eq!(status["dead_letters"]["replayed_uplink"], 2);
}

#[test]
fn what_no_rule_could_map_is_mapped_by_the_rules_of_now() {
    let (up, down) = (Topic::shared("REMAP", 1), Topic::shared("REMAP_DOWN", 1));
    let dir = tempfile::tempdir().expect("a folder");
    let rules = dir.path().join("rules");
    // A level that is no RocketMQ topic, and a key that is not there.
    let broken = format!("uplink r/+ %2\ndownlink {} d/%k\n", down.name());
    fs::write(&rules, broken).expect("a file");
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("rules_file", rules.display().to_string())
        .option("downlink_from", "earliest")
        .start();
    let client = broker.client(Version::V311, "mapper");
    client.subscribe("d/#", 1);
    client.publish(Publication::new("r/not!allowed", "up"));
    down.produce(&[Produced::new("down")]);
    let found = wait_for_letters(&broker, 2);
    let of = |direction: &str| {
        let letter = found.iter().find(|letter| letter["direction"] == direction);
        letter.unwrap_or_else(|| panic!("{direction} in {found:?}"))
    };
    assert_eq!(text(of("uplink"), "topic"), "r/not!allowed");
    assert_eq!(text(of("downlink"), "rocketmq_topic"), down.name());

    let mended = format!("uplink r/# {}\ndownlink {} d/x\n", up.name(), down.name());
    fs::write(&rules, mended).expect("a file");
    broker.hup();
    let only_down = ["dead-letter", "replay", "--all", "--direction", "downlink"];
    eventually("the new rules map the message", || {
        run(&broker, &only_down).status.success().then_some(())
    });
    let received = client.receive();
    assert_eq!(
        (received.topic.as_str(), received.text()),
        ("d/x", "down".to_owned())
    );
    assert_eq!(letters(&broker).len(), 1, "the other was not asked for");
    ok(
        &broker,
        &["dead-letter", "replay", text(of("uplink"), "id")],
    );
    let stored = up.reader().wait_for_body(b"up");
    assert_eq!(stored.property("mqtt_topic"), Some("r/not!allowed"));
    assert!(letters(&broker).is_empty());
}

#[test]
fn letters_can_be_purged_beside_the_sidecar_and_are_bounded() {
    let topic = Topic::shared("PURGE", 1);
    let mut broker = BrokerSpec::new(Mosquitto::V2_0_21)
        .option("dead_letter_bytes_max", "16MiB")
        .uplink(format!("p/# {}", topic.name()))
        .start();
    let client = broker.client(Version::V311, "purger");
    // More than RocketMQ takes, and in base64 more than a third of the bound.
    let large = every_byte(5 * 1024 * 1024);
    client.publish(Publication::new("p/0", large.clone()));
    let id = text(&wait_for_letters(&broker, 1)[0], "id").to_owned();
    assert_eq!(
        ok(&broker, &["dead-letter", "show", &id, "--payload"]),
        large
    );
    ok(&broker, &["dead-letter", "purge", &id]);
    assert!(letters(&broker).is_empty());
    assert!(!run(&broker, &["dead-letter", "show", &id]).status.success());
    for number in 1..=4 {
        client.publish(Publication::new(&format!("p/{number}"), large.clone()));
    }
    let summary = eventually("all four were written", || {
        let summary = broker.status()?["dead_letters"].clone();
        // Their numbers are not all of the same moment.
        (summary["removed"] == 2 && summary["count"] == 2).then_some(summary)
    });
    assert!(
        summary["bytes"].as_u64() <= summary["bytes_max"].as_u64(),
        "{summary}"
    );
    let left = letters(&broker);
    let topics: Vec<_> = left.iter().map(|letter| text(letter, "topic")).collect();
    assert_eq!(topics, ["p/3", "p/4"], "the oldest went");
    // Without a broker: they can be read and purged, and not replayed.
    broker.terminate();
    let refused = run(&broker, &["dead-letter", "replay", "--all"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("no sidecar runs"),
        "{refused:?}"
    );
    assert_eq!(letters(&broker).len(), 2);
    ok(&broker, &["dead-letter", "purge", "--all"]);
    assert!(letters(&broker).is_empty());
}

#[test]
fn what_waits_in_the_spool_can_be_saved_without_rocketmq_and_without_a_broker() {
    let mut broker = BrokerSpec::new(Mosquitto::V2_1_2)
        .option("namesrv", "127.0.0.1:1")
        .option("node_id", "rescue")
        .uplink("s/# SAVED")
        .without_waiting_for_rocketmq()
        .start();
    let client = broker.client(Version::V5, "saver");
    for number in 0..20 {
        client.publish(Publication::new(
            &format!("s/{number}"),
            format!("payload {number}"),
        ));
    }
    let check = |broker: &Broker| {
        let status: Value =
            serde_json::from_slice(&ok(broker, &["spool", "status", "--json"])).expect("JSON");
        let uplink = &status[0];
        assert_eq!(uplink["direction"], "uplink");
        assert_eq!(uplink["waiting_messages"], 20);
        assert_eq!(uplink["damaged"].as_array().map(Vec::len), Some(0));
        let out = ok(broker, &["spool", "export", "--direction", "uplink"]);
        let out = String::from_utf8(out).expect("text");
        let topics: Vec<String> = out
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(line["rules"][0], "s/# SAVED");
                assert!(text(&line, "id").starts_with("rescue:"), "{line}");
                text(&line, "topic").to_owned()
            })
            .collect();
        let wanted: Vec<String> = (0..20).map(|number| format!("s/{number}")).collect();
        assert_eq!(topics, wanted);
    };
    check(&broker);
    broker.kill();
    assert!(comes_true(DEADLINE, || !broker.is_running()));
    check(&broker);
}
