//! The log is real; what MESSAGE costs is counted.

use std::cell::Cell;

use handoff::{LogOptions, Reader, ReaderOptions};
use protocol::config::Config;
use protocol::message::Property;
use protocol::rules::RuleTable;

use super::*;
use crate::broker_conf::BrokerConf;
use crate::events::{Client, NO_EXPIRY};
use crate::ffi::properties::BorrowedProperties;
use crate::test_alloc::allocations;

struct Setup {
    dir: tempfile::TempDir,
    uplink: Uplink,
    counters: Rc<Counters>,
}

fn config(rules: &[&str]) -> Config {
    let fixed = [("namesrv", "127.0.0.1:9876"), ("node_id", "n")];
    let rules = rules.iter().map(|rule| match rule.split_once(' ') {
        Some(("share", filter)) => ("share", filter),
        Some(("bridge", id)) => ("cluster_bridge", id),
        _ => ("uplink", *rule),
    });
    Config::from_options(fixed.into_iter().chain([("cluster", "c")]).chain(rules))
        .expect("a configuration")
}

fn setup(rules: &[&str], policy: SpoolFull, options: &LogOptions) -> Setup {
    let dir = tempfile::tempdir().expect("a directory");
    let writer = Writer::open(&dir.path().join("uplink"), options).expect("a log");
    let counters =
        Rc::new(Counters::create(&dir.path().join("counters"), count::COUNT).expect("counters"));
    let mut table = RuleTable::open(dir.path().join("rules.table")).expect("a table");
    let wanted = Rc::new(Wanted::new(&config(rules), &mut table).expect("rules"));
    let mut uplink = Uplink::new(writer, wanted, policy, Rc::clone(&counters));
    *uplink.carriers() = Carriers::of(&config(rules), &BrokerConf::of_text(""));
    Setup {
        dir,
        uplink,
        counters,
    }
}

fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        bytes_max: 256 << 10,
        ..LogOptions::default()
    }
}

fn publish<'a>(topic: &'a str, payload: &'a [u8], qos: u8) -> Publish<'a> {
    Publish {
        client: Client {
            key: 1,
            id: "device-1",
            username: Some("user"),
            mqtt_version: 4,
        },
        topic,
        payload,
        qos,
        retain: true,
        properties: BorrowedProperties::NONE,
        expiry: NO_EXPIRY,
    }
}

/// Fills the log until a QoS 1 message is refused or dropped.
fn fill(setup: &mut Setup) -> Outcome {
    let payload = [7; 4096];
    (0..10_000)
        .map(|_| setup.uplink.publish(&publish("s/a", &payload, 1), None))
        .find(|outcome| *outcome != Outcome::Kept)
        .expect("the log is bounded")
}

#[test]
fn a_message_arrives_in_the_log_as_it_was() {
    let mut setup = setup(&["s/# TOPIC"], SpoolFull::Refuse, &small());
    let mut properties = PropertyBuffer::new();
    properties.push(&Property::User("k", "v")).expect("room");
    let before = now_ms();
    let outcome = setup.uplink.publish(
        &publish("s/a", b"\0payload", 2),
        Some((&properties, Some(9))),
    );
    assert_eq!(outcome, Outcome::Kept);
    let mut reader = Reader::open(&setup.dir.path().join("uplink"), &ReaderOptions::default())
        .expect("a reader");
    let frame = reader.poll().expect("good").expect("there");
    let message = Message::decode(frame.payload).expect("a message");
    assert_eq!(
        (message.topic, message.payload, message.qos),
        ("s/a", &b"\0payload"[..], QoS::ExactlyOnce)
    );
    assert_eq!(
        (message.client_id, message.username, message.mqtt_version),
        ("device-1", Some("user"), 4)
    );
    assert!(message.retain && !message.will);
    assert!((before..=now_ms()).contains(&message.received_at_ms));
    assert_eq!(message.expiry_s, Some(9));
    assert_eq!(
        message.properties.iter().collect::<Vec<_>>(),
        [Property::User("k", "v")]
    );
    assert_eq!(message.rules.len(), 1);
}

