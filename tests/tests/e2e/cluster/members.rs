//! Which nodes there are, and where each client is.

use std::time::Instant;

use harness::probe::unique;
use harness::wait::comes_true;
use harness::{
    Broker, Client, ClientOptions, ClusterSpec, DEADLINE, Mosquitto, Publication, Topic, Version,
};
use serde_json::Value;

use super::cut_off::wait_for_state;
use super::moves::dies_for_good;
use super::{SETTLE, all_of, texts};

/// What the last retained message says of where a client is.
struct Presence(Client);

impl Presence {
    fn of(watched: &str, at: &Broker) -> Presence {
        let client = at.client(Version::V5, &unique("watcher"));
        client.subscribe(&format!("$presence/{watched}"), 1);
        Presence(client)
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) {
        harness::eventually(what, || {
            let message = self.0.try_receive()?;
            let said: Value = serde_json::from_slice(&message.payload).expect("JSON");
            is_it(&said).then_some(())
        });
    }
}

#[test]
fn when_a_node_dies_its_clients_are_offline_everywhere() {
    let spec = ClusterSpec::new("LOST").share("t/#");
    let near = spec.node(Mosquitto::V2_0_11).start();
    let other = spec.node(Mosquitto::V2_1_2).start();
    let dies = unique("dies");
    let mut dying = spec
        .node(Mosquitto::V2_0_21)
        .option("node_id", dies.as_str())
        .start();
    let device = dying.client(Version::V311, "device");
    let watchers = [&near, &other].map(|node| Presence::of("device", node));
    for watcher in &watchers {
        watcher.wait_for("it is online", |said| {
            said["online"] == true && said["node"] == dies.as_str()
        });
    }
    dies_for_good(&mut dying);
    for watcher in &watchers {
        watcher.wait_for("it is offline", |said| {
            said["online"] == false && said["cause"] == "node lost"
        });
    }
    for node in [&near, &other] {
        wait_for_state(node, &dies, "dead");
        let known = node.whereabouts("device").expect("it is known");
        assert_eq!(known["online"], false);
    }
    // Applications hear of it, too.
    let messages = spec.messages();
    let presence = Topic::named(
        &harness::environment::shared_namesrv(),
        &format!("{}_PRESENCE", messages.name()),
    );
    let mut reader = presence.reader();
    harness::eventually("it is told in RocketMQ", || {
        reader.poll();
        let said = reader.texts();
        let offline = |text: &String| {
            let said: Value = serde_json::from_str(text).ok()?;
            let is_it = said["client"] == "device" && said["cause"] == "node lost";
            is_it.then_some(())
        };
        said.iter().find_map(offline)
    });
    drop(device);
}

#[test]
fn of_two_logins_in_the_same_moment_one_connection_stays() {
    const PAIRS: usize = 10;
    let spec = ClusterSpec::new("RACE").share("t/#");
    let nodes = [
        spec.node(Mosquitto::V2_0_21).start(),
        spec.node(Mosquitto::V2_1_2).start(),
    ];
    let known = nodes[1].client(Version::V5, "known");
    harness::eventually("the nodes know each other", || {
        nodes[0].whereabouts("known")
    });
    let clients: Vec<Vec<Client>> = std::thread::scope(|scope| {
        let logins = nodes.each_ref().map(|node| {
            scope.spawn(move || {
                let id = |number| ClientOptions::new(Version::V5, &format!("twin-{number}"));
                (0..PAIRS).map(|number| node.connect(&id(number))).collect()
            })
        });
        let joined = logins.map(|login| login.join().expect("logged in"));
        joined.into_iter().collect()
    });
    let open = |number: usize| -> Vec<usize> {
        let is_open = |node: &usize| !clients[*node][number].is_closed();
        (0..nodes.len()).filter(is_open).collect()
    };
    let is_one_of_each = || (0..PAIRS).all(|number| open(number).len() == 1);
    assert!(comes_true(DEADLINE, is_one_of_each), "both are connected");
    // And it is left alone.
    let quiet = Instant::now();
    while quiet.elapsed() < SETTLE {
        assert!(is_one_of_each(), "none is connected");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for number in 0..PAIRS {
        let id = format!("twin-{number}");
        let places = || {
            nodes.each_ref().map(|node| {
                let known = node.whereabouts(&id);
                known.filter(|known| known["online"] == true)
            })
        };
        harness::eventually("both nodes agree on where it is", || {
            let [one, other] = places();
            (one?["node"] == other?["node"]).then_some(())
        });
    }
    drop(known);
}

#[test]
fn a_second_broker_with_the_node_id_of_another_one_takes_no_part_while_that_is_there() {
    let spec = ClusterSpec::new("TWICE").share("t/#");
    let id = unique("same");
    let node = |version| spec.node(version).option("node_id", id.as_str());
    let other = spec.node(Mosquitto::V2_1_2).start();
    let mut first = node(Mosquitto::V2_0_21).start();
    wait_for_state(&other, &id, "alive");
    let second = node(Mosquitto::V2_0_11).start();
    second.wait_for_log(&["another broker works as node", &id, "takes no part"]);
    first.wait_for_log(&["another broker works as node", &id, "takes no part"]);
    harness::eventually("it says so in its status", || {
        let reasons = second.status()?["health"].to_string();
        reasons.contains("node_id_twice").then_some(())
    });
    let (near, far) = (
        first.client(Version::V5, "near"),
        second.client(Version::V5, "far"),
    );
    near.subscribe("t/#", 1);
    far.subscribe("t/#", 1);
    let speaker = other.client(Version::V311, "speaker");
    speaker.publish(Publication::new("t/x", "for the first"));
    assert_eq!(texts(&all_of(&near, 1)), ["for the first"]);
    assert!(all_of(&far, 0).is_empty());
    // When the first one is gone, the second takes its place.
    first.terminate();
    second.wait_for_log(&["the other broker of our node id is gone"]);
    harness::eventually("the second one works", || {
        speaker.publish(Publication::new("t/x", "for the second"));
        far.receive_within(SETTLE)
    });
}
