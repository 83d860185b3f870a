use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use handoff::{LogOptions, Reader, ReaderOptions, Writer};
use protocol::message::RuleIds;
use rocketmq::{Consumer, Incoming, Queue, StartAt, Subscription};

use super::*;
use crate::dead_letter::{Direction, FOLDER, each};
use crate::downlink::{self, DownlinkHandle};
use crate::metrics::Metrics;

/// RocketMQ as far as a replay sees it; nothing comes down.
#[derive(Default)]
struct Fake {
    answer: Mutex<Option<Error>>,
    stored: Mutex<Vec<(String, Outgoing)>>,
}

#[async_trait]
impl Backbone for Fake {
    async fn probe(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn write_queues(&self, topic: &str) -> Result<Vec<Queue>, Error> {
        Ok(vec![Queue {
            topic: topic.to_owned(),
            broker: "b".to_owned(),
            id: 0,
        }])
    }
    async fn send(&self, queue: &Queue, batch: &[Outgoing]) -> Result<(), Error> {
        if let Some(error) = self.answer.lock().unwrap().clone() {
            return Err(error);
        }
        let messages = batch
            .iter()
            .map(|message| (queue.topic.clone(), message.clone()));
        self.stored.lock().unwrap().extend(messages);
        Ok(())
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
    fake: Arc<Fake>,
    dead: DeadLetters,
    replayer: Arc<Replayer>,
    downlink: DownlinkHandle,
}

fn config(dir: &Path, rules: &[(&str, &str)]) -> Arc<Config> {
    let spool = dir.display().to_string();
    let base = [
        ("namesrv", "127.0.0.1:1"),
        ("node_id", "n"),
        ("spool_dir", spool.as_str()),
    ];
    Arc::new(Config::from_options(base.iter().chain(rules).copied()).unwrap())
}

impl Bench {
    fn start(rules: &[(&str, &str)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), rules);
        let dead = DeadLetters::open(&dir.path().join(FOLDER), 1 << 20).unwrap();
        let fake = Arc::new(Fake::default());
        let writer = Writer::open(&dir.path().join("downlink"), &LogOptions::default()).unwrap();
        let backbone: Arc<dyn Backbone> = Arc::<Fake>::clone(&fake);
        let sink: downlink::DeadLetter = Box::new(|_, _, _| {});
        let metrics = Arc::new(Metrics::default());
        let downlink = downlink::start(
            Arc::clone(&config),
            writer,
            Arc::clone(&backbone),
            metrics,
            downlink::Outlets {
                dead: sink,
                shared: None,
            },
        )
        .unwrap();
        let replayer = Replayer::new(config, dead.clone(), backbone, downlink.replays());
        Bench {
            dir,
            fake,
            dead,
            replayer: Arc::new(replayer),
            downlink,
        }
    }

    fn put(&self, letter: Letter) -> String {
        let mut letters = [letter];
        self.dead.append(&mut letters).unwrap();
        letters[0].id.clone()
    }

    fn left(&self) -> Vec<String> {
        let mut ids = Vec::new();
        each(self.dead.dir(), |letter| {
            ids.push(letter.id);
            Ok(true)
        })
        .unwrap();
        ids
    }

    /// The error of the one letter.
    async fn replay(&self, id: &str) -> Option<String> {
        let answer = self.replayer.replay(vec![id.to_owned()]).await.unwrap();
        assert_eq!(answer.results.len(), 1, "{answer:?}");
        answer.results[0].error.clone()
    }

    fn stored(&self) -> Vec<(String, Outgoing)> {
        self.fake.stored.lock().unwrap().clone()
    }

    /// What the plugin finds in the downlink log: topics and payloads.
    fn handed_over(&self) -> Vec<(String, Vec<u8>)> {
        let log = self.dir.path().join("downlink");
        let mut reader = Reader::open(&log, &ReaderOptions::default()).unwrap();
        let mut found = Vec::new();
        while let Some(frame) = reader.poll().unwrap() {
            let message = Message::decode(frame.payload).unwrap();
            found.push((message.topic.to_owned(), message.payload.to_vec()));
        }
        found
    }
}

fn refused(rule: &str) -> Letter {
    let message = Outgoing {
        body: b"x".to_vec().into(),
        tag: Some("t".to_owned()),
        keys: None,
        properties: [("mqtt_id", "n:1:16"), (names::REPLAYED, "9-9")]
            .into_iter()
            .collect(),
    };
    Letter::refused("T", &message, rule, "too large")
}

/// A frame of the uplink log, as its message names these rules.
fn unmapped(dir: &Path, topic: &str, rules: &[&str], rule: &str) -> Letter {
    let mut table = RuleTable::open(dir.join("rules.table")).unwrap();
    let ids: Vec<u32> = rules
        .iter()
        .map(|rule| table.id_of(rule).unwrap())
        .collect();
    let message = Message {
        topic,
        client_id: "dev",
        payload: b"x",
        injected: None,
        rules: RuleIds::from_slice(&ids),
        ..Message::default()
    };
    let mut frame = vec![0; message.encoded_len()];
    message.encode_into(&mut frame);
    let identity = Identity {
        node: "n",
        epoch: 1,
        position: 16,
    };
    Letter::of_frame(
        Direction::Uplink,
        &identity,
        &frame,
        Some(&message),
        rule,
        "no topic",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rocketmq_refused_is_sent_as_it_was_and_marked() {
    let bench = Bench::start(&[("uplink", "# T")]);
    let ids = [bench.put(refused("# T")), bench.put(refused("# T"))];
    assert_eq!(bench.replay(&ids[1]).await, None);
    let stored = bench.stored();
    let (topic, message) = &stored[0];
    assert_eq!((topic.as_str(), &message.body[..]), ("T", &b"x"[..]));
    assert_eq!(message.tag.as_deref(), Some("t"));
    let properties = [
        ("mqtt_id".to_owned(), "n:1:16".to_owned()),
        ("mqtt_replayed".to_owned(), ids[1].clone()),
    ];
    assert_eq!(
        message.properties.to_pairs(),
        properties,
        "the old mark is replaced"
    );
    assert_eq!(bench.left(), ids[..1]);
    assert_eq!(bench.dead.summary().replayed_uplink, 1);
    let error = bench.replay(&ids[1]).await.unwrap();
    assert!(error.contains("no such letter"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_refused_again_stays_and_an_absent_rocketmq_ends_the_attempt() {
    let bench = Bench::start(&[("uplink", "# T")]);
    let ids = vec![bench.put(refused("# T")), bench.put(refused("# T"))];
    *bench.fake.answer.lock().unwrap() = Some(Error::Refused {
        code: 13,
        reason: "still too large".to_owned(),
    });
    let answer = bench.replayer.replay(ids.clone()).await.unwrap();
    assert_eq!((answer.results.len(), answer.stopped), (2, None));
    *bench.fake.answer.lock().unwrap() = Some(Error::Timeout);
    let answer = bench.replayer.replay(ids.clone()).await.unwrap();
    assert_eq!(answer.results.len(), 1, "the other is not tried");
    assert!(answer.stopped.is_some());
    assert_eq!(bench.left(), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_is_mapped_by_the_rules_of_now_that_have_not_had_it() {
    let bench = Bench::start(&[
        ("uplink", "a/# DONE"),
        ("uplink", "a/+ MENDED"),
        ("uplink", "b/# OTHER"),
    ]);
    let rules = ["a/# DONE", "a/+ %2"];
    let id = bench.put(unmapped(bench.dir.path(), "a/!", &rules, "a/+ %2"));
    assert_eq!(bench.replay(&id).await, None);
    // By its own alone, where that still holds.
    let id = bench.put(unmapped(bench.dir.path(), "a/!", &rules, "a/# DONE"));
    assert_eq!(bench.replay(&id).await, None);
    let topics: Vec<_> = bench.stored().into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["MENDED", "DONE"]);
    let (_, message) = &bench.stored()[0];
    assert_eq!(message.properties.get("mqtt_id"), Some("n:1:16"));
    assert_eq!(message.properties.get("mqtt_replayed"), Some("1-1"));
    let id = bench.put(unmapped(bench.dir.path(), "c/1", &["c/+ %2"], "c/+ %2"));
    let error = bench.replay(&id).await.unwrap();
    assert!(error.contains("no uplink rule wants"), "{error}");
    // After a reload one does.
    let more = config(bench.dir.path(), &[("uplink", "c/# C")]);
    bench.replayer.reload(more);
    assert_eq!(bench.replay(&id).await, None);
    assert!(bench.left().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_down_again_is_in_the_log_before_its_letter_goes() {
    let bench = Bench::start(&[("downlink", "D d/x"), ("downlink", "D e/%k")]);
    let message = Message {
        topic: "down/1",
        payload: b"again",
        ..Message::default()
    };
    let mut frame = vec![0; message.encoded_len()];
    message.encode_into(&mut frame);
    let identity = Identity {
        node: "n",
        epoch: 1,
        position: 0,
    };
    let of = |frame: &[u8]| Letter::of_frame(Direction::Downlink, &identity, frame, None, "", "no");
    let incoming = Incoming {
        queue: Queue {
            topic: "D".into(),
            broker: "b".into(),
            id: 0,
        },
        offset: 7,
        body: b"body".to_vec().into(),
        ..Incoming::default()
    };
    let good = vec![
        bench.put(of(&frame)),
        // Its own rule holds: that one alone.
        bench.put(Letter::unmappable(&incoming, "D d/x", "no key")),
    ];
    let bad = vec![
        bench.put(of(b"no message")),
        // Still without a key.
        bench.put(Letter::unmappable(&incoming, "D e/%k", "no key")),
    ];
    let all = [good.clone(), bad.clone()].concat();
    let answer = bench.replayer.replay(all).await.unwrap();
    let mut failed: Vec<_> = answer
        .results
        .iter()
        .filter(|o| o.error.is_some())
        .collect();
    failed.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<_> = failed.iter().map(|outcome| outcome.id.clone()).collect();
    assert_eq!(ids, bad, "{answer:?}");
    assert!(
        failed[1].error.as_ref().unwrap().contains("e/%k"),
        "{failed:?}"
    );
    assert_eq!(bench.left(), bad);
    let wanted = [("down/1", &b"again"[..]), ("d/x", b"body")];
    let wanted: Vec<_> = wanted.map(|(t, p)| (t.to_owned(), p.to_vec())).into();
    assert_eq!(bench.handed_over(), wanted);
    assert_eq!(bench.dead.summary().replayed_downlink, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rules_letters_of_one_message_are_told_apart_in_one_topic() {
    let bench = Bench::start(&[("uplink", "a/# T"), ("uplink", "a/+ T"), ("uplink", "# T")]);
    let rules = ["a/# T", "a/+ T"];
    for rule in rules {
        let id = bench.put(unmapped(bench.dir.path(), "a/1", &rules, rule));
        assert_eq!(bench.replay(&id).await, None);
    }
    // Another rule's, which was none then.
    let id = bench.put(unmapped(bench.dir.path(), "a/1", &rules, "gone %2"));
    assert_eq!(bench.replay(&id).await, None);
    let copies: Vec<_> = bench
        .stored()
        .into_iter()
        .map(|(_, message)| message.properties.get(names::COPY).map(str::to_owned))
        .collect();
    assert_eq!(copies, [None, Some("2".to_owned()), Some("3".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_is_taken_out_also_when_who_asked_is_gone() {
    let bench = Bench::start(&[("uplink", "# T")]);
    let ids: Vec<_> = (0..40).map(|_| bench.put(refused("# T"))).collect();
    let asked = bench.replayer.replay(ids);
    // Given up at once.
    let _ = tokio::time::timeout(Duration::ZERO, asked).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bench.left().is_empty() {
        assert!(Instant::now() < deadline, "not within a minute");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.stored().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rocketmq_stored_with_reservations_is_delivered() {
    let bench = Bench::start(&[("uplink", "# T")]);
    let id = bench.put(refused("# T"));
    *bench.fake.answer.lock().unwrap() = Some(Error::Reserved {
        reason: "its slave is away".to_owned(),
    });
    assert_eq!(bench.replay(&id).await, None);
    assert!(bench.left().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_asker_has_given_up_does_not_go_down() {
    let bench = Bench::start(&[("downlink", "D d/x")]);
    let message = Message {
        topic: "down/1",
        ..Message::default()
    };
    let mut frame = vec![0; message.encoded_len()];
    message.encode_into(&mut frame);
    let replays = bench.downlink.replays();
    drop(replays.submit(Again::Frame(frame.clone())));
    let answer = replays.submit(Again::Frame(frame)).await.unwrap();
    assert_eq!(answer, Ok(()));
    // The first one may have been on its way already.
    assert!((1..=2).contains(&bench.handed_over().len()));
    let until = Instant::now() + Duration::from_secs(1);
    let late = answered(replays.submit(Again::Frame(Vec::new())), until).await;
    assert!(late.unwrap_err().contains("no message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_could_not_be_decompressed_is_not_delivered_as_it_is() {
    let bench = Bench::start(&[("downlink", "D d/x")]);
    let incoming = Incoming {
        queue: Queue {
            topic: "D".into(),
            broker: "b".into(),
            id: 0,
        },
        body: b"\x04\x22".to_vec().into(),
        problem: Some("its body can't be decompressed".to_owned()),
        ..Incoming::default()
    };
    let id = bench.put(Letter::unmappable(&incoming, "D d/x", "no"));
    let error = bench.replay(&id).await.unwrap();
    assert!(error.contains("decompressed"), "{error}");
    assert_eq!(bench.left(), [id]);
}
