//! RocketMQ may hold a message twice when the sender died before it knew. A node that reads hands it over once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::ledger::{self, Load, Number};
use harness::probe::{Reader, unique};
use harness::{
    Broker, BrokerSpec, Client, Mosquitto, Produced, Publication, Topic, Version, eventually, proc,
};

use crate::downlink::from_earliest;

const PAUSE: Duration = Duration::from_millis(1);
/// A kill may come between two batches: then nothing is stored twice, and it takes another one.
const KILLS_MAX: usize = 60;
/// So many times RocketMQ has to hold something twice before a test is content.
const DOUBLED_ENOUGH: usize = 20;

/// A sending node, a reading node and its subscriber.
struct Pair {
    topic: Topic,
    sender: Broker,
    reader: Broker,
    group: String,
    subscriber: Client,
}

impl Pair {
    fn start(label: &str) -> Pair {
        let topic = Topic::shared(label, 4);
        let sender = BrokerSpec::new(Mosquitto::V2_0_11)
            .uplink(format!("load/+ {} key=%c", topic.name()))
            .start();
        let node = unique("reader").to_lowercase().replace('_', "-");
        let reader = from_earliest(Mosquitto::V2_0_21)
            .option("node_id", &node)
            .downlink(format!("{} down/%{{mqtt_topic}} qos=1", topic.name()))
            .start();
        let subscriber = reader.client(Version::V5, "subscriber");
        subscriber.subscribe("down/#", 1);
        Pair {
            topic,
            sender,
            reader,
            group: format!("GID_MQTT_{node}"),
            subscriber,
        }
    }

    /// Kills the sender's sidecar under load until RocketMQ holds enough twice. Returns what was acknowledged.
    fn kill_senders(&self, mut between: impl FnMut(usize)) -> (BTreeSet<Number>, Reader) {
        let load = Load::start(self.sender.port, Version::V311, "load", 4, PAUSE);
        let mut stored = self.topic.reader();
        for kill in 0..KILLS_MAX {
            load.wait_for_more(150);
            let old = self.sender.kill_sidecar();
            eventually("another sidecar runs", || {
                let pids = proc::sidecars(&self.sender.spool_dir());
                (pids.len() == 1 && pids[0] != old).then_some(())
            });
            load.wait_for_more(50);
            between(kill);
            stored.poll();
            if kill >= 5 && doubled(&stored) >= DOUBLED_ENOUGH {
                break;
            }
        }
        let acknowledged = load.stop();
        let counted = ledger::settle(&acknowledged, &mut stored);
        assert_eq!((counted.lost, counted.reordered), (Vec::new(), 0));
        assert!(
            counted.doubled > 0,
            "{KILLS_MAX} kills, and nothing was stored twice: this tests nothing"
        );
        (acknowledged, stored)
    }

    /// Waits until the reading node is done with everything, and returns what its subscriber got.
    fn received(&self, acknowledged: &BTreeSet<Number>) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        let mut missing = acknowledged.clone();
        while !missing.is_empty() {
            let message = self.subscriber.receive();
            if let Some(number) = ledger::number(&message.payload) {
                missing.remove(&number);
            }
            payloads.push(message.payload.to_vec());
        }
        // What is behind the last first arrival: a repetition would come now.
        eventually("the reader has committed everything", || {
            let (committed, there) = self.topic.committed(&self.group)?;
            (committed == there).then_some(())
        });
        let end = Instant::now() + Duration::from_secs(3);
        while let Some(message) = self
            .subscriber
            .receive_within(end.saturating_duration_since(Instant::now()))
        {
            payloads.push(message.payload.to_vec());
        }
        payloads
    }
}

/// How many messages are in RocketMQ more than once.
fn doubled(stored: &Reader) -> usize {
    let bodies = stored
        .messages
        .iter()
        .map(|message| message.body.as_slice());
    ledger::count(&BTreeSet::new(), bodies).doubled
}

#[track_caller]
fn assert_exactly_once(acknowledged: &BTreeSet<Number>, payloads: &[Vec<u8>]) {
    let counted = ledger::count(acknowledged, payloads.iter().map(Vec::as_slice));
    assert_eq!(counted.lost, Vec::new());
    assert_eq!((counted.doubled, counted.reordered), (0, 0), "{counted:?}");
}

