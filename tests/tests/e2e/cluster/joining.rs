//! Nodes that join later.

use std::collections::BTreeMap;

use harness::probe::unique;
use harness::{ClusterSpec, Mosquitto, Publication, Version, eventually};

use super::all_of;

const TOPICS: usize = 100;

fn topic(number: usize) -> String {
    format!("kept/{}/{number}", number % 7)
}

#[test]
fn a_node_that_joins_with_an_empty_store_has_all_that_is_retained() {
    let cluster = ClusterSpec::new("JOINING").share("kept/#");
    let first = cluster.node(Mosquitto::V2_0_11).start();
    let second = cluster.node(Mosquitto::V2_0_21).start();
    let speakers = [&first, &second].map(|node| node.client(Version::V5, &unique("speaker")));
    for round in 0..3 {
        for number in 0..TOPICS {
            let message = Publication::new(&topic(number), format!("round {round}"));
            speakers[number % 2].publish(message.retain());
        }
    }
    // Every tenth is taken back, by the other node.
    for number in (0..TOPICS).step_by(10) {
        speakers[(number + 1) % 2].publish(Publication::new(&topic(number), "").retain());
    }
    let expected: BTreeMap<String, String> = (0..TOPICS)
        .filter(|number| number % 10 != 0)
        .map(|number| (topic(number), "round 2".to_owned()))
        .collect();
    let joined = cluster.node(Mosquitto::V2_1_2).start();
    for node in [&first, &second, &joined] {
        eventually(
            "the node has all that is retained, and nothing else",
            || {
                let client = node.client(Version::V5, &unique("later"));
                client.subscribe("kept/#", 1);
                let got: BTreeMap<String, String> = all_of(&client, 0)
                    .into_iter()
                    .map(|message| (message.topic.clone(), message.text()))
                    .collect();
                (got == expected).then_some(())
            },
        );
    }
}
