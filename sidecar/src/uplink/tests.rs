//! The whole uplink, from a real hand-off log to a stand-in for RocketMQ.

use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::message::Message;
use rocketmq::{Error, Outgoing, Queue};

use super::*;
use bench::Bench;
use fake::Fake;

mod bench;
mod duplicates;
mod fake;
mod returned;

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
async fn a_missing_topic_stops_no_other_one() {
    let fake = Fake::new(|_, _, _| Ok(()));
    fake.state.lock().unwrap().missing_topic = Some("GONE".to_owned());
    let mut bench = Bench::start(&fake, &[("in_flight_bytes_max", "1MiB")]);
    bench.publish("c", "waits", &["# GONE"]);
    let body = "x".repeat(10_000);
    // Many times what may be under way at once.
    for _ in 0..500 {
        bench.publish("c", &body, &["# T"]);
    }
    eventually("the others are stored", || fake.stored() == 500).await;
    assert_eq!(bench.writer.released(), 0, "they wait for their elder");
    fake.state.lock().unwrap().missing_topic = None;
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    assert_eq!(fake.stored(), 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_a_rule_table_that_cannot_be_read() {
    let fake = Fake::new(|_, _, _| Ok(()));
    let mut bench = Bench::start(&fake, &[]);
    bench.publish("c", "c:0", &["# T"]);
    eventually("the first is stored", || fake.stored() == 1).await;
    let (path, aside) = (bench.rules(), bench.rules().with_extension("aside"));
    bench.publish_with("c", "c:1", &["# OTHER"], || {
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
    });
    bench.publish("c", "c:2", &["# T"]);
    // Told to end meanwhile: nothing behind it overtakes it.
    let outcome = bench.drain(Duration::from_millis(700)).await;
    assert!(matches!(outcome, DrainOutcome::TimedOut { .. }));
    assert_eq!((fake.stored(), bench.letters().len()), (1, 0));
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    bench.run(&fake, &[]);
    assert_eq!(
        bench.drain(Duration::from_secs(60)).await,
        DrainOutcome::Drained
    );
    assert_eq!((fake.stored(), bench.letters().len()), (3, 0));
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
