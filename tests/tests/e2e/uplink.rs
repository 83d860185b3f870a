//! From a device to RocketMQ.

use harness::{BrokerSpec, Mosquitto, Publication, Topic, Version};

use crate::{SIZES, UTF8, every_byte};

#[test]
fn every_qos_of_both_mqtt_versions_goes_up_once_with_its_properties() {
    let topic = Topic::shared("UP_QOS", 4);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("up/+/+ {} tag=%2 key=%c", topic.name()))
        .start();
    let mut expected = Vec::new();
    for version in Version::ALL {
        let id = format!("device-{}", version.number());
        let client = broker.client(version, &id);
        for qos in 0..=2 {
            let body = format!("qos {qos} of {id}");
            client.publish(Publication::new(&format!("up/{id}/{qos}"), body.clone()).qos(qos));
            expected.push((body, id.clone(), version, qos));
        }
    }
    let mut reader = topic.reader();
    for (body, id, version, qos) in &expected {
        let stored = reader.wait_for_body(body.as_bytes());
        assert_eq!(stored.tag.as_deref(), Some(id.as_str()), "{body}");
        assert_eq!(stored.keys.as_deref(), Some(id.as_str()), "{body}");
        assert_eq!(
            stored.property("mqtt_topic"),
            Some(format!("up/{id}/{qos}").as_str())
        );
        assert_eq!(stored.property("mqtt_client_id"), Some(id.as_str()));
        assert_eq!(stored.property("mqtt_qos"), Some(qos.to_string().as_str()));
        assert_eq!(stored.property("mqtt_retain"), Some("0"));
        assert_eq!(stored.property("mqtt_version"), Some(version.number()));
        assert_eq!(stored.property("mqtt_will"), None);
        assert_eq!(stored.property("mqtt_empty"), None);
        let received_at: i64 = stored
            .property("mqtt_received_at")
            .expect("set")
            .parse()
            .expect("Unix ms");
        assert!(
            (stored.stored_at_ms - received_at).abs() < 120_000,
            "{received_at} is now"
        );
        assert_eq!(
            stored.property("mqtt_id").expect("set").split(':').count(),
            3
        );
    }
    assert_eq!(
        reader.wait_for(expected.len()).len(),
        expected.len(),
        "each once: {:?}",
        reader.texts()
    );
}

#[test]
fn payloads_go_up_byte_for_byte() {
    let topic = Topic::shared("UP_BYTES", 1);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("bytes/# {}", topic.name()))
        .start();
    let client = broker.client(Version::V311, "bytes");
    for size in SIZES {
        client.publish(Publication::new(&format!("bytes/{size}"), every_byte(size)));
    }
    let mut reader = topic.reader();
    for (stored, size) in reader.wait_for(SIZES.len()).iter().zip(SIZES) {
        assert_eq!(
            stored.property("mqtt_topic"),
            Some(format!("bytes/{size}").as_str()),
            "one device's order"
        );
        if size == 0 {
            // RocketMQ refuses an empty body.
            assert_eq!(stored.property("mqtt_empty"), Some("1"));
            assert_eq!(stored.body, [0]);
        } else {
            assert_eq!(stored.property("mqtt_empty"), None);
            assert!(
                stored.body == every_byte(size),
                "{size} bytes have changed on the way"
            );
        }
    }
}

#[test]
fn topics_and_client_ids_in_any_script_go_up() {
    let topic = Topic::shared("UP_UTF8", 2);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("wörld/+/# {} key=%2 prop.rest=%3", topic.name()))
        .start();
    for version in Version::ALL {
        for (index, name) in UTF8.iter().enumerate() {
            let client = broker.client(version, &format!("{name}-{}", version.number()));
            client.publish(Publication::new(
                &format!("wörld/{name}/{name}/x"),
                format!("{index} {}", version.number()),
            ));
        }
    }
    let mut reader = topic.reader();
    for version in Version::ALL {
        for (index, name) in UTF8.iter().enumerate() {
            let stored = reader.wait_for_body(format!("{index} {}", version.number()).as_bytes());
            assert_eq!(
                stored.property("mqtt_topic"),
                Some(format!("wörld/{name}/{name}/x").as_str())
            );
            assert_eq!(
                stored.property("mqtt_client_id"),
                Some(format!("{name}-{}", version.number()).as_str())
            );
            assert_eq!(stored.keys.as_deref(), Some(*name));
            assert_eq!(stored.property("rest"), Some(*name));
        }
    }
}

