//! A reader that comes now and then for what was stored until now.

#![allow(clippy::expect_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::probe::{Produced, Topic, unique};
use harness::rocketmq::OwnRocketMq;
use harness::wait::DEADLINE;
use rocketmq::{Incoming, Interest, Select, Settings, StartAt, Subscription};
use tokio::sync::watch;

const QUEUES: i32 = 3;

fn messages(from: usize, count: usize) -> Vec<Produced> {
    let message = |number: usize| {
        let queue = i32::try_from(number).expect("small") % QUEUES;
        Produced::new(format!("{number}")).tag("t").queue(queue)
    };
    (from..from + count).map(message).collect()
}

/// Everything of the tag until now, as one of this group.
async fn read(namesrv: &str, topic: &str, group: &str) -> Vec<Incoming> {
    let settings = Settings {
        namesrv: namesrv.to_owned(),
        producer_group: "GID_PRESENT".to_owned(),
        instance: unique("present"),
        send_timeout: Duration::from_secs(3),
    };
    let backbone = rocketmq::connect(settings).expect("a backbone");
    let interest = Interest {
        tags: [("t".to_owned(), 0)].into(),
        ..Interest::default()
    };
    let (_sender, interest) = watch::channel(Arc::new(interest));
    let subscription = Subscription {
        topic: topic.to_owned(),
        select: Select::Interest(interest),
    };
    let mut consumer = backbone
        .subscribe(group, vec![subscription], StartAt::Present)
        .await
        .expect("a consumer");
    let start = Instant::now();
    let mut got = Vec::new();
    loop {
        assert!(start.elapsed() < DEADLINE, "{} messages came", got.len());
        let polled = consumer.poll(64, Duration::from_millis(50)).await;
        let batch = polled.unwrap_or_default();
        if batch.is_empty() && consumer.settled_ms().is_some() {
            break;
        }
        got.extend(batch);
    }
    consumer.close().await;
    backbone.shutdown().await;
    got
}

/// What was stored between two visits is as much of the past, for the second, as what was there before the first.
#[test]
fn whoever_comes_again_has_everything_read_back_until_then() {
    let rocketmq = OwnRocketMq::started();
    let namesrv = rocketmq.namesrv();
    let topic = Topic::create(&namesrv, &unique("PRESENT"), QUEUES.cast_unsigned());
    let group = unique("GID");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for visit in 1..=3 {
        topic.produce(&messages((visit - 1) * 30, 30));
        let got = runtime.block_on(read(&namesrv, topic.name(), &group));
        let number = |message: &Incoming| -> usize {
            let text = std::str::from_utf8(&message.body).expect("text");
            text.parse().expect("a number")
        };
        let mut numbers: Vec<usize> = got.iter().map(number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..visit * 30).collect::<Vec<_>>());
        assert!(got.iter().all(|message| message.is_read_back));
    }
}
