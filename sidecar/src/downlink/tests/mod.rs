//! The whole downlink against a RocketMQ made of memory and a real hand-off log.

mod fake;
mod shared;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use handoff::{LogOptions, Reader, ReaderOptions, Writer};
use protocol::config::Config;
use protocol::message::Message;
use rocketmq::Incoming;

use super::{DownlinkHandle, Outlets, Shared, start};
use crate::metrics::{Metrics, Snapshot};
use fake::Fake;

/// A downlink with everything around it.
struct Bench {
    runtime: tokio::runtime::Runtime,
    fake: Fake,
    metrics: Arc<Metrics>,
    dead: Arc<Mutex<Vec<String>>>,
    handle: Option<DownlinkHandle>,
}

fn config(spool: &Path, rules: &[&str]) -> Arc<Config> {
    let spool = spool.display().to_string();
    let mut options = vec![
        ("namesrv", "127.0.0.1:9876"),
        ("node_id", "edge-1"),
        ("spool_dir", spool.as_str()),
    ];
    options.extend(rules.iter().map(|rule| ("downlink", *rule)));
    options.push(("uplink", "unused UNUSED"));
    Arc::new(Config::from_options(options.into_iter()).unwrap())
}

const SEGMENT: u64 = 64 * 1024;

fn log_options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT,
        bytes_max: 4 * SEGMENT,
        ..LogOptions::default()
    }
}

fn log_of(spool: &Path) -> std::path::PathBuf {
    spool.join("downlink")
}

impl Bench {
    fn start(spool: &Path, rules: &[&str], fake: Fake) -> Bench {
        Bench::start_with(spool, config(spool, rules), fake, None)
    }

    fn start_with(spool: &Path, config: Arc<Config>, fake: Fake, shared: Option<Shared>) -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let metrics = Arc::new(Metrics::default());
        let dead: Arc<Mutex<Vec<String>>> = Arc::default();
        let writer = Writer::open(&log_of(spool), &log_options()).unwrap();
        let letters = Arc::clone(&dead);
        let sink = Box::new(move |incoming: &Incoming, rule: &str, reason: &str| {
            letters
                .lock()
                .unwrap()
                .push(format!("{} by {rule}: {reason}", incoming.message_id));
        });
        let handle = runtime.block_on(async {
            start(
                config,
                writer,
                Arc::new(fake.clone()),
                Arc::clone(&metrics),
                Outlets { dead: sink, shared },
            )
            .unwrap()
        });
        Bench {
            runtime,
            fake,
            metrics,
            dead,
            handle: Some(handle),
        }
    }

    fn stop(&mut self) {
        let handle = self.handle.take().unwrap();
        assert!(
            self.runtime.block_on(handle.stop(Duration::from_secs(60))),
            "it ends"
        );
    }

    fn snapshot(&self) -> Snapshot {
        self.metrics.snapshot()
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn plugin(spool: &Path) -> Reader {
    Reader::open(&log_of(spool), &ReaderOptions::default()).unwrap()
}

/// Takes `count` messages as the plugin does: topic and payload. Releases them when told to.
fn take(reader: &mut Reader, count: usize, release: bool) -> Vec<String> {
    let mut taken = Vec::new();
    eventually("messages in the log", || {
        while let Some(frame) = reader.poll().unwrap() {
            let message = Message::decode(frame.payload).unwrap();
            taken.push(format!(
                "{} {}",
                message.topic,
                String::from_utf8_lossy(message.payload)
            ));
        }
        taken.len() >= count
    });
    if release {
        reader.release(reader.position());
    }
    taken
}

#[test]
fn a_message_is_committed_only_after_the_plugin_released_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path(), &["A a/%k", "A b tags=T"], Fake::default());
    bench.fake.produce("A", "one", Some("T"));
    let mut reader = plugin(dir.path());
    assert_eq!(take(&mut reader, 2, false), ["a/k one", "b one"]);
    // What would be committed too early is committed by now: several polls have gone by.
    bench.fake.produce("A", "two", None);
    assert_eq!(take(&mut reader, 1, false), ["a/k two"]);
    assert_eq!(bench.fake.committed("A"), None);
    reader.release(reader.position());
    eventually("the offset is committed", || {
        bench.fake.committed("A") == Some(2)
    });
    bench.stop();
    let rules = bench.snapshot().downlink;
    assert_eq!(
        (rules[0].received, rules[0].handed_over, rules[0].bytes),
        (2, 2, 6)
    );
    assert_eq!((rules[1].received, rules[1].handed_over), (1, 1));
}

#[test]
fn a_restarted_sidecar_hands_nothing_over_twice() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    (0..10).for_each(|i| fake.produce("A", &i.to_string(), None));
    let mut bench = Bench::start(dir.path(), &["A a"], fake.clone());
    let mut reader = plugin(dir.path());
    assert_eq!(take(&mut reader, 10, false).len(), 10);
    bench.stop();
    assert_eq!(fake.committed("A"), None, "the plugin has released nothing");
    drop(bench);
    fake.produce("A", "new", None);
    let mut bench = Bench::start(dir.path(), &["A a"], fake.clone());
    assert_eq!(take(&mut reader, 1, true), ["a new"]);
    eventually("all is committed", || fake.committed("A") == Some(11));
    bench.stop();
    assert_eq!(bench.snapshot().downlink_repeated, 10);
}

