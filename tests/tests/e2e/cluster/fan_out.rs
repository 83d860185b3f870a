//! What is published on one node reaches the subscribers on all, once and as it was.

use std::collections::BTreeMap;

use harness::mqtt::{PublishProperties, Received};
use harness::probe::unique;
use harness::{Broker, Client, ClusterSpec, Mosquitto, Publication, Version};

use super::{all_of, texts};
use crate::outage;

/// Messages of each kind.
const MESSAGES: usize = 4;
const NODES: usize = 3;

/// What a publisher does: QoS 0 to 2, retained or not.
const KINDS: [(u8, bool); 6] = [
    (0, false),
    (0, true),
    (1, false),
    (1, true),
    (2, false),
    (2, true),
];

/// `m/<node>/<MQTT version>/<QoS>/<r or n>`
fn topic(node: usize, version: Version, (qos, retain): (u8, bool)) -> String {
    let flag = if retain { "r" } else { "n" };
    format!("m/{node}/{}/{qos}/{flag}", version.number())
}

fn properties(sequence: usize) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(3_000),
        response_topic: Some("antwort/温度计".to_owned()),
        correlation_data: Some(vec![0, 255, sequence as u8].into()),
        user_properties: [("a", "1"), ("b", ""), ("a", "2"), ("Größe", "5 µm")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        content_type: Some("text/plain".to_owned()),
        ..PublishProperties::default()
    }
}

/// Each client of the matrix publishes all kinds in turn.
fn publish_all(node: usize, broker: &Broker, version: Version) {
    let id = format!("publisher-{node}-{}", version.number());
    let client = broker.client(version, &id);
    for sequence in 0..MESSAGES {
        for kind in KINDS {
            let mut message =
                Publication::new(&topic(node, version, kind), sequence.to_string()).qos(kind.0);
            message.retain = kind.1;
            if version == Version::V5 {
                message = message.properties(properties(sequence));
            }
            client.publish(message);
        }
    }
    client.disconnect();
}

/// A subscriber of each version to each way of naming the topics.
fn subscribers(nodes: &[Broker]) -> Vec<(Version, Client)> {
    let mut all = Vec::new();
    for (node, broker) in nodes.iter().enumerate() {
        for version in Version::ALL {
            for way in ["exact", "plus", "hash"] {
                let id = format!("{way}-{}-{node}", version.number());
                let client = broker.client(version, &id);
                match way {
                    "exact" => each_topic().for_each(|topic| client.subscribe(&topic, 2)),
                    "plus" => client.subscribe("m/+/+/+/+", 2),
                    _ => client.subscribe("m/#", 2),
                }
                all.push((version, client));
            }
        }
    }
    all
}

fn each_topic() -> impl Iterator<Item = String> {
    (0..NODES).flat_map(|node| {
        Version::ALL.into_iter().flat_map(move |version| {
            KINDS
                .into_iter()
                .map(move |kind| topic(node, version, kind))
        })
    })
}

/// Of a message from an MQTT 5 publisher.
fn assert_properties(message: &Received, publisher: &str, subscriber: Version) {
    if publisher != Version::V5.number() || subscriber != Version::V5 {
        return;
    }
    let sequence = message.text().parse().expect("a number");
    let mut got = message.properties.clone();
    let left = got.message_expiry_interval.take();
    let expiry = left.unwrap_or_else(|| panic!("{} lost its expiry", message.topic));
    assert!((2_800..=3_000).contains(&expiry), "{expiry}");
    let mut sent = properties(sequence);
    sent.message_expiry_interval = None;
    assert_eq!(got, sent, "{}", message.topic);
}

