//! A node reads what its subscribers can want, and little else.

use harness::wait::comes_true;
use harness::{Broker, Client, ClusterSpec, DEADLINE, Mosquitto, Publication, Version};
use serde_json::Value;

use super::{all_of, texts};

const NODES: usize = 8;
/// Messages for each node.
const MESSAGES: usize = 200;

/// What a node's sidecar got of the cluster's messages.
fn received(node: &Broker) -> u64 {
    let status = node.status().expect("a status");
    let rules = status["downlink"]["rules"].as_array().expect("rules");
    let shared = rules.iter().find(|rule| {
        rule["rule"]
            .as_str()
            .is_some_and(|text| text.starts_with("MQTT_CLUSTER_"))
    });
    shared.map_or(0, |rule| rule["received"].as_u64().expect("a number"))
}

fn tags(node: &Broker) -> Option<u64> {
    let status: Value = node.status()?;
    status["cluster"]["interest_tags"].as_u64()
}

/// Every node wants another site: of what is published for all, it gets its own share.
#[test]
fn with_disjoint_subscriptions_a_node_gets_hardly_more_than_it_needs() {
    let spec = ClusterSpec::new("DISJOINT").share("#");
    let versions: Vec<Mosquitto> = Mosquitto::ALL.iter().copied().cycle().take(NODES).collect();
    let nodes: Vec<Broker> = versions
        .iter()
        .map(|version| spec.node(*version).start())
        .collect();
    let readers: Vec<Client> = nodes
        .iter()
        .enumerate()
        .map(|(number, node)| {
            let reader = node.client(Version::V311, &format!("reader-{number}"));
            reader.subscribe(&format!("site-{number}/#"), 1);
            reader
        })
        .collect();
    // One level with all below it: 257 tags, and those of retained and of direct messages.
    for node in &nodes {
        assert!(
            comes_true(DEADLINE, || tags(node) == Some(259)),
            "{:?}",
            tags(node)
        );
    }
    let speaker = nodes[0].client(Version::V5, "speaker");
    for message in 0..MESSAGES {
        for site in 0..NODES {
            let topic = format!("site-{site}/device-{}", message % 50);
            speaker.publish(Publication::new(&topic, message.to_string()));
        }
    }
    let expected: Vec<String> = (0..MESSAGES).map(|message| message.to_string()).collect();
    for reader in &readers {
        assert_eq!(texts(&all_of(reader, MESSAGES)), expected);
    }
    for (number, node) in nodes.iter().enumerate() {
        let received = received(node);
        assert!(
            received <= MESSAGES as u64 * 12 / 10,
            "node {number} needs {MESSAGES} and got {received}"
        );
    }
}

/// Subscriptions come and go while messages flow: whoever has its SUBACK gets everything from then on.
#[test]
fn nothing_published_behind_a_suback_is_missed() {
    let spec = ClusterSpec::new("SUBACK").share("#");
    let from = spec.node(Mosquitto::V2_0_21).start();
    let to = spec.node(Mosquitto::V2_1_2).start();
    let speaker = from.client(Version::V5, "speaker");
    let reader = to.client(Version::V5, "reader");
    let mut number = 0;
    for round in 0..30 {
        let topic = format!("round-{round}/x");
        // Nobody wants this one.
        speaker.publish(Publication::new(&topic, "before"));
        reader.subscribe(&format!("round-{round}/+"), 1);
        for _ in 0..5 {
            speaker.publish(Publication::new(&topic, number.to_string()));
            number += 1;
        }
    }
    let got = texts(&all_of(&reader, number));
    let got: Vec<&String> = got.iter().filter(|text| *text != "before").collect();
    let expected: Vec<String> = (0..number).map(|number| number.to_string()).collect();
    assert_eq!(got, expected.iter().collect::<Vec<_>>());
}
