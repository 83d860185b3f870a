//! A node in a network namespace of its own, cut off from RocketMQ.

use harness::rig::Namespace;
use harness::rocketmq::OwnRocketMq;
use harness::{Broker, Client, ClusterSpec, Mosquitto, Publication, Version};

use super::{all_of, texts};

const FILTER: &str = "chat/#";

fn say(client: &Client, words: &[&str]) {
    for word in words {
        client.publish(Publication::new("chat/x", *word));
    }
}

pub(super) fn wait_for_state(node: &Broker, other: &str, state: &str) {
    harness::eventually(&format!("{other} is {state}"), || {
        let status = node.status()?;
        let nodes = status["cluster"]["nodes"].as_array()?.clone();
        nodes
            .iter()
            .any(|node| node["node"] == other && node["state"] == state)
            .then_some(())
    });
}

/// Its clients stay, are acknowledged and hear each other; the other nodes take it for dead. When it is back, everybody has everything once.
#[test]
fn a_node_that_is_cut_off_goes_on_and_everybody_has_everything_when_it_is_back() {
    let namespace = Namespace::new();
    let mut rocketmq = OwnRocketMq::stopped().address(namespace.servers());
    rocketmq.start();
    let spec = ClusterSpec::at(&rocketmq.namesrv(), "CUTOFF").share(FILTER);
    let node = |version| spec.node(version).without_waiting_for_rocketmq();
    let near = node(Mosquitto::V2_0_11).start();
    let other = node(Mosquitto::V2_1_2).start();
    let cut = node(Mosquitto::V2_0_21)
        .option("node_id", "cut-off")
        .started_by(&namespace.command())
        .address(namespace.inside())
        .start();
    for node in [&near, &other, &cut] {
        node.wait_until_connected();
    }
    let listeners = [
        near.client(Version::V311, "near"),
        other.client(Version::V5, "other"),
        cut.client(Version::V5, "cut"),
    ];
    for listener in &listeners {
        listener.subscribe(FILTER, 1);
    }
    let (outside, inside) = (
        near.client(Version::V5, "outside"),
        cut.client(Version::V311, "inside"),
    );
    wait_for_state(&near, "cut-off", "alive");
    say(&outside, &["before"]);
    for listener in &listeners {
        assert_eq!(texts(&all_of(listener, 1)), ["before"]);
    }
    namespace.drop_packets();
    wait_for_state(&near, "cut-off", "dead");
    say(&outside, &["outside 1", "outside 2"]);
    say(&inside, &["inside 1", "inside 2"]);
    let halves = [
        (&listeners[0], "outside"),
        (&listeners[1], "outside"),
        (&listeners[2], "inside"),
    ];
    for (listener, half) in halves {
        assert_eq!(
            texts(&all_of(listener, 2)),
            [format!("{half} 1"), format!("{half} 2")]
        );
    }
    assert!(namespace.pass_packets() > 0, "no packet was dropped");
    wait_for_state(&near, "cut-off", "alive");
    for (listener, half) in halves {
        let missed = if half == "inside" {
            "outside"
        } else {
            "inside"
        };
        assert_eq!(
            texts(&all_of(listener, 2)),
            [format!("{missed} 1"), format!("{missed} 2")]
        );
    }
    harness::probe::forget(&rocketmq.namesrv());
}