#[test]
fn what_cannot_be_mapped_is_a_dead_letter_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path(), &["A a/%g"], Fake::default());
    bench.fake.produce("A", "no tag", None);
    bench.fake.produce("A", "wildcard", Some("#"));
    bench
        .fake
        .produce("A", &"x".repeat(2 * SEGMENT as usize), Some("big"));
    bench.fake.produce("A", "good", Some("t"));
    let mut reader = plugin(dir.path());
    assert_eq!(take(&mut reader, 1, true), ["a/t good"]);
    eventually("all is committed", || bench.fake.committed("A") == Some(4));
    bench.stop();
    let dead = bench.dead.lock().unwrap().clone();
    assert_eq!(dead.len(), 3, "{dead:?}");
    assert!(
        dead[0].contains("A-0")
            && dead[0].contains("%g")
            && dead[1].contains("wildcard")
            && dead[2].contains("bytes"),
        "{dead:?}"
    );
    assert_eq!(bench.snapshot().downlink[0].dead, 3);
}

#[test]
fn what_cannot_be_decoded_is_a_dead_letter_of_each_rule_that_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let rules = ["A a tags=T", "A b tags=T", "A c tags=U"];
    let mut bench = Bench::start(dir.path(), &rules, Fake::default());
    bench.fake.produce("A", "compressed", Some("T"));
    bench.fake.spoil("A", "it can't be decompressed");
    bench.fake.produce("A", "not even a tag", None);
    bench.fake.spoil("A", "it is no message");
    bench.fake.produce("A", "good", Some("U"));
    let mut reader = plugin(dir.path());
    assert_eq!(take(&mut reader, 1, true), ["c good"]);
    eventually("all is committed", || bench.fake.committed("A") == Some(3));
    bench.stop();
    let expected = [
        "A-0 by A a tags=T: it can't be decompressed",
        "A-0 by A b tags=T: it can't be decompressed",
        "A-1 by A a tags=T: it is no message",
    ];
    assert_eq!(*bench.dead.lock().unwrap(), expected);
    for rule in bench.snapshot().downlink {
        assert_eq!(rule.received, rule.handed_over + rule.dead, "{rule:?}");
    }
}

#[test]
fn a_full_log_waits_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let body = "x".repeat(1000);
    // Twice as much as the log holds.
    let count = (8 * SEGMENT / 1000) as usize;
    (0..count).for_each(|_| fake.produce("A", &body, None));
    let mut bench = Bench::start(dir.path(), &["A a"], fake.clone());
    eventually("the log is nearly full", || {
        bench.snapshot().downlink_log.waiting_bytes > 2 * SEGMENT
    });
    let mut reader = plugin(dir.path());
    let mut taken = 0;
    eventually("everything is taken", || {
        taken += take(&mut reader, 0, true).len();
        taken >= count
    });
    eventually("all is committed", || {
        fake.committed("A") == Some(count as i64)
    });
    bench.stop();
    assert_eq!(taken, count);
}

#[test]
fn new_rules_subscribe_again_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path(), &[], Fake::default());
    bench.fake.produce("A", "one", None);
    bench
        .handle
        .as_ref()
        .unwrap()
        .reload(config(dir.path(), &["A a"]));
    let mut reader = plugin(dir.path());
    assert_eq!(take(&mut reader, 1, false), ["a one"]);
    bench
        .handle
        .as_ref()
        .unwrap()
        .reload(config(dir.path(), &["A b", "B c"]));
    eventually("it subscribed again", || {
        bench.fake.with(|state| state.subscriptions.len() == 2)
    });
    bench.fake.produce("A", "two", None);
    bench.fake.produce("B", "three", None);
    let mut taken = take(&mut reader, 2, true);
    taken.sort();
    assert_eq!(
        taken,
        ["b two", "c three"],
        "what was handed over under the old rule does not come again"
    );
    eventually("all is committed", || {
        (bench.fake.committed("A"), bench.fake.committed("B")) == (Some(2), Some(1))
    });
    bench.stop();
}

#[test]
fn an_outage_is_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    fake.with(|state| state.is_away = true);
    let mut bench = Bench::start(dir.path(), &["A a"], fake.clone());
    eventually("the outage is noticed", || {
        let reading = bench.metrics.reading.snapshot();
        reading
            .last_error
            .is_some_and(|error| error.contains("switched off"))
    });
    fake.produce("A", "after", None);
    fake.with(|state| state.is_away = false);
    assert_eq!(take(&mut plugin(dir.path()), 1, true), ["a after"]);
    assert!(bench.metrics.reading.snapshot().connected);
    bench.stop();
}
