//! What the uplink repeats, a reader of ours drops: all of that, and nothing else.

use std::collections::BTreeSet;

use rocketmq::Incoming;

use super::*;
use crate::downlink::seen::{Place, Seen};

impl Fake {
    /// How many are in RocketMQ, and what a reader of ours hands over of them: body and copy, queue by queue.
    fn read(&self) -> (usize, Vec<(String, String)>) {
        let state = self.state.lock().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(dir.path(), 1, "boot").unwrap();
        let mut handed_over = Vec::new();
        let mut count = 0;
        for (queue, messages) in &state.everything {
            for (offset, message) in messages.iter().enumerate() {
                count += 1;
                let place = Place::of(&incoming(queue, offset, message)).expect("a place");
                if !seen.contains(&place) {
                    seen.note(&place);
                    let property = |wanted: &str| {
                        message
                            .properties
                            .get(wanted)
                            .unwrap_or_default()
                            .to_owned()
                    };
                    let body = String::from_utf8(message.body.to_vec()).unwrap();
                    handed_over.push((body, property("mqtt_copy")));
                }
            }
        }
        (count, handed_over)
    }
}

fn incoming(queue: &Queue, offset: usize, message: &Outgoing) -> Incoming {
    Incoming {
        queue: queue.clone(),
        offset: i64::try_from(offset).unwrap(),
        body: message.body.clone(),
        properties: message.properties.to_pairs(),
        ..Incoming::default()
    }
}

fn draws() -> impl Fn() -> usize {
    let turn = AtomicUsize::new(7);
    move || {
        turn.fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(2_654_435_761)
            >> 7
    }
}

/// Two rules send everything to one topic, under keys of their own. Answers get lost, and the process dies again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_drops_what_was_repeated_and_nothing_else() {
    const RULES: [&str; 2] = ["# T", "a/# T order=%t"];
    let draw = draws();
    let fake = Fake::new(move |_, _, _| match draw() % 6 {
        0 => Err(Error::Timeout),
        1 => Err(unavailable()),
        _ => Ok(()),
    });
    fake.may_die.store(true, Ordering::Relaxed);
    let mut bench = Bench::start(&fake, &[("batch_messages_max", "8")]);
    let mut expected = BTreeSet::new();
    for round in 0..6 {
        for index in 0..60 {
            for client in 0..4 {
                let body = format!("c{client}:{round}:{index}");
                bench.publish(&format!("c{client}"), &body, &RULES);
                expected.insert((body.clone(), String::new()));
                expected.insert((body, "2".to_owned()));
            }
        }
        // Too short for all of it: what is in flight is given up, and begun again.
        bench.drain(Duration::from_millis(5)).await;
        bench.run(&fake, &[("batch_messages_max", "8")]);
    }
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    let (stored, handed_over) = fake.read();
    assert!(stored > expected.len(), "there are repetitions");
    assert_eq!(handed_over.len(), expected.len());
    assert_eq!(handed_over.into_iter().collect::<BTreeSet<_>>(), expected);
}

/// Lanes stand still and others go on while the queues change: nothing that was not handed over may look like a repetition.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_for_a_repetition_when_the_queues_change() {
    let draw = draws();
    let fake = Fake::new(move |state, queue, _| {
        if queue.id >= state.queues
            || (queue.id == 1 && state.queues < 6)
            || draw().is_multiple_of(4)
        {
            return Err(unavailable());
        }
        Ok(())
    });
    let mut bench = Bench::start(&fake, &[("batch_messages_max", "4")]);
    let mut expected = BTreeSet::new();
    for (round, queues) in [4, 2, 5, 3, 4, 2, 6].into_iter().enumerate() {
        fake.state.lock().unwrap().queues = queues;
        let before = fake.stored();
        for index in 0..50 {
            for client in 0..12 {
                let body = format!("c{client}:{round}:{index}");
                bench.publish(&format!("c{client}"), &body, &["# T"]);
                expected.insert((body, String::new()));
            }
        }
        eventually("some of it is stored", || fake.stored() > before + 100).await;
    }
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    let (stored, handed_over) = fake.read();
    assert_eq!(stored, expected.len());
    assert_eq!(handed_over.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_master_alone_has_is_sent_again_and_accepted_when_its_patience_is_over() {
    let fake = Fake::new(|state, _, _| match state.missing {
        true => Err(Error::Reserved {
            reason: "its slave is away".to_owned(),
        }),
        false => Ok(()),
    });
    let mut bench = Bench::start(&fake, &[("replica_timeout", "3s")]);
    bench.publish("c", "c:0", &["# T"]);
    eventually("the first is stored", || fake.stored() == 1).await;
    // Only `send` looks at it from now on: the queues are known.
    fake.state.lock().unwrap().missing = true;
    bench.publish("c", "c:1", &["# T"]);
    let sends = |fake: &Fake| fake.state.lock().unwrap().sends;
    eventually("it is sent again", || sends(&fake) >= 3).await;
    assert_eq!(bench.metrics.snapshot().uplink[0].sent, 1);
    eventually("it is accepted", || {
        let rule = bench.metrics.snapshot().uplink[0].clone();
        (rule.sent, rule.reserved) == (2, 1)
    })
    .await;
    let so_far = sends(&fake);
    bench.publish("c", "c:2", &["# T"]);
    eventually("the next one is accepted at once", || {
        bench.metrics.snapshot().uplink[0].reserved == 2
    })
    .await;
    assert_eq!(sends(&fake), so_far + 1);
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    let bodies: Vec<_> = fake.read().1.into_iter().map(|(body, _)| body).collect();
    assert_eq!(bodies, ["c:0", "c:1", "c:2"]);
}
