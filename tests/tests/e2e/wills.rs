//! Wills: the broker publishes them without announcing them as messages, and they go up all the same.

use std::fs;

use harness::mqtt::Will;
use harness::{Broker, BrokerSpec, ClientOptions, Mosquitto, Publication, Topic, Version};

fn broker(topic: &Topic) -> Broker {
    broker_of(Mosquitto::V2_0_11, topic)
}

fn broker_of(version: Mosquitto, topic: &Topic) -> Broker {
    BrokerSpec::new(version)
        .uplink(format!("will/# {} key=%c", topic.name()))
        .start()
}

#[test]
fn the_will_of_a_lost_connection_goes_up_once() {
    let topic = Topic::shared("WILL", 1);
    let broker = broker(&topic);
    let watcher = broker.client(Version::V311, "watcher");
    watcher.subscribe("will/#", 2);
    for version in Version::ALL {
        for qos in 0..=2u8 {
            let id = format!("lost-{}-{qos}", version.number());
            let mut will = Will::new(&format!("will/{id}"), &format!("{id} is gone"));
            will.qos = qos;
            will.retain = qos == 1;
            broker
                .connect(&ClientOptions::new(version, &id).will(will))
                .kill();
            let local = watcher.receive();
            assert_eq!((local.topic, local.qos), (format!("will/{id}"), qos));
            let stored = topic
                .reader()
                .wait_for_body(format!("{id} is gone").as_bytes());
            assert_eq!(stored.property("mqtt_will"), Some("1"));
            assert_eq!(
                stored.property("mqtt_topic"),
                Some(format!("will/{id}").as_str())
            );
            assert_eq!(stored.property("mqtt_client_id"), Some(id.as_str()));
            assert_eq!(stored.keys.as_deref(), Some(id.as_str()));
            assert_eq!(stored.property("mqtt_qos"), Some(qos.to_string().as_str()));
            assert_eq!(
                stored.property("mqtt_retain"),
                Some(if qos == 1 { "1" } else { "0" })
            );
            assert_eq!(stored.property("mqtt_version"), Some(version.number()));
        }
    }
    watcher.publish(Publication::new("will/end", "end"));
    let mut reader = topic.reader();
    reader.wait_for_body(b"end");
    assert_eq!(reader.messages.len(), 7, "each once: {:?}", reader.texts());
}

/// Mosquitto 2.0 shows a plugin a will without its properties; 2.1 shows them.
#[test]
fn the_properties_of_a_will_go_up_where_mosquitto_shows_them() {
    let topic = Topic::shared("WILL_PROPS", 1);
    let broker = broker_of(Mosquitto::V2_1_2, &topic);
    let mut will = Will::new("will/props", "gone");
    will.content_type = Some("text/plain".to_owned());
    will.user_properties = vec![("why".to_owned(), "lost".to_owned())];
    broker
        .connect(&ClientOptions::new(Version::V5, "props").will(will))
        .kill();
    let stored = topic.reader().wait_for_body(b"gone");
    assert_eq!(stored.property("mqtt_will"), Some("1"));
    assert_eq!(stored.property("mqtt_content_type"), Some("text/plain"));
    assert_eq!(stored.property("mqtt_user_why"), Some("lost"));
}

#[test]
fn a_clean_disconnect_has_no_will() {
    let topic = Topic::shared("WILL_CLEAN", 1);
    let broker = broker(&topic);
    for version in Version::ALL {
        let options = ClientOptions::new(version, &format!("clean-{}", version.number()));
        let client = broker.connect(
            &options
                .clone()
                .will(Will::new("will/clean", "must not be seen")),
        );
        client.publish(Publication::new("will/before", "before"));
        client.disconnect();
        broker
            .connect(&options)
            .publish(Publication::new("will/after", "after"));
    }
    let mut reader = topic.reader();
    reader.wait_for(4);
    assert_eq!(reader.texts(), ["before", "after", "before", "after"]);
}

#[test]
fn a_delayed_will_comes_after_its_delay_and_not_at_all_when_the_client_is_back() {
    let topic = Topic::shared("WILL_DELAY", 1);
    let broker = broker(&topic);
    let watcher = broker.client(Version::V311, "watcher");
    watcher.subscribe("will/#", 1);
    let delayed = |id: &str| {
        let will = Will::new(&format!("will/{id}"), &format!("{id} is gone")).delay_s(2);
        ClientOptions::new(Version::V5, id).persistent().will(will)
    };
    broker.connect(&delayed("back")).kill();
    let back = broker.connect(&ClientOptions::new(Version::V5, "back").persistent());
    broker.connect(&delayed("away")).kill();
    back.publish(Publication::new("will/early", "earlier than any will"));
    assert_eq!(watcher.receive().text(), "earlier than any will");
    assert_eq!(watcher.receive().text(), "away is gone");
    back.publish(Publication::new("will/end", "end"));
    let mut reader = topic.reader();
    reader.wait_for_body(b"end");
    let texts = reader.texts();
    let mut sorted = texts.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        ["away is gone", "earlier than any will", "end"],
        "{texts:?}"
    );
    let will = reader
        .messages
        .iter()
        .find(|stored| stored.body == b"away is gone")
        .expect("counted above");
    assert_eq!(will.property("mqtt_will"), Some("1"));
}

#[test]
fn a_session_taken_over_publishes_the_will_of_the_old_connection_as_mosquitto_does() {
    for version in Mosquitto::ALL {
        let topic = Topic::shared("WILL_TAKEN", 1);
        let broker = broker_of(version, &topic);
        let watcher = broker.client(Version::V5, "watcher");
        watcher.subscribe("will/#", 1);
        let options = ClientOptions::new(Version::V311, "twice");
        let first = broker.connect(&options.clone().will(Will::new("will/twice", "the old one")));
        let second = broker.connect(&options);
        second.publish(Publication::new("will/end", "end"));
        let local: Vec<String> = watcher
            .receive_until(b"end")
            .iter()
            .map(harness::mqtt::Received::text)
            .collect();
        drop(first);
        let mut reader = topic.reader();
        reader.wait_for_body(b"end");
        assert_eq!(local, ["the old one", "end"], "{version:?}");
        assert_eq!(
            reader.texts(),
            local,
            "{version:?}: what subscribers here got is what went up"
        );
    }
}

#[test]
fn a_will_that_the_acl_file_denies_is_not_published_anywhere() {
    let topic = Topic::shared("WILL_ACL", 1);
    let dir = tempfile::tempdir().expect("a folder");
    let acl = dir.path().join("acl");
    fs::write(&acl, "topic readwrite will/allowed/#\ntopic read will/#\n").expect("a file");
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("will/# {}", topic.name()))
        .conf(format!("acl_file {}", acl.display()))
        .start_in(dir);
    let watcher = broker.client(Version::V311, "watcher");
    watcher.subscribe("will/#", 1);
    for version in Version::ALL {
        let id = format!("denied-{}", version.number());
        let denied = Will::new("will/denied", "must not be seen");
        broker
            .connect(&ClientOptions::new(version, &id).will(denied))
            .kill();
        let id = format!("allowed-{}", version.number());
        let allowed = Will::new("will/allowed/x", &id);
        broker
            .connect(&ClientOptions::new(version, &id).will(allowed))
            .kill();
        assert_eq!(watcher.receive().text(), id);
        topic.reader().wait_for_body(id.as_bytes());
    }
    watcher.publish(Publication::new("will/allowed/end", "end"));
    let mut reader = topic.reader();
    reader.wait_for_body(b"end");
    assert_eq!(reader.texts(), ["allowed-4", "allowed-5", "end"]);
}
