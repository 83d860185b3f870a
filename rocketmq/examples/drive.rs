//! Drives the backbone against a real RocketMQ, to see rates, latencies and how it gets through outages.
//!
//! ```text
//! drive NAMESRV probe
//! drive NAMESRV send TOPIC COUNT BATCH          rate of batches, one in flight per queue
//! drive NAMESRV steady TOPIC SECONDS            one message every 20 ms, retried until stored; prints the longest gap
//! drive NAMESRV read TOPIC GROUP SECONDS        rate, order and lag
//! drive NAMESRV ping TOPIC COUNT TAGS           latency from send to poll, idle, with so many tags to filter by
//! drive NAMESRV filter TOPIC SECONDS TAGS       the same for the rate at which messages of one of the tags are read
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rocketmq::{Backbone, Outgoing, Queue, Select, Settings, StartAt, Subscription};

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let namesrv = words.first().ok_or("drive NAMESRV COMMAND …")?;
    let backbone = rocketmq::connect(Settings {
        namesrv: (*namesrv).to_owned(),
        producer_group: "GID_DRIVE".to_owned(),
        instance: format!("drive-{}", std::process::id()),
        send_timeout: Duration::from_secs(3),
    })?;
    let outcome = match words[1..] {
        ["probe"] => probe(&*backbone).await,
        ["send", topic, count, batch] => {
            send(&backbone, topic, count.parse()?, batch.parse()?).await
        }
        ["steady", topic, seconds] => steady(&*backbone, topic, seconds.parse()?).await,
        ["read", topic, group, seconds] => read(&*backbone, topic, group, seconds.parse()?).await,
        ["ping", topic, count, tags] => {
            ping(&*backbone, topic, (count.parse()?, tags.parse()?)).await
        }
        ["filter", topic, seconds, tags] => {
            filter(&*backbone, topic, (seconds.parse()?, tags.parse()?)).await
        }
        _ => Err("unknown command".into()),
    };
    let start = Instant::now();
    backbone.shutdown().await;
    println!("shutdown took {:?}", start.elapsed());
    outcome
}

fn message(body: impl Into<bytes::Bytes>) -> Outgoing {
    Outgoing {
        body: body.into(),
        tag: Some("drive".to_owned()),
        keys: Some("k".to_owned()),
        properties: [("mqtt_topic", "a/b/c")].into_iter().collect(),
    }
}

async fn probe(backbone: &dyn Backbone) -> Outcome {
    let start = Instant::now();
    println!("{:?} in {:?}", backbone.probe().await, start.elapsed());
    Ok(())
}

