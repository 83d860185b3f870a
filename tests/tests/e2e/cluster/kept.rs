//! Messages for single clients: wherever they are, and kept while they are nowhere.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::probe::{Produced, unique};
use harness::{
    Broker, ClientOptions, ClusterSpec, DEADLINE, Mosquitto, Publication, Topic, Version,
};

use super::cut_off::wait_for_state;
use super::moves::dies_for_good;
use super::{all_of, texts};

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

/// Two nodes to which an application sends by a RocketMQ topic.
fn two_nodes(label: &str, options: &[(&str, &str)]) -> (Topic, [Broker; 2]) {
    let spec = ClusterSpec::new(label).share("p2p/#");
    let topic = Topic::shared(&format!("COMMANDS_{label}"), 1);
    let nodes = [Mosquitto::V2_0_11, Mosquitto::V2_1_2].map(|version| {
        let node = spec
            .node(version)
            .option("downlink_from", "earliest")
            .downlink(format!("{} commands qos=1", topic.name()));
        let node = options
            .iter()
            .fold(node, |node, (name, value)| node.option(name, *value));
        node.start()
    });
    // They know each other by then.
    let here = nodes[0].client(Version::V5, "here");
    harness::eventually("the nodes know each other's clients", || {
        nodes[1].whereabouts("here")
    });
    drop(here);
    (topic, nodes)
}

fn send(topic: &Topic, client: &str, texts: &[String]) {
    let messages: Vec<Produced> = texts
        .iter()
        .map(|text| Produced::new(text.as_str()).property("client_id", client))
        .collect();
    topic.produce(&messages);
}

/// Waits until this much lies in the inbox of the cluster, in all.
#[track_caller]
fn wait_for_kept(nodes: &[Broker; 2], count: u64) {
    let deadline = Instant::now() + DEADLINE;
    while nodes
        .iter()
        .any(|node| node.status_number("kept_messages") < Some(count))
    {
        assert!(Instant::now() < deadline, "{count} messages are not kept");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_is_for_a_client_that_is_nowhere_comes_when_it_comes_once() {
    let (topic, nodes) = two_nodes("KEPT", &[]);
    send(&topic, "device", &numbers(0, 20));
    send(&topic, "other", &numbers(90, 91));
    wait_for_kept(&nodes, 21);
    let device = nodes[1].client(Version::V311, "device");
    let got = all_of(&device, 20);
    assert!(got.iter().all(|message| message.topic == "commands"));
    assert_eq!(texts(&got), numbers(0, 20));
    // Now it is there.
    send(&topic, "device", &numbers(20, 25));
    assert_eq!(texts(&all_of(&device, 5)), numbers(20, 25));
    device.disconnect();
    for node in &nodes {
        harness::eventually("it is known to be gone", || {
            let device = node.whereabouts("device")?;
            (device["online"] == false).then_some(())
        });
    }
    send(&topic, "device", &numbers(25, 30));
    wait_for_kept(&nodes, 6);
    let device = nodes[0].client(Version::V5, "device");
    assert_eq!(texts(&all_of(&device, 5)), numbers(25, 30));
    let other = nodes[0].client(Version::V5, "other");
    assert_eq!(texts(&all_of(&other, 1)), ["90"]);
}

#[test]
fn the_newest_are_kept_when_there_are_too_many() {
    let (topic, nodes) = two_nodes("KEPTFEW", &[("cluster_keep_messages", "5")]);
    send(&topic, "device", &numbers(0, 8));
    wait_for_kept(&nodes, 8);
    let device = nodes[0].client(Version::V5, "device");
    assert_eq!(texts(&all_of(&device, 5)), numbers(3, 8));
}

#[test]
fn a_device_reaches_another_one_by_its_client_id_wherever_that_is() {
    let (_, nodes) = two_nodes("PEERS", &[]);
    let speaker = nodes[0].client(Version::V5, "speaker");
    let near = nodes[0].client(Version::V311, "near");
    let far = nodes[1].client(Version::V5, "far");
    harness::eventually("all are known", || nodes[0].whereabouts("far"));
    for name in ["near", "far", "later"] {
        speaker.publish(Publication::new(&format!("p2p/{name}"), name));
    }
    for client in [&near, &far] {
        assert_eq!(all_of(client, 1).len(), 1);
    }
    let later = nodes[1].client(Version::V5, "later");
    assert_eq!(texts(&all_of(&later, 1)), ["later"]);
    assert_eq!(all_of(&speaker, 0).len(), 0);
}

#[test]
fn for_a_client_with_a_session_its_node_keeps_it() {
    let (topic, nodes) = two_nodes("KEPTSESSION", &[]);
    let options = ClientOptions::new(Version::V311, "device").persistent();
    nodes[1].connect(&options).disconnect();
    harness::eventually("it is known to be gone", || {
        let device = nodes[0].whereabouts("device")?;
        (device["online"] == false).then_some(())
    });
    send(&topic, "device", &numbers(0, 5));
    std::thread::sleep(Duration::from_secs(2));
    let device = nodes[1].connect(&options);
    assert_eq!(texts(&all_of(&device, 5)), numbers(0, 5));
}

/// Until the others know that it is dead, nobody does what was its to do: neither for its own clients nor for those that are nowhere.
#[test]
fn what_comes_while_a_node_dies_is_not_lost() {
    let spec = ClusterSpec::new("KEPTDYING").share("p2p/#");
    let topic = Topic::shared("COMMANDS_KEPTDYING", 1);
    let name = unique("dying");
    // The first of them by its name is the one that keeps.
    let node = |version, number: u8| {
        spec.node(version)
            .option("node_id", format!("{name}-{number}"))
            .option("downlink_from", "earliest")
            .downlink(format!("{} commands qos=1", topic.name()))
            .start()
    };
    let mut dying = node(Mosquitto::V2_0_21, 1);
    let stays = node(Mosquitto::V2_1_2, 2);
    let there = dying.client(Version::V5, "there");
    harness::eventually("the nodes know each other's clients", || {
        stays.whereabouts("there")
    });
    send(&topic, "there", &numbers(0, 1));
    assert_eq!(texts(&all_of(&there, 1)), ["0"]);
    dies_for_good(&mut dying);
    send(&topic, "nowhere", &numbers(0, 10));
    send(&topic, "there", &numbers(1, 10));
    // One of them comes before it is known, and one after.
    let there = stays.client(Version::V5, "there");
    let mut got: BTreeSet<String> = BTreeSet::new();
    harness::eventually("all has come", || {
        got.insert(there.receive_within(Duration::from_millis(200))?.text());
        (got.len() >= 9).then_some(())
    });
    wait_for_state(&stays, &format!("{name}-1"), "dead");
    let nowhere = stays.client(Version::V311, "nowhere");
    assert_eq!(texts(&all_of(&nowhere, 10)), numbers(0, 10));
}
