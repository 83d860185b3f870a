//! The cluster's topic: whose messages are delivered, which are kept, and what is read back.

use bytes::Bytes;
use protocol::message::QoS;
use tokio::sync::watch;

use super::fake::queue;
use super::*;
use crate::mapping::seal::Seal;
use crate::retained::Retained;

const TOPIC: &str = "MQTT_CLUSTER_c";

struct Cluster {
    bench: Bench,
    retained: Arc<Retained>,
    reader: Reader,
    offset: i64,
}

fn cluster(spool: &Path) -> Cluster {
    let text = spool.display().to_string();
    let options = [
        ("namesrv", "127.0.0.1:9876"),
        ("node_id", "edge-1"),
        ("spool_dir", text.as_str()),
        ("cluster", "c"),
        ("share", "t/#"),
    ];
    let config = Arc::new(Config::from_options(options.into_iter()).unwrap());
    let retained = Arc::new(Retained::open(spool).unwrap());
    let (_, interest) = watch::channel(Arc::default());
    let shared = Shared {
        retained: Arc::clone(&retained),
        handed: Arc::default(),
        groups: Arc::new(crate::groups::Groups::new("edge-1")),
        inbox: None,
        interest,
    };
    let bench = Bench::start_with(spool, config, Fake::default(), Some(shared));
    Cluster {
        bench,
        retained,
        reader: plugin(spool),
        offset: 0,
    }
}

impl Cluster {
    /// A message of a node, with its place in that node's log.
    fn put(&mut self, id: &str, body: &str, more: &[(&str, &str)]) {
        let offset = self.offset;
        self.put_at(offset, id, body, more);
        self.offset += 1;
    }

    fn put_at(&self, offset: i64, id: &str, body: &str, more: &[(&str, &str)]) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let lane = format!("00000001{}", Seal::of(&queue(TOPIC)).text(&body));
        let mut properties = vec![
            ("mqtt_topic", "t/x"),
            ("mqtt_id", id),
            ("mqtt_lane", lane.as_str()),
            ("mqtt_qos", "1"),
        ];
        properties.extend(more.iter().filter(|(name, _)| *name != "read back"));
        self.bench.fake.put(Incoming {
            queue: queue(TOPIC),
            offset,
            message_id: id.to_owned(),
            body,
            properties: properties
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            stored_at_ms: 1000 + offset,
            is_read_back: more.iter().any(|(name, _)| *name == "read back"),
            ..Incoming::default()
        });
    }

    /// Payload and retain flag of as many messages.
    fn take(&mut self, count: usize) -> Vec<(String, bool)> {
        let mut taken = Vec::new();
        eventually("messages in the log", || {
            while let Some(frame) = self.reader.poll().unwrap() {
                let message = Message::decode(frame.payload).unwrap();
                assert_eq!((message.topic, message.qos), ("t/x", QoS::AtLeastOnce));
                let text = String::from_utf8_lossy(message.payload).into_owned();
                taken.push((text, message.retain));
            }
            taken.len() >= count
        });
        assert_eq!(taken.len(), count, "{taken:?}");
        self.reader.release(self.reader.position());
        taken
    }
}

fn kept(text: &str) -> (String, bool) {
    (text.to_owned(), true)
}

fn live(text: &str) -> (String, bool) {
    (text.to_owned(), false)
}

fn retained_at(at_ms: &str) -> [(&str, &str); 2] {
    [("mqtt_retain", "1"), ("mqtt_retained_at", at_ms)]
}

#[test]
fn messages_of_other_nodes_are_delivered_once_and_own_ones_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = cluster(dir.path());
    cluster.put("edge-2:1:16", "one", &[]);
    cluster.put("edge-1:1:16", "own", &[]);
    cluster.put("edge-2:1:16", "one", &[]);
    cluster.put("edge-3:1:16", "two", &[]);
    assert_eq!(cluster.take(2), [live("one"), live("two")]);
    cluster.bench.stop();
    let counters = cluster.bench.snapshot().downlink.remove(0);
    assert_eq!(
        (counters.own, counters.duplicates, counters.handed_over),
        (1, 1, 2)
    );
    assert_eq!(counters.rule, "MQTT_CLUSTER_c %{mqtt_topic}");
}

#[test]
fn an_older_retained_message_is_delivered_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = cluster(dir.path());
    cluster.put("edge-2:1:16", "newer", &retained_at("2000"));
    cluster.put("edge-3:1:16", "older", &retained_at("1000"));
    cluster.put("edge-3:1:32", "newest", &retained_at("3000"));
    assert_eq!(
        cluster.take(3),
        [kept("newer"), live("older"), kept("newest")]
    );
    cluster.bench.stop();
    assert_eq!(cluster.retained.len(), 1);
}

#[test]
fn own_retained_messages_come_back_only_to_a_node_that_has_lost_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = cluster(dir.path());
    let message = Message {
        topic: "t/x",
        payload: b"mine",
        retain: true,
        received_at_ms: 500,
        injected: Some(0),
        ..Message::default()
    };
    let identity = protocol::message::Identity {
        node: "edge-1",
        epoch: 1,
        position: 16,
    };
    assert_eq!(cluster.retained.publish(&message, &identity), 500);
    cluster.put("edge-1:1:16", "mine", &retained_at("500"));
    cluster.put(
        "edge-1:0:99",
        "of a spool that is gone",
        &retained_at("700"),
    );
    assert_eq!(cluster.take(1), [kept("of a spool that is gone")]);
    cluster.bench.stop();
    assert_eq!(cluster.bench.snapshot().downlink[0].own, 1);
}

#[test]
fn what_is_read_back_is_handed_over_whatever_is_known_of_what_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = cluster(dir.path());
    cluster.offset = 10;
    cluster.put("edge-2:1:64", "later", &[]);
    assert_eq!(cluster.take(1), [live("later")]);
    // Of tags that were not of interest then; one was stored twice.
    let back = ("read back", "");
    cluster.put_at(3, "edge-2:1:16", "first", &[back]);
    cluster.put_at(4, "edge-2:1:32", "second", &[back]);
    cluster.put_at(5, "edge-2:1:16", "first", &[back]);
    cluster.put_at(6, "edge-2:1:32", "second", &[back]);
    cluster.put_at(7, "edge-2:1:48", "third", &[back]);
    // And once more, behind what was read.
    cluster.put("edge-2:1:48", "third", &[]);
    cluster.put("edge-2:1:80", "last", &[]);
    assert_eq!(
        cluster.take(4),
        [live("first"), live("second"), live("third"), live("last")]
    );
    // Only what was read in turn is committed.
    eventually("all is committed", || {
        cluster.bench.fake.committed(TOPIC) == Some(13)
    });
    cluster.bench.stop();
}

#[test]
fn of_what_is_read_back_only_the_newest_retained_message_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = cluster(dir.path());
    let back = |at_ms| {
        let [retain, at] = retained_at(at_ms);
        [("read back", ""), retain, at]
    };
    cluster.put_at(0, "edge-2:1:16", "newest", &back("3000"));
    cluster.put_at(1, "edge-3:1:16", "older", &back("1000"));
    cluster.put("edge-3:1:32", "live", &[]);
    assert_eq!(cluster.take(2), [kept("newest"), live("live")]);
    cluster.bench.stop();
}
