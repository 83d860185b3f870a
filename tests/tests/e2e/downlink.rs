//! From RocketMQ to a device.

use std::time::Duration;

use harness::broker::BrokerSpec;
use harness::{Client, ClientOptions, Mosquitto, Produced, Publication, Topic, Version};

use crate::{SIZES, UTF8, every_byte};

/// A broker that takes its topics from the beginning, so that a test may produce whenever it likes.
pub(crate) fn from_earliest(version: Mosquitto) -> BrokerSpec {
    BrokerSpec::new(version).option("downlink_from", "earliest")
}

#[test]
fn every_qos_goes_down_to_both_mqtt_versions_once() {
    let topics: Vec<Topic> = (0..=2)
        .map(|qos| Topic::shared(&format!("DOWN_QOS{qos}"), 1))
        .collect();
    let mut spec = from_earliest(Mosquitto::V2_0_11);
    for (qos, topic) in topics.iter().enumerate() {
        spec = spec.downlink(format!("{} down/%k qos={qos}", topic.name()));
    }
    let broker = spec.start();
    let clients: Vec<Client> = Version::ALL
        .iter()
        .map(|version| {
            let client = broker.client(*version, &format!("device-{}", version.number()));
            client.subscribe("down/+", 2);
            client
        })
        .collect();
    for (qos, topic) in topics.iter().enumerate() {
        topic.produce(&[
            Produced::new(format!("qos {qos}")).keys(&format!("key-{qos}")),
            Produced::new(format!("end of qos {qos}")).keys("end"),
        ]);
    }
    for client in &clients {
        let mut all = Vec::new();
        while all.len() < 2 * topics.len() {
            all.push(client.receive());
        }
        for qos in 0..=2u8 {
            let found: Vec<_> = all
                .iter()
                .filter(|message| message.text() == format!("qos {qos}"))
                .collect();
            assert_eq!(
                found.len(),
                1,
                "{client:?} got qos {qos} {} times",
                found.len()
            );
            assert_eq!((found[0].qos, found[0].retain), (qos, false));
            assert_eq!(found[0].topic, format!("down/key-{qos}"));
        }
    }
}

#[test]
fn payloads_go_down_byte_for_byte() {
    let topic = Topic::shared("DOWN_BYTES", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} bytes/%k qos=1", topic.name()))
        .start();
    let clients: Vec<Client> = Version::ALL
        .iter()
        .map(|version| broker.client(*version, &format!("b{}", version.number())))
        .collect();
    clients
        .iter()
        .for_each(|client| client.subscribe("bytes/#", 1));
    let messages: Vec<Produced> = SIZES
        .iter()
        .map(|size| {
            let keys = size.to_string();
            match size {
                0 => Produced::new([0]).property("mqtt_empty", "1").keys(&keys),
                _ => Produced::new(every_byte(*size)).keys(&keys),
            }
        })
        .collect();
    topic.produce(&messages);
    for client in &clients {
        for size in SIZES {
            let message = client.receive();
            assert_eq!(message.topic, format!("bytes/{size}"));
            assert!(
                message.payload == every_byte(size),
                "{size} bytes have changed on the way"
            );
        }
    }
}

#[test]
fn what_went_up_comes_down_byte_for_byte_on_another_node() {
    let topic = Topic::shared("NODES", 1);
    let sender = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("chat/# {}", topic.name()))
        .start();
    let receiver = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} %{{mqtt_topic}} qos=1", topic.name()))
        .start();
    let listener = receiver.client(Version::V5, "listener");
    listener.subscribe("chat/#", 1);
    let speaker = sender.client(Version::V311, "speaker");
    for size in SIZES {
        speaker.publish(Publication::new(&format!("chat/{size}"), every_byte(size)));
    }
    for size in SIZES {
        let message = listener.receive();
        assert_eq!(message.topic, format!("chat/{size}"));
        assert!(
            message.payload == every_byte(size),
            "{size} bytes have changed on the way"
        );
    }
}

#[test]
fn topics_in_any_script_go_down() {
    let topic = Topic::shared("DOWN_UTF8", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} gruß/%{{place}}/x qos=1", topic.name()))
        .start();
    let client = broker.client(Version::V311, "utf8");
    client.subscribe("gruß/#", 1);
    let messages: Vec<Produced> = UTF8
        .iter()
        .map(|name| Produced::new(*name).property("place", name))
        .collect();
    topic.produce(&messages);
    for name in UTF8 {
        let message = client.receive();
        assert_eq!(
            (message.topic.as_str(), message.text().as_str()),
            (format!("gruß/{name}/x").as_str(), name)
        );
    }
}