/// All that a subscriber of the matrix gets.
fn assert_all_came(version: Version, client: &Client) {
    let topics = each_topic().count();
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let mut by_topic: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    for message in all_of(client, topics * MESSAGES) {
        by_topic
            .entry(message.topic.clone())
            .or_default()
            .push(message);
    }
    assert_eq!(by_topic.len(), topics, "{client:?}");
    for (topic, messages) in &by_topic {
        assert_eq!(texts(messages), expected, "{client:?}, {topic}");
        let levels: Vec<&str> = topic.split('/').collect();
        for message in messages {
            assert_eq!(message.qos.to_string(), levels[3], "{client:?}, {topic}");
            // They had subscribed before.
            assert!(!message.retain, "{client:?}, {topic}");
            assert_properties(message, levels[2], version);
        }
    }
}

#[test]
fn every_kind_of_message_reaches_every_kind_of_subscriber_on_every_node_once_and_in_order() {
    let cluster = ClusterSpec::new("FANOUT").share("m/#").start();
    let subscribers = subscribers(&cluster.nodes);
    std::thread::scope(|scope| {
        for (node, broker) in cluster.nodes.iter().enumerate() {
            for version in Version::ALL {
                scope.spawn(move || publish_all(node, broker, version));
            }
        }
    });
    let topics = each_topic().count();
    // At the same time, for each waits a while for a copy too many.
    std::thread::scope(|scope| {
        for (version, client) in subscribers {
            scope.spawn(move || assert_all_came(version, &client));
        }
    });
    // And what was retained is kept on each node.
    for broker in &cluster.nodes {
        let later = broker.client(Version::V5, &unique("later"));
        later.subscribe("m/#", 2);
        let retained = all_of(&later, topics / 2);
        assert_eq!(retained.len(), topics / 2);
        for message in &retained {
            let is_newest = message.text() == (MESSAGES - 1).to_string();
            assert!(message.retain && is_newest, "{message:?}");
        }
    }
}

#[test]
fn the_publishing_nodes_own_subscribers_do_not_wait_for_rocketmq() {
    let own = outage::own();
    let mut rocketmq = outage::turn(&own);
    let cluster = ClusterSpec::at(&rocketmq.namesrv(), "OWN_FIRST")
        .share("own/#")
        .start_of(&[Mosquitto::V2_0_11, Mosquitto::V2_1_2]);
    let [here, there] = &cluster.nodes[..] else {
        unreachable!("two were started")
    };
    let near = here.client(Version::V5, "near");
    let far = there.client(Version::V5, "far");
    near.subscribe("own/+", 1);
    far.subscribe("own/+", 1);
    let speaker = here.client(Version::V311, "speaker");
    speaker.publish(Publication::new("own/x", "before"));
    far.receive_until(b"before");
    near.receive_until(b"before");
    rocketmq.kill();
    for number in 0..20 {
        speaker.publish(Publication::new("own/x", number.to_string()));
    }
    let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(texts(&all_of(&near, 20)), numbers);
    assert!(far.try_receive().is_none(), "RocketMQ is away");
    rocketmq.start();
    assert_eq!(texts(&all_of(&far, 20)), numbers);
    assert_eq!(texts(&all_of(&near, 0)), Vec::<String>::new());
}

#[test]
fn a_filter_that_one_node_shares_alone_takes_that_nodes_messages_to_all() {
    let cluster = ClusterSpec::new("ONE_SHARES").share("both/#");
    let one = cluster.node(Mosquitto::V2_0_11).share("one/#").start();
    let other = cluster.node(Mosquitto::V2_1_2).start();
    let listeners = [&one, &other].map(|broker| {
        let client = broker.client(Version::V5, &unique("listener"));
        client.subscribe("#", 1);
        client
    });
    for (broker, name) in [(&one, "one"), (&other, "other")] {
        let client = broker.client(Version::V311, &unique("speaker"));
        client.publish(Publication::new("one/x", format!("{name}: one")));
        client.publish(Publication::new("both/x", format!("{name}: both")));
    }
    let sorted = |client, count| {
        let mut texts = texts(&all_of(client, count));
        texts.sort();
        texts
    };
    assert_eq!(
        sorted(&listeners[0], 3),
        ["one: both", "one: one", "other: both"]
    );
    assert_eq!(
        sorted(&listeners[1], 4),
        ["one: both", "one: one", "other: both", "other: one"]
    );
}
