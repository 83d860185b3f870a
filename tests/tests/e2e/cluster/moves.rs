//! Devices that go from one node to another.

use std::time::Duration;

use harness::wait::comes_true;
use harness::{
    Broker, ClientOptions, ClusterSpec, DEADLINE, Mosquitto, Publication, Version, Will,
};

use super::{all_of, texts};

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

fn leaves(_: &mut Broker) {}

pub(super) fn dies_for_good(broker: &mut Broker) {
    broker.kill_sidecar();
    broker.kill();
}

/// A persistent session is left on one node; what is published meanwhile comes on another one, once it has subscribed there.
fn moves(label: &str, (from, to): (Mosquitto, Mosquitto), version: Version, end: fn(&mut Broker)) {
    let spec = ClusterSpec::new(label).share("news/#");
    let mut old = spec.node(from).start();
    let new = spec.node(to).start();
    let speaker = new.client(Version::V5, "speaker");
    // Its filter is of interest to nobody on the new node, and another one's is.
    let other = new.client(Version::V311, "other");
    other.subscribe("news/other", 1);
    let say = |from: usize, to: usize| {
        for number in from..to {
            speaker.publish(Publication::new("news/today", number.to_string()));
            speaker.publish(Publication::new("news/other", "for others"));
        }
    };
    let options = ClientOptions::new(version, "reader").persistent();
    let reader = old.connect(&options);
    reader.subscribe("news/today", 1);
    say(0, 10);
    assert_eq!(texts(&all_of(&reader, 10)), numbers(0, 10));
    reader.disconnect();
    harness::eventually("the other node knows that it has left", || {
        let reader = new.whereabouts("reader")?;
        (reader["online"] == false).then_some(())
    });
    // What is given again is what was published in the last second before.
    std::thread::sleep(Duration::from_secs(2));
    end(&mut old);
    say(10, 60);
    let reader = new.connect(&options);
    reader.subscribe("news/today", 1);
    assert_eq!(texts(&all_of(&reader, 50)), numbers(10, 60));
    say(60, 70);
    assert_eq!(texts(&all_of(&reader, 10)), numbers(60, 70));
    assert!(
        texts(&all_of(&other, 70))
            .iter()
            .all(|text| text == "for others")
    );
}

#[test]
fn a_device_that_comes_back_on_another_node_gets_what_it_missed() {
    let versions = (Mosquitto::V2_0_11, Mosquitto::V2_1_2);
    moves("MOVED", versions, Version::V5, leaves);
}

#[test]
fn a_device_whose_node_died_gets_what_it_missed_on_another() {
    let versions = (Mosquitto::V2_1_2, Mosquitto::V2_0_21);
    moves("DIED", versions, Version::V311, dies_for_good);
}

/// What a node knew of the others' clients it has forgotten, or has never known; the others tell it. And what it is about to give, the sidecar after it gives.
#[test]
fn a_device_gets_what_it_missed_on_a_node_that_was_not_there_when_it_left() {
    let spec = ClusterSpec::new("LATER").share("news/#");
    let old = spec.node(Mosquitto::V2_1_2).start();
    let again = spec.node(Mosquitto::V2_0_21).start();
    let speaker = old.client(Version::V5, "speaker");
    let readers = ["again", "joins"].map(|id| ClientOptions::new(Version::V5, id).persistent());
    for options in &readers {
        let reader = old.connect(options);
        reader.subscribe("news/today", 1);
        reader.disconnect();
        harness::eventually("it is known that it has left", || {
            let reader = again.whereabouts(&options.id)?;
            (reader["online"] == false).then_some(())
        });
    }
    // What is given again is what was published in the last second before.
    std::thread::sleep(Duration::from_secs(2));
    for number in 0..50 {
        speaker.publish(Publication::new("news/today", number.to_string()));
    }
    again.kill_sidecar();
    let joins = spec.node(Mosquitto::V2_0_11).start();
    for (node, options) in [(&again, &readers[0]), (&joins, &readers[1])] {
        let reader = node.connect(options);
        reader.subscribe("news/today", 1);
        assert_eq!(
            texts(&all_of(&reader, 50)),
            numbers(0, 50),
            "{}",
            options.id
        );
    }
}

