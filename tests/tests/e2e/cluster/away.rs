//! Nodes that are away for a while.

use harness::{Broker, ClientOptions, ClusterSpec, Mosquitto, Publication, Version};

use super::{all_of, texts};

fn stop_in_order(broker: &mut Broker) {
    broker.terminate();
}

fn kill_the_sidecar_too(broker: &mut Broker) {
    broker.kill_sidecar();
    broker.kill();
}

/// A persistent session on the last node, which goes away and comes back; what it missed comes, once and in order.
fn comes_back(label: &str, version: Version, end: fn(&mut Broker)) {
    let spec = ClusterSpec::new(label).share("news/#");
    let here = spec.node(Mosquitto::V2_0_21).start();
    let mut there = spec
        .node(Mosquitto::V2_1_2)
        // A session that Mosquitto has not saved is gone when it is killed.
        .global_conf("autosave_interval 1")
        .global_conf("autosave_on_changes true")
        .start();
    let options = ClientOptions::new(version, "reader").persistent();
    let reader = there.connect(&options);
    reader.subscribe("news/#", 1);
    let speaker = here.client(Version::V5, "speaker");
    let say = |from: usize, to: usize| {
        for number in from..to {
            speaker.publish(Publication::new("news/today", number.to_string()));
        }
    };
    let numbers = |from: usize, to: usize| {
        (from..to)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    };
    say(0, 10);
    assert_eq!(texts(&all_of(&reader, 10)), numbers(0, 10));
    reader.disconnect();
    end(&mut there);
    say(10, 210);
    there.start();
    let reader = there.connect(&options);
    assert!(reader.session_present);
    say(210, 220);
    assert_eq!(texts(&all_of(&reader, 210)), numbers(10, 220));
}

#[test]
fn a_node_that_was_stopped_gets_what_it_missed_for_its_sessions() {
    comes_back("STOPPED", Version::V311, stop_in_order);
}

#[test]
fn a_node_that_was_killed_gets_what_it_missed_for_its_sessions() {
    comes_back("KILLED", Version::V5, kill_the_sidecar_too);
}