#[test]
fn two_rules_on_one_topic_both_get_it() {
    let (first, second) = (Topic::shared("UP_TWO_A", 1), Topic::shared("UP_TWO_B", 1));
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("two/+ {} tag=first", first.name()))
        .uplink(format!("two/# {} tag=second", second.name()))
        .start();
    let client = broker.client(Version::V5, "two");
    for message in 0..50 {
        client.publish(Publication::new("two/rules", format!("message {message}")));
    }
    client.publish(Publication::new("two/rules/deeper", "only the second"));
    let expected: Vec<String> = (0..50)
        .map(|message| format!("message {message}"))
        .collect();
    let mut reader = second.reader();
    reader.wait_for_body(b"only the second");
    assert_eq!(reader.texts()[..50], expected);
    assert!(
        reader
            .messages
            .iter()
            .all(|stored| stored.tag.as_deref() == Some("second"))
    );
    let mut reader = first.reader();
    reader.wait_for(50);
    assert_eq!(reader.texts(), expected);
    assert!(
        reader
            .messages
            .iter()
            .all(|stored| stored.tag.as_deref() == Some("first"))
    );
}

#[test]
fn what_no_rule_wants_stays_local_and_dollar_topics_are_not_matched_by_wildcards() {
    let topic = Topic::shared("UP_NONE", 1);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("+/wanted {}", topic.name()))
        .start();
    let client = broker.client(Version::V311, "none");
    client.subscribe("#", 1);
    client.publish(Publication::new("a/unwanted", "no 1"));
    client.publish(Publication::new("a/wanted/too/deep", "no 2"));
    client.publish(Publication::new("a/wanted", "yes"));
    client.receive_until(b"yes");
    let mut reader = topic.reader();
    reader.wait_for_body(b"yes");
    assert_eq!(reader.texts(), ["yes"]);
}

#[test]
fn user_name_and_topic_are_there_for_templates() {
    let topic = Topic::shared("UP_TEMPLATE", 1);
    let dir = tempfile::tempdir().expect("a folder");
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!(
            "t/# {} \"tag=%u\" key=%c prop.whole=%t \"prop.text=100%% of %2\"",
            topic.name()
        ))
        .start_in(dir);
    // allow_anonymous takes any user name.
    let options =
        harness::ClientOptions::new(Version::V311, "templates").credentials("ann", "anything");
    broker
        .connect(&options)
        .publish(Publication::new("t/two", "hello"));
    let stored = topic.reader().wait_for_body(b"hello");
    assert_eq!(stored.tag.as_deref(), Some("ann"));
    assert_eq!(stored.keys.as_deref(), Some("templates"));
    assert_eq!(stored.property("whole"), Some("t/two"));
    assert_eq!(stored.property("text"), Some("100% of two"));
    assert_eq!(stored.property("mqtt_username"), Some("ann"));
}

#[test]
fn a_topic_that_loses_queues_loses_no_messages() {
    let topic = Topic::shared("UP_SHRINK", 4);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("shrink/# {} key=%c", topic.name()))
        .start();
    // Enough devices for each queue to have some.
    let devices: Vec<_> = (0..12)
        .map(|device| broker.client(Version::V311, &format!("device-{device}")))
        .collect();
    let publish = |word: &str| {
        for (number, device) in devices.iter().enumerate() {
            device.publish(Publication::new("shrink/x", format!("{word} {number}")));
        }
    };
    publish("before");
    let mut reader = topic.reader();
    reader.wait_for(devices.len());
    Topic::create(&harness::environment::shared_namesrv(), topic.name(), 1);
    publish("after");
    reader.wait_for(2 * devices.len());
    let mut texts = reader.texts();
    texts.sort();
    let mut expected: Vec<String> = ["before", "after"]
        .iter()
        .flat_map(|word| (0..devices.len()).map(move |number| format!("{word} {number}")))
        .collect();
    expected.sort();
    assert_eq!(texts, expected);
    assert_eq!(broker.status_number("dead"), Some(0));
}