async fn send(backbone: &Arc<dyn Backbone>, topic: &str, count: usize, batch: usize) -> Outcome {
    let queues = backbone.write_queues(topic).await?;
    println!("{} queues: {queues:?}", queues.len());
    let start = Instant::now();
    let mut lanes = tokio::task::JoinSet::new();
    let share = count / queues.len();
    for queue in queues {
        let backbone = Arc::clone(backbone);
        lanes.spawn(async move {
            let mut sent = 0;
            while sent < share {
                let body = format!("{sent:0128}");
                let messages: Vec<_> = (0..batch).map(|_| message(body.clone())).collect();
                if let Err(error) = backbone.send(&queue, &messages).await {
                    return Err(format!("{queue:?}: {error}"));
                }
                sent += batch;
            }
            Ok(sent)
        });
    }
    let mut sent = 0;
    while let Some(lane) = lanes.join_next().await {
        sent += lane??;
    }
    println!(
        "{sent} messages in {:?}: {:.0}/s",
        start.elapsed(),
        sent as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn steady(backbone: &dyn Backbone, topic: &str, seconds: u64) -> Outcome {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut queues = Vec::new();
    let (mut sent, mut failed, mut longest, mut last) =
        (0_u64, 0_u64, Duration::ZERO, Instant::now());
    while Instant::now() < end {
        if queues.is_empty() {
            queues = backbone.write_queues(topic).await.unwrap_or_default();
        }
        let outcome = match queues.first() {
            Some(queue) => backbone.send(queue, &[message(format!("{sent}"))]).await,
            None => Err(rocketmq::Error::Unavailable {
                reason: "no queues".to_owned(),
            }),
        };
        let now = Instant::now();
        match outcome {
            Ok(()) => {
                if last.elapsed() > Duration::from_millis(500) {
                    println!(
                        "going on after {:?}, {failed} failures so far",
                        last.elapsed()
                    );
                }
                longest = longest.max(now - last);
                last = now;
                sent += 1;
            }
            Err(error) => {
                if failed.is_power_of_two() || failed == 0 {
                    println!("{error}");
                }
                failed += 1;
                tokio::time::sleep(Duration::from_millis(80)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{sent} sent, {failed} failures, longest gap {longest:?}");
    Ok(())
}

async fn read(backbone: &dyn Backbone, topic: &str, group: &str, seconds: u64) -> Outcome {
    let interest = Subscription {
        topic: topic.to_owned(),
        select: Select::Tags("*".to_owned()),
    };
    let mut consumer = backbone
        .subscribe(group, vec![interest], StartAt::Earliest)
        .await?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut next: HashMap<Queue, i64> = HashMap::new();
    let (mut count, mut first, mut last) = (0_u64, None, Instant::now());
    while Instant::now() < end {
        match consumer.poll(1024, Duration::from_secs(1)).await {
            Ok(messages) if messages.is_empty() => {}
            Ok(messages) => {
                first.get_or_insert_with(Instant::now);
                if last.elapsed() > Duration::from_secs(2) {
                    println!("going on after {:?}", last.elapsed());
                }
                last = Instant::now();
                count += messages.len() as u64;
                let mut offsets = HashMap::new();
                for message in messages {
                    let expected = next.insert(message.queue.clone(), message.offset + 1);
                    if expected.is_some_and(|expected| expected != message.offset) {
                        println!(
                            "OUT OF ORDER: {:?} {expected:?} {}",
                            message.queue, message.offset
                        );
                    }
                    offsets.insert(message.queue, message.offset + 1);
                }
                let offsets: Vec<_> = offsets.into_iter().collect();
                if let Err(error) = consumer.commit(&offsets).await {
                    println!("commit: {error}");
                }
            }
            Err(error) => println!("{error}"),
        }
    }
    let took = first.map_or(Duration::ZERO, |first| last - first);
    println!(
        "{count} messages in {took:?}: {:.0}/s; lag {:?}",
        count as f64 / took.as_secs_f64(),
        consumer.lag().await
    );
    let start = Instant::now();
    consumer.close().await;
    println!("close took {:?}", start.elapsed());
    Ok(())
}

/// The tag of [`message`], and others as short as a cluster's.
fn tags(count: usize) -> Select {
    let others = (1..count).map(|number| format!("{number:04x}"));
    let tags: Vec<String> = std::iter::once("drive".to_owned()).chain(others).collect();
    Select::Tags(tags.join("||"))
}

async fn filter(backbone: &dyn Backbone, topic: &str, (seconds, count): (u64, usize)) -> Outcome {
    let interest = Subscription {
        topic: topic.to_owned(),
        select: tags(count),
    };
    let group = format!("GID_FILTER_{}", std::process::id());
    let mut consumer = backbone
        .subscribe(&group, vec![interest], StartAt::Earliest)
        .await?;
    while consumer.poll(1, Duration::from_secs(10)).await?.is_empty() {}
    let start = Instant::now();
    let mut read = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        let got = consumer.poll(4096, Duration::from_secs(1)).await?;
        if got.is_empty() {
            println!("that is all");
            break;
        }
        read += got.len();
    }
    println!(
        "{count} tags: {read} messages in {:?}: {:.0}/s",
        start.elapsed(),
        read as f64 / start.elapsed().as_secs_f64()
    );
    consumer.close().await;
    Ok(())
}

async fn ping(backbone: &dyn Backbone, topic: &str, (count, of): (usize, usize)) -> Outcome {
    let interest = Subscription {
        topic: topic.to_owned(),
        select: tags(of),
    };
    let mut consumer = backbone
        .subscribe(
            &format!("GID_PING_{}", std::process::id()),
            vec![interest],
            StartAt::Latest,
        )
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let queues = backbone.write_queues(topic).await?;
    let mut sends = Vec::new();
    let mut trips = Vec::new();
    for index in 0..count {
        let start = Instant::now();
        backbone
            .send(&queues[index % queues.len()], &[message("ping")])
            .await?;
        sends.push(start.elapsed());
        let got = consumer.poll(10, Duration::from_secs(10)).await?;
        if got.is_empty() {
            println!("nothing arrived within 10 s");
        }
        trips.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (name, mut times) in [("send", sends), ("send to poll", trips)] {
        times.sort();
        println!(
            "{name}: p50 {:?}, p99 {:?}",
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
    }
    consumer.close().await;
    Ok(())
}
