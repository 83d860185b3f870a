//! What devices, applications and disks send that nobody should: neither process dies, and the rest goes on.

use std::fs;

use harness::probe::unique;
use harness::{BrokerSpec, Mosquitto, Produced, Publication, Topic, Version, eventually};

use crate::downlink::from_earliest;
use crate::every_byte;

#[test]
fn wrong_properties_of_an_application_stop_nothing() {
    let topic = Topic::shared("HOSTILE_DOWN", 1);
    for version in Mosquitto::ALL {
        let mut broker = from_earliest(version)
            .option("group", unique("GID_HOSTILE"))
            .downlink(format!("{} h/%k qos=1", topic.name()))
            .start();
        let client = broker.client(Version::V5, "hostile");
        client.subscribe("#", 2);
        let sidecar = broker.sidecar_pid();
        // These can be delivered, without what is wrong in them.
        topic.produce(&[
            Produced::new("1")
                .keys("k")
                .property("mqtt_qos", "9")
                .property("mqtt_retain", "perhaps"),
            Produced::new("2")
                .keys("k")
                .property("mqtt_expiry", "-5")
                .property("mqtt_payload_format", "17"),
            Produced::new("3")
                .keys("k")
                .property("mqtt_correlation_data", "!!! no base64"),
            Produced::new("4")
                .keys("k")
                .property("mqtt_user_properties", "[[\"no JSON"),
            Produced::new("5")
                .keys("k")
                .property("mqtt_response_topic", "a/+/#"),
            Produced::new("6")
                .keys("k")
                .property("mqtt_id", ":::")
                .property("mqtt_received_at", "tomorrow"),
            Produced::new("7")
                .keys("k")
                .property("mqtt_content_type", &"x".repeat(20_000)),
            Produced::new(every_byte(300))
                .keys("k")
                .property("mqtt_payload_format", "1"),
        ]);
        // These can't: no key for the topic, and keys that make no MQTT topic.
        topic.produce(&[
            Produced::new("no key"),
            Produced::new("wildcard").keys("+"),
            Produced::new("wildcard").keys("a/#"),
            Produced::new("too long").keys(&"x".repeat(20_000)),
            Produced::new("broker's own").keys("$SYS"),
        ]);
        let end = format!("end of {version:?}");
        topic.produce(&[Produced::new(end.clone()).keys("end")]);
        let got = client.receive_until(end.as_bytes());
        for number in 1..=7 {
            let count = got
                .iter()
                .filter(|message| message.text() == number.to_string())
                .count();
            assert!(count >= 1, "{number} has not come");
        }
        assert!(
            got.iter()
                .all(|message| !message.text().contains("wildcard")),
            "a wildcard was published to"
        );
        assert!(
            got.iter()
                .all(|message| message.qos <= 2 && message.topic.starts_with("h/"))
        );
        assert_eq!(broker.sidecar_pid(), sidecar, "the sidecar has died");
        assert!(broker.is_running());
        let status = broker.status().expect("a status");
        assert!(
            status["downlink"]["rules"][0]["dead"].as_u64() >= Some(3),
            "counted as dead letters: {status}"
        );
        assert_eq!(status["plugin"]["plugin_panics"], 0);
    }
}

#[test]
fn a_message_that_rocketmq_can_never_take_does_not_stop_the_others() {
    let topic = Topic::shared("HOSTILE_UP", 1);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("h/# {}", topic.name()))
        .start();
    let client = broker.client(Version::V5, "large");
    client.publish(Publication::new("h/1", "before"));
    client.publish(Publication::new("h/large", every_byte(5 * 1024 * 1024)));
    client.publish(Publication::new("h/2", "after"));
    let mut reader = topic.reader();
    reader.wait_for_body(b"after");
    assert_eq!(
        reader.texts(),
        ["before", "after"],
        "the same device, the same lane"
    );
    let dead = eventually("the large one is a dead letter", || {
        broker.status_number("dead").filter(|dead| *dead > 0)
    });
    assert_eq!(dead, 1);
    let files: Vec<_> = fs::read_dir(broker.spool_dir().join("dead-letter"))
        .expect("a folder")
        .collect();
    assert!(!files.is_empty(), "it is kept for people to look at");
}

#[test]
fn what_does_not_fit_into_a_segment_is_not_acknowledged() {
    let topic = Topic::shared("TOO_LARGE", 1);
    let mut broker = BrokerSpec::new(Mosquitto::V2_1_2)
        .option("spool_segment_bytes", "64KiB")
        .option("spool_bytes_max", "1MiB")
        .uplink(format!("h/# {}", topic.name()))
        .start();
    for version in Version::ALL {
        let client = broker.client(version, "large");
        let outcome = client.try_publish(Publication::new("h/large", every_byte(100_000)));
        assert!(!outcome.is_taken(), "{version:?}: {outcome:?}");
        let client = broker.client(version, "small");
        client.publish(Publication::new("h/small", format!("small {version:?}")));
        topic
            .reader()
            .wait_for_body(format!("small {version:?}").as_bytes());
    }
    assert_eq!(broker.status_number("uplink_too_large"), Some(2));
    assert!(broker.is_running());
}

#[test]
fn a_topic_that_is_not_there_is_created_where_rocketmq_does_so() {
    let namesrv = harness::environment::shared_namesrv();
    let topic = Topic::named(&namesrv, &unique("AUTO"));
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("auto/# {}", topic.name()))
        .start();
    broker
        .client(Version::V311, "auto")
        .publish(Publication::new("auto/x", "hello"));
    topic.reader().wait_for_body(b"hello");
}