#[test]
fn the_expiry_is_looked_for_once_and_only_where_a_rule_wants_the_message() {
    let mut setup = setup(
        &["s/# TOPIC", "share c/#", "bridge native"],
        SpoolFull::Refuse,
        &small(),
    );
    let asked = Cell::new(0);
    let expiry = |publish: &Publish<'_>| {
        asked.set(asked.get() + 1);
        (publish.payload == b"short-lived").then_some(60)
    };
    let mut publish = |id, topic, payload, read| {
        let mut message = publish(topic, payload, 1);
        (message.client.id, message.expiry) = (id, &expiry);
        setup.uplink.publish(&message, read);
        asked.take()
    };
    let none = PropertyBuffer::new();
    assert_eq!(publish("device", "elsewhere", b"short-lived", None), 0);
    assert_eq!(publish("native", "c/x", b"short-lived", None), 0);
    assert_eq!(publish("device", "s/x", b"short-lived", None), 1);
    assert_eq!(publish("device", "s/x", b"forever", None), 1);
    let read = Some((&none, None));
    assert_eq!(publish("device", "s/x", b"short-lived", read), 1);
    // Among the properties, should Mosquitto leave it there.
    let read = Some((&none, Some(9)));
    assert_eq!(publish("device", "s/x", b"short-lived", read), 0);
    let log = setup.dir.path().join("uplink");
    let mut reader = Reader::open(&log, &ReaderOptions::default()).expect("a log");
    for expected in [Some(60), None, Some(60), Some(9)] {
        let frame = reader.poll().expect("good").expect("a frame");
        let message = Message::decode(frame.payload).expect("a message");
        assert_eq!(message.expiry_s, expected);
    }
}

#[test]
fn two_rules_on_one_topic_share_one_copy() {
    let mut setup = setup(&["s/# A", "s/+ B"], SpoolFull::Refuse, &small());
    assert_eq!(
        setup.uplink.publish(&publish("s/a", b"x", 0), None),
        Outcome::Kept
    );
    assert_eq!(setup.counters.get(count::UPLINK_APPENDED), 1);
    let mut reader = Reader::open(&setup.dir.path().join("uplink"), &ReaderOptions::default())
        .expect("a reader");
    let frame = reader.poll().expect("good").expect("there");
    assert_eq!(
        Message::decode(frame.payload)
            .expect("a message")
            .rules
            .iter()
            .count(),
        2
    );
}

#[test]
fn what_no_rule_wants_is_let_through() {
    let mut setup = setup(&["+/# A"], SpoolFull::Refuse, &small());
    for topic in ["$SYS/x", "$other/x"] {
        assert_eq!(
            setup.uplink.publish(&publish(topic, b"x", 1), None),
            Outcome::NotWanted,
            "{topic}"
        );
    }
    assert_eq!(setup.counters.get(count::UPLINK_MATCHED), 0);
}

#[test]
fn other_rules_count_for_the_topic_that_was_looked_up_before_them() {
    let mut setup = setup(&["s/# A"], SpoolFull::Refuse, &small());
    assert!(setup.uplink.wants("s/a") && !setup.uplink.wants("t/a"));
    let mut table = RuleTable::open(setup.dir.path().join("rules.table")).expect("a rule table");
    let wanted = Wanted::new(&config(&["t/# A"]), &mut table).expect("rules");
    setup.uplink.set_wanted(Rc::new(wanted));
    assert!(setup.uplink.wants("t/a") && !setup.uplink.wants("s/a"));
    assert_eq!(
        setup.uplink.publish(&publish("s/a", b"x", 1), None),
        Outcome::NotWanted
    );
    assert_eq!(
        setup.uplink.publish(&publish("t/a", b"x", 1), None),
        Outcome::Kept
    );
}

#[test]
fn a_full_spool_refuses_qos_1_and_drops_qos_0() {
    let mut setup = setup(&["s/# A"], SpoolFull::Refuse, &small());
    assert_eq!(fill(&mut setup), Outcome::Refused);
    assert_eq!(
        setup.uplink.publish(&publish("s/a", &[0; 4096], 2), None),
        Outcome::Refused
    );
    assert_eq!(
        setup.uplink.publish(&publish("s/a", &[0; 4096], 0), None),
        Outcome::Dropped
    );
    assert_eq!(setup.counters.get(count::UPLINK_REFUSED), 2);
    assert_eq!(setup.counters.get(count::UPLINK_DROPPED_QOS0_FULL), 1);
    every_match_is_counted_once(&setup.counters);
}

#[test]
fn a_full_spool_drops_all_when_that_is_asked_for() {
    let mut setup = setup(&["s/# A"], SpoolFull::Drop, &small());
    assert_eq!(fill(&mut setup), Outcome::Dropped);
    assert_eq!(setup.counters.get(count::UPLINK_DROPPED_FULL), 1);
    every_match_is_counted_once(&setup.counters);
}

#[test]
fn a_message_larger_than_a_segment_gets_no_acknowledgement_under_either_policy() {
    for policy in [SpoolFull::Refuse, SpoolFull::Drop] {
        let mut setup = setup(&["s/# A"], policy, &small());
        let payload = vec![0; 65 << 10];
        assert_eq!(
            setup.uplink.publish(&publish("s/a", &payload, 1), None),
            Outcome::Refused
        );
        assert_eq!(
            setup.uplink.publish(&publish("s/a", &payload, 0), None),
            Outcome::Dropped
        );
        assert_eq!(setup.counters.get(count::UPLINK_TOO_LARGE), 2);
        assert_eq!(
            setup.uplink.publish(&publish("s/a", b"x", 1), None),
            Outcome::Kept
        );
        every_match_is_counted_once(&setup.counters);
    }
}

