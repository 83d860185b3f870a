//! The whole uplink, from a real hand-off log to a stand-in for RocketMQ.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use handoff::{LogOptions, Position, ReaderOptions, Writer};
use protocol::message::{Message, Properties, QoS, RuleIds};
use rocketmq::{Consumer, Error, Outgoing, Queue, StartAt, Subscription};

use super::*;

mod duplicates;
mod returned;

type Verdict = dyn Fn(&State, &Queue, &[Outgoing]) -> Result<(), Error> + Send + Sync;

/// RocketMQ as far as the uplink sees it.
struct Fake {
    state: Mutex<State>,
    verdict: Box<Verdict>,
    in_flight: Mutex<BTreeMap<Queue, usize>>,
    /// The process may die while it sends: then the next one's batch meets the old one.
    may_die: std::sync::atomic::AtomicBool,
}

/// A batch on its way, also when its sender gives it up.
struct UnderWay<'a>(&'a Fake, &'a Queue);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.in_flight.lock().unwrap().get_mut(self.1).unwrap() -= 1;
    }
}

#[derive(Default)]
struct State {
    queues: i32,
    missing: bool,
    /// Bodies in the order in which they were stored, per queue.
    stored: BTreeMap<Queue, Vec<String>>,
    /// The same with everything, and with those whose sender was told something else than success.
    everything: BTreeMap<Queue, Vec<Outgoing>>,
    sends: usize,
    largest: usize,
}

