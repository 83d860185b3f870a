//! RocketMQ's own client: a Java process (`bench/java`) that takes one command a line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::{self, Guard};

/// How long messages may take to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The Java process with RocketMQ's producer, consumers and admin client.
pub(crate) struct Backbone {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Guard,
}

impl Backbone {
    /// Starts it and waits until it has connected. Logs go to `dir`.
    pub(crate) fn start(dir: &Path, jars: &Path, classes: &Path, namesrv: &str) -> Result<Self> {
        let class_path = format!("{}:{}/*", classes.display(), jars.display());
        let stderr = std::fs::File::create(dir.join("backbone.log"))?;
        let mut command = Command::new("java");
        command
            .args([
                "-Xms96m",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:-UsePerfData",
                "-Djava.net.preferIPv4Stack=true",
            ])
            .arg(format!("-Duser.home={}", dir.display()))
            .args(["-cp", &class_path, "Backbone", namesrv])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut process = Guard::spawn(
            "the Java client of RocketMQ",
            &mut command,
            Duration::from_secs(5),
        )?;
        let commands = process.child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(process.child.stdout.take().context("no stdout")?);
        let mut backbone = Backbone {
            commands,
            answers,
            _process: process,
        };
        let line = backbone.read_line()?;
        if line != "ready" {
            bail!(
                "the Java client of RocketMQ did not get ready: {line:?}, see {}",
                dir.join("backbone.log").display()
            );
        }
        Ok(backbone)
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

    fn execute(&mut self, command: &str) -> Result<String> {
        writeln!(self.commands, "{command}")
            .with_context(|| format!("{command}: the Java client is gone"))?;
        let line = self.read_line()?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ok", rest) => Ok(rest.to_owned()),
            (_, rest) => bail!("{command}: RocketMQ's Java client answered {rest:?}"),
        }
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the Java client of RocketMQ ended");
        }
        Ok(line.trim_end().to_owned())
    }
}