#[test]
fn tags_choose_and_the_template_sees_key_and_tag() {
    let topic = Topic::shared("DOWN_TAGS", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!(
            "{} d/%g/%k \"tags=red || blue\" qos=1",
            topic.name()
        ))
        .start();
    let client = broker.client(Version::V311, "tags");
    client.subscribe("d/#", 1);
    topic.produce(&[
        Produced::new("1").tag("red").keys("a"),
        Produced::new("2").tag("green").keys("a"),
        Produced::new("3").keys("a"),
        Produced::new("4").tag("blue").keys("b"),
    ]);
    let got: Vec<(String, String)> = client
        .receive_until(b"4")
        .iter()
        .map(|message| (message.topic.clone(), message.text()))
        .collect();
    assert_eq!(
        got,
        [
            ("d/red/a".to_owned(), "1".to_owned()),
            ("d/blue/b".to_owned(), "4".to_owned())
        ]
    );
}

#[test]
fn a_rule_sets_qos_retain_and_expiry_and_a_message_overrides_them() {
    let topic = Topic::shared("DOWN_SETS", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!(
            "{} s/%k qos=1 retain=true expiry=1000s",
            topic.name()
        ))
        .start();
    let client = broker.client(Version::V5, "live");
    client.subscribe("s/#", 2);
    topic.produce(&[
        Produced::new("rule").keys("rule"),
        Produced::new("message")
            .keys("message")
            .property("mqtt_qos", "2")
            .property("mqtt_retain", "0")
            .property("mqtt_expiry", "55"),
    ]);
    let (by_rule, by_message) = (client.receive(), client.receive());
    assert_eq!((by_rule.topic.as_str(), by_rule.qos), ("s/rule", 1));
    let expiry = by_rule
        .properties
        .message_expiry_interval
        .expect("an expiry");
    assert!((900..=1000).contains(&expiry), "{expiry}");
    assert_eq!(
        (by_message.topic.as_str(), by_message.qos),
        ("s/message", 2)
    );
    let expiry = by_message
        .properties
        .message_expiry_interval
        .expect("an expiry");
    assert!((1..=55).contains(&expiry), "{expiry}");
    // Retained is what the rule said, and not what the message forbade.
    let later = broker.client(Version::V5, "later");
    later.subscribe("s/#", 2);
    let retained = later.receive();
    assert_eq!(
        (
            retained.topic.as_str(),
            retained.text().as_str(),
            retained.retain
        ),
        ("s/rule", "rule", true)
    );
    later.publish(Publication::new("s/end", "end"));
    assert_eq!(
        later.receive_until(b"end").len(),
        1,
        "nothing else is retained"
    );
}

#[test]
fn an_expired_message_is_not_delivered() {
    let topic = Topic::shared("DOWN_EXPIRED", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} e/%k qos=1", topic.name()))
        .start();
    let options = ClientOptions::new(Version::V5, "sleeper").persistent();
    let sleeper = broker.connect(&options);
    sleeper.subscribe("e/#", 1);
    sleeper.kill();
    let watcher = broker.client(Version::V311, "watcher");
    watcher.subscribe("e/#", 1);
    topic.produce(&[
        Produced::new("short")
            .keys("short")
            .property("mqtt_expiry", "1"),
        Produced::new("long")
            .keys("long")
            .property("mqtt_expiry", "600"),
    ]);
    watcher.receive_until(b"long");
    // What is waited for here is the passing of the second that it may live.
    std::thread::sleep(Duration::from_millis(2_500));
    let sleeper = broker.connect(&options);
    assert_eq!(sleeper.receive().text(), "long");
}

#[test]
fn one_client_is_reached_without_a_subscription_and_nobody_else() {
    let topic = Topic::shared("DOWN_CLIENT", 1);
    let ruled = Topic::shared("DOWN_CLIENT_RULE", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} commands qos=1", topic.name()))
        .downlink(format!("{} to/you qos=1 client=%k", ruled.name()))
        .start();
    for version in Version::ALL {
        let wanted = format!("wanted-{}", version.number());
        let target = broker.client(version, &wanted);
        let other = broker.client(version, &format!("other-{}", version.number()));
        other.subscribe("#", 1);
        topic.produce(&[
            Produced::new("for you").property("client_id", &wanted),
            Produced::new("for nobody").property("client_id", "not-here"),
        ]);
        ruled.produce(&[Produced::new("by rule").keys(&wanted)]);
        let mut got =
            [target.receive(), target.receive()].map(|message| (message.topic, message.payload));
        got.sort();
        assert_eq!(
            got,
            [
                ("commands".to_owned(), b"for you".to_vec()),
                ("to/you".to_owned(), b"by rule".to_vec())
            ],
            "{version:?}"
        );
        topic.produce(&[Produced::new("for all")]);
        assert_eq!(other.receive().text(), "for all");
    }
}