#[test]
fn what_a_device_has_missed_comes_also_when_the_sidecar_is_killed_meanwhile() {
    let spec = ClusterSpec::new("MEANWHILE").share("news/#");
    let old = spec.node(Mosquitto::V2_1_2).start();
    let new = spec.node(Mosquitto::V2_0_21).start();
    let speaker = old.client(Version::V5, "speaker");
    let options = ClientOptions::new(Version::V5, "reader").persistent();
    let reader = old.connect(&options);
    reader.subscribe("news/today", 1);
    reader.disconnect();
    harness::eventually("it is known that it has left", || {
        let reader = new.whereabouts("reader")?;
        (reader["online"] == false).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    for number in 0..50 {
        speaker.publish(Publication::new("news/today", number.to_string()));
    }
    let reader = new.connect(&options);
    reader.subscribe("news/today", 1);
    // It reads for all that come close together, a moment later.
    std::thread::sleep(Duration::from_millis(100));
    new.kill_sidecar();
    let mut got: Vec<usize> = Vec::new();
    harness::eventually("all has come", || {
        let message = reader.receive_within(Duration::from_millis(200))?;
        got.push(message.text().parse().expect("a number"));
        let all: std::collections::BTreeSet<usize> = got.iter().copied().collect();
        (all.len() == 50).then_some(())
    });
}

#[test]
fn one_client_id_is_connected_once_in_the_cluster() {
    let spec = ClusterSpec::new("TAKEN").share("t/#");
    let old = spec.node(Mosquitto::V2_0_21).start();
    let new = spec.node(Mosquitto::V2_1_2).start();
    let options = ClientOptions::new(Version::V5, "twin").will(Will::new("t/will", "gone"));
    let first = old.connect(&options);
    first.subscribe("t/#", 1);
    // Both nodes know the other one by then.
    let speaker = new.client(Version::V5, "speaker");
    speaker.publish(Publication::new("t/x", "first"));
    assert_eq!(texts(&all_of(&first, 1)), ["first"]);
    harness::eventually("the other node knows of it", || new.whereabouts("twin"));
    let second = new.connect(&options);
    second.subscribe("t/#", 1);
    assert!(
        comes_true(DEADLINE, || first.is_closed()),
        "the older connection is closed"
    );
    speaker.publish(Publication::new("t/x", "second"));
    // The will of the one that was closed is not published.
    assert_eq!(texts(&all_of(&second, 1)), ["second"]);
    assert!(!second.is_closed());
}

/// An old session stays on the node that its device has left. It gets nothing there while the device is elsewhere, and what it missed since when that comes back.
#[test]
fn a_device_that_goes_to_and_fro_gets_each_message_once() {
    let spec = ClusterSpec::new("TOANDFRO").share("news/#");
    let nodes = [
        spec.node(Mosquitto::V2_0_11).start(),
        spec.node(Mosquitto::V2_1_2).start(),
    ];
    let speaker = nodes[0].client(Version::V5, "speaker");
    // What is still on its way to a node when the reader comes there is not missed, and comes before what was.
    let witness = nodes[1].client(Version::V5, "witness");
    witness.subscribe("news/#", 1);
    let options = ClientOptions::new(Version::V5, "reader").persistent();
    let mut said = 0;
    for turn in 0..4 {
        let node = &nodes[turn % 2];
        let reader = node.connect(&options);
        if turn < 2 {
            reader.subscribe("news/#", 1);
        }
        // What was said since it left the other node.
        if turn > 0 {
            assert_eq!(
                texts(&all_of(&reader, 5)),
                numbers(said - 5, said),
                "turn {turn}"
            );
        }
        for number in said..said + 5 {
            speaker.publish(Publication::new("news/today", number.to_string()));
        }
        assert_eq!(
            texts(&all_of(&reader, 5)),
            numbers(said, said + 5),
            "turn {turn}"
        );
        said += 5;
        reader.disconnect();
        for node in &nodes {
            harness::eventually("all nodes know that it has left", || {
                let reader = node.whereabouts("reader")?;
                (reader["online"] == false).then_some(())
            });
        }
        // What is given again is what was published in the last second before.
        std::thread::sleep(Duration::from_secs(2));
        for number in said..said + 5 {
            speaker.publish(Publication::new("news/today", number.to_string()));
        }
        said += 5;
        assert_eq!(texts(&all_of(&witness, 10)), numbers(said - 10, said));
    }
}

#[test]
fn what_a_device_has_missed_and_may_not_read_it_does_not_get() {
    let dir = tempfile::tempdir().expect("a directory");
    let acl = dir.path().join("acl");
    std::fs::write(&acl, "topic readwrite news/open\ntopic write #\n").expect("a file");
    let spec = ClusterSpec::new("MAYNOT").share("news/#");
    let conf = format!("acl_file {}", acl.display());
    let old = spec.node(Mosquitto::V2_0_21).conf(&conf).start();
    let new = spec.node(Mosquitto::V2_1_2).conf(&conf).start();
    let speaker = new.client(Version::V5, "speaker");
    let options = ClientOptions::new(Version::V311, "reader").persistent();
    let reader = old.connect(&options);
    reader.subscribe("news/#", 1);
    speaker.publish(Publication::new("news/open", "before"));
    assert_eq!(texts(&all_of(&reader, 1)), ["before"]);
    reader.disconnect();
    harness::eventually("the other node knows that it has left", || {
        let reader = new.whereabouts("reader")?;
        (reader["online"] == false).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    for text in ["1", "2"] {
        speaker.publish(Publication::new("news/secret", text));
        speaker.publish(Publication::new("news/open", text));
    }
    let reader = new.connect(&options);
    reader.subscribe("news/#", 1);
    assert_eq!(texts(&all_of(&reader, 2)), ["1", "2"]);
}
