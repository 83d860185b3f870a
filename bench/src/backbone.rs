//! RocketMQ's own client: a Java process (`bench/java`) that takes one command a line.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child;
use crate::java::Java;
use crate::mosquitto::Setup;

/// How long messages may take to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How RocketMQ's own producer sends.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// One message a request, many requests at once.
    Asynchronously,
    /// As many messages a request as the bridge puts into one.
    InBatches,
}

/// The Java process with RocketMQ's producer, consumers and admin client.
pub(crate) struct Backbone {
    java: Java,
}

impl Backbone {
    /// Starts it and waits until it has connected. Logs go to the run's folder.
    pub(crate) fn start(setup: &Setup) -> Result<Self> {
        // What it holds while it floods and drains is not measured, and must not make it collect garbage meanwhile.
        let heap = ["-Xms256m", "-Xmx512m"];
        let arguments = ["Backbone".to_owned(), setup.namesrv.clone()];
        let mut java = Java::start(setup, "backbone", &heap, &arguments)?;
        java.expect("ready")?;
        Ok(Backbone { java })
    }

    pub(crate) fn create_topic(&mut self, topic: &str, queues: u32) -> Result<()> {
        self.execute(&format!("topic {topic} {queues}")).map(drop)
    }

    /// Number of messages that RocketMQ has stored in the topic since it exists.
    pub(crate) fn offset(&mut self, topic: &str) -> Result<u64> {
        self.execute(&format!("offset {topic}"))?
            .parse()
            .context("offset")
    }

    /// Starts a push consumer on the topic and waits until it receives.
    pub(crate) fn subscribe(&mut self, topic: &str) -> Result<()> {
        self.execute(&format!("subscribe {topic}"))?;
        child::wait_for(
            &format!("RocketMQ's consumer of {topic} receiving"),
            ARRIVAL_TIMEOUT,
            || {
                self.produce(topic, 1, 100)?;
                Ok((self.count(topic)? > 0).then_some(()))
            },
        )?;
        // What was sent meanwhile is still coming: it has all come when nothing more comes for a while.
        let mut before = 0;
        child::wait_for("the consumer's probes arriving", ARRIVAL_TIMEOUT, || {
            let count = self.count(topic)?;
            std::thread::sleep(Duration::from_millis(300));
            let settled = count == before;
            before = count;
            Ok(settled.then_some(()))
        })?;
        self.take(topic).map(drop)
    }

    /// Waits until `messages` have arrived at the topic's consumer and gives their latencies in nanoseconds, in order of arrival.
    pub(crate) fn latencies(&mut self, topic: &str, messages: usize) -> Result<Vec<u64>> {
        child::wait_for(
            &format!("{messages} messages arriving at the consumer of {topic}"),
            ARRIVAL_TIMEOUT,
            || Ok((self.count(topic)? >= messages).then_some(())),
        )?;
        self.take(topic)
    }

    /// Sends `count` messages at `rate` a second, synchronously.
    pub(crate) fn produce(&mut self, topic: &str, count: usize, rate: u32) -> Result<()> {
        self.execute(&format!("produce {topic} {count} {rate}"))
            .map(drop)
    }

    fn count(&mut self, topic: &str) -> Result<usize> {
        self.execute(&format!("count {topic}"))?
            .parse()
            .context("count")
    }

    fn take(&mut self, topic: &str) -> Result<Vec<u64>> {
        let line = self.execute(&format!("take {topic}"))?;
        // The clocks are one and the same, but it can be stepped: a negative latency is then nearest to nothing.
        let numbers = line
            .split_whitespace()
            .map(|word| word.parse::<i64>().map(|ns| ns.max(0).unsigned_abs()));
        numbers.collect::<Result<_, _>>().context("latencies")
    }

    /// Stores `count` messages as fast as RocketMQ takes them; how long that took.
    pub(crate) fn flood(
        &mut self,
        topic: &str,
        count: u64,
        bytes: usize,
        way: Way,
    ) -> Result<Duration> {
        let way = match way {
            Way::Asynchronously => "async",
            Way::InBatches => "batch",
        };
        self.nanos(&format!("flood {topic} {count} {bytes} {way}"))
    }

    /// Reads `count` messages from the topic's begin with a push consumer; how long that took from the first one on.
    pub(crate) fn drain(&mut self, topic: &str, count: u64) -> Result<Duration> {
        self.nanos(&format!("drain {topic} {count}"))
    }

    fn nanos(&mut self, command: &str) -> Result<Duration> {
        let nanos = self.execute(command)?.parse().context("nanoseconds")?;
        Ok(Duration::from_nanos(nanos))
    }

    fn execute(&mut self, command: &str) -> Result<String> {
        let line = self.java.ask(command)?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ok", rest) => Ok(rest.to_owned()),
            (_, rest) => bail!("{command}: RocketMQ's Java client answered {rest:?}"),
        }
    }
}
