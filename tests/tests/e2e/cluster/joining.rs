//! Nodes that join later.

use std::collections::BTreeMap;

use harness::probe::unique;
use harness::{ClusterSpec, Mosquitto, Publication, Version, eventually};

use super::{all_of, texts};

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

/// RocketMQ forgets what is old: what nobody replaces is stored once more before that, and nobody hears of it.
#[test]
fn a_retained_message_is_stored_once_more_and_is_no_news() {
    let spec = ClusterSpec::new("REFRESHED").share("state/#");
    let node = |version| spec.node(version).option("cluster_retained_refresh", "2s");
    let nodes = [Mosquitto::V2_0_11, Mosquitto::V2_1_2].map(|version| node(version).start());
    let listeners = [
        nodes[0].client(Version::V311, "near"),
        nodes[1].client(Version::V5, "far"),
    ];
    for listener in &listeners {
        listener.subscribe("state/#", 1);
    }
    let device = nodes[0].client(Version::V5, "device");
    device.publish(Publication::new("state/1", "on").retain());
    device.publish(Publication::new("state/2", "replaced").retain());
    device.publish(Publication::new("state/2", "off").retain());
    let mut reader = spec.messages().reader();
    eventually("both are stored once more", || {
        reader.poll();
        let stored = reader.messages.iter();
        let again = stored.filter(|stored| stored.property("mqtt_refreshed") == Some("1"));
        let again: Vec<&[u8]> = again.map(|stored| &stored.body[..]).collect();
        assert!(!again.contains(&&b"replaced"[..]), "{again:?}");
        (again.contains(&&b"on"[..]) && again.contains(&&b"off"[..])).then_some(())
    });
    for listener in &listeners {
        assert_eq!(texts(&all_of(listener, 3)), ["on", "replaced", "off"]);
    }
    // Whoever comes now has the newest of each.
    let joining = node(Mosquitto::V2_0_21).start();
    eventually("both are there", || {
        let probe = joining.client(Version::V5, "probe");
        probe.subscribe("state/#", 1);
        (all_of(&probe, 0).len() == 2).then_some(())
    });
}
