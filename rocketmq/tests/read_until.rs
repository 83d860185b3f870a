//! Up to which time a reader has been given all that was stored.

#![allow(clippy::expect_used, reason = "tests")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::environment::shared_namesrv;
use harness::probe::{Produced, Topic, unique};
use harness::wait::DEADLINE;
use rocketmq::{Select, Settings, StartAt, Subscription};

const QUEUES: i32 = 3;
const COUNT: usize = 300;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("small")
}

/// One message a poll, so that much is read ahead of what was given.
#[tokio::test]
async fn a_time_counts_as_read_when_all_before_it_was_given() {
    let topic = Topic::shared("READUNTIL", QUEUES.cast_unsigned());
    let settings = Settings {
        namesrv: shared_namesrv(),
        producer_group: "GID_READUNTIL".to_owned(),
        instance: unique("read-until"),
        send_timeout: Duration::from_secs(3),
    };
    let backbone = rocketmq::connect(settings).expect("a backbone");
    let subscription = Subscription {
        topic: topic.name().to_owned(),
        select: Select::Tags("t".to_owned()),
    };
    let mut consumer = backbone
        .subscribe(&unique("GID"), vec![subscription], StartAt::Earliest)
        .await
        .expect("a consumer");
    let mut count = 0;
    for round in 1..=2 {
        let before_ms = now_ms();
        assert!(
            consumer
                .read_until_ms(topic.name())
                .is_none_or(|ms| ms < before_ms)
        );
        let message = |number: usize| {
            let queue = i32::try_from(number).expect("small") % QUEUES;
            // Every second one is not asked for, and the queue ends with one.
            let tag = if number.is_multiple_of(2) {
                "t"
            } else {
                "other"
            };
            Produced::new(number.to_string()).tag(tag).queue(queue)
        };
        let messages: Vec<Produced> = (0..2 * COUNT).map(message).collect();
        let producing = topic.clone();
        tokio::task::spawn_blocking(move || producing.produce(&messages))
            .await
            .expect("produced");
        let (produced_ms, start) = (now_ms(), Instant::now());
        while consumer
            .read_until_ms(topic.name())
            .is_none_or(|ms| ms < produced_ms)
        {
            assert!(start.elapsed() < DEADLINE, "{count} came");
            let polled = consumer.poll(1, Duration::from_millis(50)).await;
            count += polled.map_or(0, |batch| batch.len());
        }
        assert_eq!(count, round * COUNT);
    }
    assert_eq!(consumer.read_until_ms("another topic"), None);
    consumer.close().await;
    backbone.shutdown().await;
}