fn every_match_is_counted_once(counters: &Counters) {
    let ends = [
        count::UPLINK_APPENDED,
        count::UPLINK_DROPPED_QOS0_FULL,
        count::UPLINK_DROPPED_FULL,
        count::UPLINK_REFUSED,
        count::UPLINK_TOO_LARGE,
        count::UPLINK_ERRORS,
    ];
    let sum: u64 = ends.iter().map(|counter| counters.get(*counter)).sum();
    assert_eq!(counters.get(count::UPLINK_MATCHED), sum);
}

#[test]
fn the_way_up_allocates_nothing() {
    let rules: Vec<String> = (0..200).map(|n| format!("s/{n}/+ TOPIC{n}")).collect();
    let mut rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    rules.extend(["s/# ALL", "s/+/deep A tag=%2 key=%c", "share s/#"]);
    let mut setup = setup(&rules, SpoolFull::Refuse, &LogOptions::default());
    let payload = [1; 128];
    let mut run = |messages: usize| {
        for _ in 0..messages {
            assert_eq!(
                setup
                    .uplink
                    .publish(&publish("s/7/deep", &payload, 1), None),
                Outcome::Kept
            );
            assert_eq!(
                setup
                    .uplink
                    .publish(&publish("elsewhere/7", &payload, 1), None),
                Outcome::NotWanted
            );
        }
    };
    run(1); // the buffers reach their sizes
    let before = allocations();
    run(10_000);
    assert_eq!(allocations() - before, 0);
}

#[test]
fn what_is_in_the_log_and_not_on_the_disk_counts_as_kept() {
    let mut setup = setup(&["s/# TOPIC"], SpoolFull::Refuse, &small());
    let source = || std::io::Error::other("a bad disk");
    let position = 0;
    let unsynced = AppendError::NotSynced {
        position,
        source: source(),
    };
    assert!(setup.uplink.in_the_log(Err(unsynced)).is_ok());
    let failed = AppendError::Io(source());
    assert!(setup.uplink.in_the_log(Err(failed)).is_err());
}

#[test]
fn what_several_share_rules_match_is_sent_once() {
    let mut setup = setup(
        &["share chat/#", "share chat/+/loud", "chat/# A"],
        SpoolFull::Refuse,
        &small(),
    );
    let outcome = setup
        .uplink
        .publish(&publish("chat/room/loud", b"x", 1), None);
    assert_eq!(outcome, Outcome::Kept);
    assert_eq!(
        setup.uplink.ids.len(),
        2,
        "the shares are one, and the other rule"
    );
    assert!(!setup.uplink.wants("talk/room"));
}

#[test]
fn a_retained_message_that_is_shared_tells_what_came_down_before_it() {
    let rules = ["share chat/#", "# ALL"];
    let mut setup = setup(&rules, SpoolFull::Refuse, &small());
    let retained = publish("chat/a", b"x", 1);
    let passing = Publish {
        retain: false,
        ..retained
    };
    let own = publish("talk/a", b"x", 1);
    for (position, publish) in [(0, retained), (96, retained), (96, passing), (96, own)] {
        setup.uplink.set_injected(position);
        assert_eq!(setup.uplink.publish(&publish, None), Outcome::Kept);
    }
    let log = setup.dir.path().join("uplink");
    let mut reader = Reader::open(&log, &ReaderOptions::default()).expect("a log");
    for expected in [Some(0), Some(96), None, None] {
        let frame = reader.poll().expect("good").expect("a frame");
        let message = Message::decode(frame.payload).expect("a message");
        assert_eq!(message.injected, expected, "{}", message.topic);
    }
}

#[test]
fn what_a_bridge_between_nodes_brings_of_the_shared_topics_is_left_to_rocketmq() {
    let mut setup = setup(
        &["share chat/#", "bridge host.native", "other/# A"],
        SpoolFull::Refuse,
        &small(),
    );
    let mut publish_by = |id: &'static str, topic| {
        let mut message = publish(topic, b"x", 1);
        message.client.id = id;
        setup.uplink.publish(&message, None)
    };
    for id in ["host.native", "local.host.native"] {
        assert_eq!(publish_by(id, "chat/x"), Outcome::Carried);
        assert_eq!(publish_by(id, "other/x"), Outcome::Kept);
        assert_eq!(publish_by(id, "nobody/x"), Outcome::NotWanted);
    }
    assert_eq!(publish_by("native", "chat/x"), Outcome::Kept);
    assert_eq!(setup.counters.get(count::CLUSTER_BRIDGE_DROPPED), 2);
    assert_eq!(setup.counters.get(count::UPLINK_MATCHED), 3);
}