impl Fake {
    fn new(
        verdict: impl Fn(&State, &Queue, &[Outgoing]) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Arc<Fake> {
        let state = State {
            queues: 4,
            ..State::default()
        };
        Arc::new(Fake {
            state: Mutex::new(state),
            verdict: Box::new(verdict),
            in_flight: Mutex::default(),
            may_die: false.into(),
        })
    }

    fn stored(&self) -> usize {
        self.state
            .lock()
            .unwrap()
            .stored
            .values()
            .map(Vec::len)
            .sum()
    }

    /// What was stored of one client, in order of storing. Over all queues only if it kept to one.
    fn of_client(&self, client: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let prefix = format!("{client}:");
        state
            .stored
            .values()
            .flatten()
            .filter(|body| body.starts_with(&prefix))
            .cloned()
            .collect()
    }
}

#[async_trait]
impl Backbone for Fake {
    async fn probe(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn write_queues(&self, topic: &str) -> Result<Vec<Queue>, Error> {
        let state = self.state.lock().unwrap();
        if state.missing {
            return Err(Error::TopicMissing {
                topic: topic.to_owned(),
            });
        }
        Ok((0..state.queues)
            .map(|id| Queue {
                topic: topic.to_owned(),
                broker: "a".to_owned(),
                id,
            })
            .collect())
    }

    async fn send(&self, queue: &Queue, batch: &[Outgoing]) -> Result<(), Error> {
        {
            let mut in_flight = self.in_flight.lock().unwrap();
            let count = in_flight.entry(queue.clone()).or_default();
            *count += 1;
            assert!(
                *count == 1 || self.may_die.load(Ordering::Relaxed),
                "two batches in flight for {queue:?}"
            );
        }
        let _under_way = UnderWay(self, queue);
        tokio::task::yield_now().await;
        let mut state = self.state.lock().unwrap();
        state.sends += 1;
        state.largest = state.largest.max(batch.len());
        let outcome = (self.verdict)(&state, queue, batch);
        if matches!(
            outcome,
            Ok(()) | Err(Error::Timeout | Error::Reserved { .. })
        ) {
            let everything = state.everything.entry(queue.clone()).or_default();
            everything.extend_from_slice(batch);
        }
        if outcome.is_ok() {
            let bodies = batch
                .iter()
                .map(|message| String::from_utf8(message.body.to_vec()).unwrap());
            state
                .stored
                .entry(queue.clone())
                .or_default()
                .extend(bodies);
        }
        outcome
    }

    async fn subscribe(
        &self,
        _: &str,
        _: Vec<Subscription>,
        _: StartAt,
    ) -> Result<Box<dyn Consumer>, Error> {
        Err(Error::Timeout)
    }

    async fn shutdown(&self) {}
}

struct Bench {
    dir: tempfile::TempDir,
    writer: Writer,
    table: RuleTable,
    metrics: Arc<Metrics>,
    handle: Option<UplinkHandle>,
}

impl Bench {
    fn start(fake: &Arc<Fake>, options: &[(&str, &str)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::open(&dir.path().join("uplink"), &LogOptions::default()).unwrap();
        Epochs::begin(dir.path(), writer.epoch(), 0, 0).unwrap();
        let table = RuleTable::open(dir.path().join("rules.table")).unwrap();
        let mut bench = Bench {
            dir,
            writer,
            table,
            metrics: Arc::default(),
            handle: None,
        };
        bench.run(fake, options);
        bench
    }

    fn run(&mut self, fake: &Arc<Fake>, options: &[(&str, &str)]) {
        let spool = self.dir.path().display().to_string();
        let base = [
            ("namesrv", "127.0.0.1:1"),
            ("node_id", "n"),
            ("spool_dir", spool.as_str()),
            ("uplink", "# T"),
        ];
        let options = base.iter().chain(options).copied();
        let config = Arc::new(Config::from_options(options).unwrap());
        let reader =
            Reader::open(&self.dir.path().join("uplink"), &ReaderOptions::default()).unwrap();
        let dead = DeadLetters::open(
            &self.dir.path().join("dead-letter"),
            config.dead_letter_bytes_max,
        )
        .unwrap();
        let table = RuleTable::open_read(self.dir.path().join("rules.table")).unwrap();
        let epochs = Epochs::read(self.dir.path(), reader.epoch()).unwrap();
        let backbone: Arc<dyn Backbone> = Arc::<Fake>::clone(fake);
        self.handle = Some(start(
            config,
            reader,
            epochs,
            table,
            backbone,
            Arc::clone(&self.metrics),
            dead,
        ));
    }

    fn publish(&mut self, client_id: &str, body: &str, rules: &[&str]) -> Position {
        let ids: Vec<u32> = rules
            .iter()
            .map(|rule| self.table.id_of(rule).unwrap())
            .collect();
        let message = Message {
            topic: "a/b",
            payload: body.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            will: false,
            mqtt_version: 4,
            client_id,
            username: None,
            received_at_ms: 1,
            expiry_s: None,
            properties: Properties::EMPTY,
            rules: RuleIds::from_slice(&ids),
        };
        self.writer
            .append_with(message.encoded_len(), |out| message.encode_into(out))
            .unwrap()
    }

    async fn drain(&mut self, limit: Duration) -> DrainOutcome {
        self.handle.take().unwrap().drain(limit).await
    }

    fn letters(&self) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(self.dir.path().join("dead-letter")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            out.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()),
            );
        }
        out
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn unavailable() -> Error {
    Error::Unavailable {
        reason: "test".to_owned(),
    }
}

/// Removes bodies that were stored again by a retry, and gives the rest.
fn without_repeats(bodies: &[String]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    bodies
        .iter()
        .filter(|body| seen.insert((*body).clone()))
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn order_per_client_holds_while_sends_fail_at_random() {
    let turn = AtomicUsize::new(7);
    let fake = Fake::new(move |_, _, _| {
        let draw = turn
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(2_654_435_761)
            >> 7;
        match draw % 8 {
            0 => Err(unavailable()),
            1 => Err(Error::Timeout),
            _ => Ok(()),
        }
    });
    let mut bench = Bench::start(&fake, &[("batch_messages_max", "16")]);
    for index in 0..200 {
        for client in 0..8 {
            bench.publish(
                &format!("c{client}"),
                &format!("c{client}:{index}"),
                &["# T"],
            );
        }
    }
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    for client in 0..8 {
        let expected: Vec<_> = (0..200).map(|index| format!("c{client}:{index}")).collect();
        assert_eq!(
            without_repeats(&fake.of_client(&format!("c{client}"))),
            expected
        );
    }
    assert_eq!(bench.writer.released(), bench.writer.end());
    assert!(fake.state.lock().unwrap().largest > 1, "batches were made");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_position_is_released_before_its_message_is_stored() {
    let fake = Fake::new(|_, _, batch| {
        if batch
            .iter()
            .any(|message| message.body.starts_with(b"slow"))
        {
            Err(unavailable())
        } else {
            Ok(())
        }
    });
    let mut bench = Bench::start(&fake, &[]);
    bench.publish("a", "slow", &["# T"]);
    // Other clients, so that most go by other lanes.
    for client in 0..50 {
        bench.publish(&format!("c{client}"), "quick", &["# T"]);
    }
    eventually("other lanes go on", || fake.stored() > 10).await;
    assert_eq!(bench.writer.released(), 0);
    let outcome = bench.drain(Duration::from_millis(300)).await;
    assert_eq!(
        outcome,
        DrainOutcome::TimedOut {
            left: bench.writer.end()
        }
    );
    // The next run begins with what was not released.
    let healthy = Fake::new(|_, _, _| Ok(()));
    bench.run(&healthy, &[]);
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    assert_eq!(healthy.stored(), 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_found_in_its_batch_and_the_others_go_on() {
    let fake = Fake::new(|state, _, batch| {
        // The first send fails, so that everything behind it comes in large batches.
        if state.sends == 1 {
            return Err(unavailable());
        }
        match batch.iter().any(|message| message.body.ends_with(b"bad")) {
            true => Err(Error::Refused {
                code: 13,
                reason: "illegal".to_owned(),
            }),
            false => Ok(()),
        }
    });
    let mut bench = Bench::start(&fake, &[]);
    for index in 0..60 {
        let end = if [13, 14, 59].contains(&index) {
            "bad"
        } else {
            ""
        };
        bench.publish("c", &format!("c:{index}{end}"), &["# T"]);
    }
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    let expected: Vec<_> = (0..60)
        .filter(|index| ![13, 14, 59].contains(index))
        .map(|index| format!("c:{index}"))
        .collect();
    assert_eq!(fake.of_client("c"), expected);
    let letters = bench.letters();
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[0]["client_id"], "c");
    assert_eq!(letters[0]["topic"], "a/b");
    assert!(letters[0]["reason"].as_str().unwrap().contains("illegal"));
    let rule = &bench.metrics.snapshot().uplink[0];
    assert_eq!((rule.matched, rule.sent, rule.dead), (60, 57, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_missing_topic_wait_for_it_and_then_become_dead_letters() {
    let fake = Fake::new(|_, _, _| Ok(()));
    fake.state.lock().unwrap().missing = true;
    let mut bench = Bench::start(&fake, &[("topic_missing_timeout", "1s")]);
    bench.publish("c", "early", &["# T"]);
    eventually("the message is given up", || {
        bench
            .metrics
            .snapshot()
            .uplink
            .first()
            .is_some_and(|rule| rule.dead == 1)
    })
    .await;
    fake.state.lock().unwrap().missing = false;
    bench.publish("c", "late", &["# T"]);
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    assert_eq!(fake.stored(), 1);
    assert_eq!(bench.letters().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_are_laid_anew_in_order_when_queues_come_and_go() {
    let fake = Fake::new(|state, queue, _| {
        if queue.id < state.queues {
            Ok(())
        } else {
            Err(unavailable())
        }
    });
    let mut bench = Bench::start(&fake, &[("batch_messages_max", "8")]);
    let mut index = 0;
    for queues in [4, 1, 3, 2, 6] {
        fake.state.lock().unwrap().queues = queues;
        for _ in 0..40 {
            for client in 0..6 {
                bench.publish(
                    &format!("c{client}"),
                    &format!("c{client}:{index}"),
                    &["# T"],
                );
            }
            index += 1;
        }
        let expected = index * 6;
        eventually("everything is stored", || fake.stored() >= expected).await;
    }
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    let state = fake.state.lock().unwrap();
    for (queue, bodies) in &state.stored {
        for client in 0..6 {
            let prefix = format!("c{client}:");
            let numbers: Vec<u32> = bodies
                .iter()
                .filter_map(|body| body.strip_prefix(&prefix))
                .map(|text| text.parse().unwrap())
                .collect();
            assert!(numbers.is_sorted(), "{queue:?} {client}: {numbers:?}");
        }
    }
    assert_eq!(
        state.stored.values().map(Vec::len).sum::<usize>(),
        index * 6
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_rocketmq_is_away() {
    let fake = Fake::new(|_, _, _| Err(unavailable()));
    let mut bench = Bench::start(&fake, &[("in_flight_bytes_max", "1MiB")]);
    let body = "x".repeat(10_000);
    for _ in 0..500 {
        bench.publish("c", &body, &["# T"]);
    }
    eventually("the window is full", || {
        bench
            .metrics
            .snapshot()
            .uplink
            .first()
            .is_some_and(|rule| rule.matched > 90)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let matched = bench.metrics.snapshot().uplink[0].matched;
    assert!(
        matched < 110,
        "{matched} messages of 10 kB were read against a bound of 1 MiB"
    );
    let started = Instant::now();
    assert!(matches!(
        bench.drain(Duration::from_millis(500)).await,
        DrainOutcome::TimedOut { .. }
    ));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "the drain took {:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_or_has_no_rule_is_a_dead_letter() {
    let fake = Fake::new(|_, _, _| Ok(()));
    let mut bench = Bench::start(&fake, &[]);
    bench.writer.append(b"garbage").unwrap();
    bench.publish("c", "no rule", &[]);
    bench.publish("c", "two rules", &["# T", "a/+ OTHER"]);
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    assert_eq!(fake.stored(), 2);
    assert_eq!(bench.letters().len(), 2);
    assert_eq!(bench.metrics.snapshot().unroutable, 2);
    let snapshot = bench.metrics.snapshot();
    assert!(
        snapshot
            .uplink
            .iter()
            .all(|rule| (rule.matched, rule.sent) == (1, 1)),
        "{snapshot:?}"
    );
}