#[test]
fn a_node_hands_over_once_and_in_order_what_a_dying_sender_stored_twice() {
    let pair = Pair::start("DUPLICATES");
    let (acknowledged, mut stored) = pair.kill_senders(|_| {});
    let payloads = pair.received(&acknowledged);
    assert_exactly_once(&acknowledged, &payloads);
    stored.poll();
    let all = doubled(&stored) as u64;
    let dropped = eventually("the status counts what was dropped", || {
        pair.reader
            .status_number("duplicates")
            .filter(|n| *n >= all)
    });
    assert_eq!(dropped, all, "each repetition is counted once");
}

#[test]
fn a_node_that_was_restarted_meanwhile_still_knows_what_it_has_handed_over() {
    let pair = Pair::start("DUPLICATES_RESTART");
    let (acknowledged, _) = pair.kill_senders(|kill| {
        if kill % 2 == 1 {
            let old = pair.reader.sidecar_pid();
            proc::signal(old, libc::SIGTERM);
            eventually("the reader's sidecar was started again", || {
                let pids = proc::sidecars(&pair.reader.spool_dir());
                (pids.len() == 1 && pids[0] != old).then_some(())
            });
        }
    });
    let payloads = pair.received(&acknowledged);
    assert_exactly_once(&acknowledged, &payloads);
}

#[test]
fn two_rules_may_send_one_message_to_one_topic_and_both_arrive() {
    let topic = Topic::shared("TWO_RULES", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .uplink(format!("both/# {} tag=A", topic.name()))
        .uplink(format!("both/+ {} tag=B", topic.name()))
        .downlink(format!("{} down/%g qos=1", topic.name()))
        .start();
    let client = broker.client(Version::V5, "both");
    client.subscribe("down/#", 1);
    client.publish(Publication::new("both/x", "one"));
    client.publish(Publication::new("both/x", "end"));
    let mut found: Vec<_> = (0..4)
        .map(|_| client.receive())
        .map(|message| format!("{} {}", message.topic, message.text()))
        .collect();
    found.sort();
    assert_eq!(
        found,
        ["down/A end", "down/A one", "down/B end", "down/B one"]
    );
}

/// The same as RocketMQ's own producer would have it, message by message.
#[test]
fn what_counts_as_a_repetition_is_decided_by_identity_lane_and_order() {
    let topic = Topic::shared("REPETITIONS", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} down qos=1", topic.name()))
        .start();
    let client = broker.client(Version::V5, "device");
    client.subscribe("down", 1);
    // As docs/mapping.md has it.
    let sealed = |queue_id: u32, body: &str| {
        let text = format!("{}\nbroker-a\n{queue_id}\n{body}", topic.name());
        format!("0000002a{:08x}", crc32c::crc32c(text.as_bytes()))
    };
    let with_lane = |body: &str, id: &str, lane: String| {
        Produced::new(body)
            .property("mqtt_id", id)
            .property("mqtt_lane", &lane)
    };
    let of_lane = |body: &str, id: &str| with_lane(body, id, sealed(0, body));
    topic.produce(&[
        of_lane("first", "far:1:16"),
        of_lane("second", "far:1:32"),
        of_lane("first again", "far:1:16"),
        of_lane("second again", "far:1:32"),
        of_lane("another node's", "near:1:16"),
        of_lane("another start's", "far:2:16"),
        of_lane("from the dead letters", "far:1:16").property("mqtt_replayed", "1"),
        of_lane("from them again", "far:1:16").property("mqtt_replayed", "1"),
        // An application's, with all properties of one that it had read.
        with_lane("copied from another queue", "far:1:16", sealed(1, "first")),
        with_lane("copied and changed", "far:1:16", sealed(0, "first")),
        Produced::new("without a lane").property("mqtt_id", "far:1:16"),
        of_lane("end", "far:1:48"),
    ]);
    let found: Vec<_> = client
        .receive_until(b"end")
        .iter()
        .map(harness::mqtt::Received::text)
        .collect();
    assert_eq!(
        found,
        [
            "first",
            "second",
            "another node's",
            "another start's",
            "from the dead letters",
            "copied from another queue",
            "copied and changed",
            "without a lane",
            "end"
        ]
    );
    assert_eq!(broker.status_number("duplicates"), Some(3));
}
