//! The downlink thread.

mod replay;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use handoff::AppendError;
use protocol::config::{Config, StartFrom};
use rocketmq::{Backbone, Consumer, Incoming, Queue, StartAt};
use tokio::runtime::Handle;

use super::handed_over::{HandedOver, boot_id};
use super::in_flight::InFlight;
use super::routes::{Route, Routes};
use super::seen::{Place, Seen};
use super::{Control, DeadLetter};
use crate::mapping::downlink::{Context, Mapped, Outcome, map};
use crate::metrics::{Metrics, unix_ms};

/// Messages taken from RocketMQ's client at once.
const BATCH: usize = 256;
/// How long one poll may take: bounds how late a stop, a reload or a commit is seen.
const POLL: Duration = Duration::from_millis(200);
const COMMIT_EVERY: Duration = Duration::from_millis(200);
const LAG_EVERY: Duration = Duration::from_secs(5);
/// Pauses after failures: doubled up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a stop waits for the plugin to take what is in the log already.
const LAST_RELEASES: Duration = Duration::from_millis(500);

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Append {
    Done,
    /// It can never fit.
    TooLarge(String),
    /// The sidecar is ending; the frame is not in the log.
    Stopped,
}

pub(super) struct Worker {
    runtime: Handle,
    config: Arc<Config>,
    context: Context,
    routes: Routes,
    writer: handoff::Writer,
    backbone: Arc<dyn Backbone>,
    metrics: Arc<Metrics>,
    dead: DeadLetter,
    control: Arc<Control>,
    table: HandedOver,
    seen: Seen,
    in_flight: InFlight,
    last_commit: Instant,
    last_lag: Option<Instant>,
    retry: Duration,
    /// Messages that are in the log and may not be on the disk.
    unsynced: u64,
}

impl Worker {
    pub(super) fn new(
        config: Arc<Config>,
        writer: handoff::Writer,
        backbone: Arc<dyn Backbone>,
        metrics: Arc<Metrics>,
        dead: DeadLetter,
        control: Arc<Control>,
        runtime: Handle,
    ) -> io::Result<Worker> {
        metrics.begin_downlink(writer.epoch(), writer.frames());
        let boot_id = boot_id();
        let table = HandedOver::open(&config.spool_dir, writer.epoch(), &boot_id)?;
        let seen = Seen::open(&config.spool_dir, writer.epoch(), &boot_id)?;
        let mut worker = Worker {
            runtime,
            context: Context {
                node_id: config.node_id.clone(),
                layout: config.layout,
            },
            routes: Routes::new(&config.all_downlink(), &metrics),
            config,
            writer,
            backbone,
            metrics,
            dead,
            control,
            table,
            seen,
            in_flight: InFlight::default(),
            last_commit: Instant::now(),
            last_lag: None,
            retry: RETRY_FIRST,
            unsynced: 0,
        };
        worker.release();
        Ok(worker)
    }

    pub(super) fn run(mut self) {
        while !self.control.is_stopping() {
            self.replay();
            if let Some(config) = self.control.take_rules() {
                self.routes = Routes::new(&config.all_downlink(), &self.metrics);
                self.config = config;
            }
            if self.routes.is_empty() {
                self.metrics.reading.up();
                self.release();
                self.control.pause(POLL);
                continue;
            }
            match self.subscribe() {
                Ok(consumer) => self.session(consumer),
                Err(error) => self.failed("can't subscribe", &error),
            }
        }
    }

    fn subscribe(&mut self) -> Result<Box<dyn Consumer>, rocketmq::Error> {
        let start = match self.config.downlink_from {
            StartFrom::Latest => StartAt::Latest,
            StartFrom::Earliest => StartAt::Earliest,
        };
        let subscriptions = self.routes.subscriptions();
        for subscription in &subscriptions {
            log::info!(
                "downlink: group {} reads {} ({:?})",
                self.config.group,
                subscription.topic,
                subscription.select
            );
        }
        self.runtime.block_on(
            self.backbone
                .subscribe(&self.config.group, subscriptions, start),
        )
    }

    /// Reads until the rules change or the sidecar ends.
    fn session(&mut self, mut consumer: Box<dyn Consumer>) {
        while !self.control.is_interrupted() {
            let polled = self.runtime.block_on(consumer.poll(BATCH, POLL));
            match polled {
                Ok(batch) => {
                    self.answered();
                    if !batch.is_empty() {
                        self.hand_over(&batch, consumer.as_mut());
                    }
                }
                Err(error) => {
                    // It reads on by itself: what it then finds must not wait for us.
                    self.retry = RETRY_FIRST;
                    self.failed("can't read", &error);
                }
            }
            self.replay();
            self.commit(consumer.as_mut(), false);
            self.ask_lag(consumer.as_ref());
        }
        if self.control.is_stopping() && !self.in_flight.is_empty() {
            self.writer
                .wait_for_release(self.writer.end().saturating_sub(1), LAST_RELEASES);
        }
        self.commit(consumer.as_mut(), true);
        self.runtime.block_on(consumer.close());
    }

    fn answered(&mut self) {
        self.retry = RETRY_FIRST;
        if self.metrics.reading.up() {
            log::info!("RocketMQ gives messages");
        }
    }

    fn failed(&mut self, what: &str, error: &rocketmq::Error) {
        // Whether RocketMQ is away is the probe's to say: it may be the topic, the group or a permission.
        if self.metrics.reading.down(&error.to_string()) {
            log::warn!("downlink {what}: {error}; trying again");
        }
        self.control.pause(self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }

    fn hand_over(&mut self, batch: &[Incoming], consumer: &mut dyn Consumer) {
        let mut next: BTreeMap<&Queue, i64> = BTreeMap::new();
        for incoming in batch {
            if self
                .table
                .contains(&incoming.queue, incoming.offset, incoming.stored_at_ms)
            {
                self.metrics.downlink_repeated.fetch_add(1, Relaxed);
                if let Some(place) = Place::of(incoming) {
                    self.seen.note_older(&place);
                }
            } else if !self.hand_over_one(incoming, consumer) {
                break;
            }
            next.insert(&incoming.queue, incoming.offset + 1);
        }
        // Behind the frames, else a message would be lost when we die in between; and before any offset can be committed.
        written("downlink.seen", self.seen.flush());
        for (queue, offset) in next {
            self.in_flight.push(queue, offset, self.writer.end());
        }
    }

    /// False when the sidecar is ending and the message has to come again.
    fn hand_over_one(&mut self, incoming: &Incoming, consumer: &mut dyn Consumer) -> bool {
        if let Some(problem) = &incoming.problem {
            self.bury_undelivered(incoming, problem);
            return true;
        }
        let place = Place::of(incoming);
        let is_duplicate = place
            .as_ref()
            .is_some_and(|place| self.seen.contains(place));
        for route in self.routes.matching(incoming) {
            route.counters.received.fetch_add(1, Relaxed);
            if is_duplicate {
                count(&route.counters.duplicates);
                self.metrics
                    .settle_downlink(&route.counters, self.writer.frames());
                continue;
            }
            match map(incoming, &route.rule, &self.context, unix_ms()) {
                Ok(Outcome::Own) => count(&route.counters.own),
                Ok(Outcome::Expired) => count(&route.counters.expired),
                Ok(Outcome::Deliver(mapped)) => {
                    warn(&route, &mapped, incoming);
                    let bytes = mapped.message().payload.len() as u64;
                    self.metrics.appending(&route.counters, bytes);
                    match self.append(&mapped, consumer) {
                        Append::Done => {
                            count(&route.counters.handed_over);
                            route.counters.bytes.fetch_add(bytes, Relaxed);
                        }
                        Append::TooLarge(reason) => self.bury(incoming, &route, &reason),
                        Append::Stopped => {
                            // It comes again.
                            route.counters.received.fetch_sub(1, Relaxed);
                            return false;
                        }
                    }
                }
                Err(error) => self.bury(incoming, &route, &error.to_string()),
            }
            self.metrics
                .settle_downlink(&route.counters, self.writer.frames());
        }
        self.record(incoming);
        if let Some(place) = place.filter(|_| !is_duplicate) {
            self.seen.note(&place);
        }
        true
    }

    fn record(&mut self, incoming: &Incoming) {
        let recorded = self
            .table
            .record(&incoming.queue, incoming.offset, incoming.stored_at_ms);
        written("downlink.offsets", recorded);
    }

    /// A message that could not be decoded: one dead letter for each rule that wants it. When not even its tag can be known, for
    /// the topic's first rule.
    fn bury_undelivered(&mut self, incoming: &Incoming, problem: &str) {
        let mut routes = self.routes.matching(incoming);
        if routes.is_empty() && incoming.tag.is_none() {
            routes.extend(self.routes.first_of(&incoming.queue.topic));
        }
        for route in routes {
            route.counters.received.fetch_add(1, Relaxed);
            self.bury(incoming, &route, problem);
            self.metrics
                .settle_downlink(&route.counters, self.writer.frames());
        }
        self.record(incoming);
    }

    fn bury(&mut self, incoming: &Incoming, route: &Route, reason: &str) {
        count(&route.counters.dead);
        (self.dead)(incoming, &route.rule.text, reason);
    }

    fn append(&mut self, mapped: &Mapped, consumer: &mut dyn Consumer) -> Append {
        let message = mapped.message();
        let len = message.encoded_len();
        let mut is_said = false;
        loop {
            match self
                .writer
                .append_with(len, |frame| message.encode_into(frame))
            {
                Ok(_) => return Append::Done,
                Err(error @ AppendError::NotSynced { .. }) => {
                    // Once more would be twice.
                    self.unsynced += 1;
                    if self.unsynced.is_power_of_two() {
                        let count = self.unsynced;
                        log::error!(
                            "downlink log: a loss of power could take a message ({count} so far): {error}"
                        );
                    }
                    return Append::Done;
                }
                Err(AppendError::TooLarge { len, max }) => {
                    return Append::TooLarge(format!(
                        "{len} bytes do not fit into the downlink log: at most {max} do"
                    ));
                }
                Err(AppendError::Full) => {
                    self.writer.wait_for_room(len, POLL);
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_said, true) {
                        log::error!(
                            "downlink log: {error}; trying again every {POLL:?}, and reading nothing meanwhile"
                        );
                    }
                    std::thread::sleep(POLL);
                }
            }
            if self.control.is_stopping() {
                return Append::Stopped;
            }
            self.commit(consumer, false);
        }
    }

    fn release(&mut self) {
        let (released, end) = (self.writer.released(), self.writer.end());
        self.in_flight.release(released);
        self.metrics.downlink_log.set(released, end);
    }

    /// Gives back to RocketMQ what the plugin is done with.
    fn commit(&mut self, consumer: &mut dyn Consumer, now: bool) {
        self.release();
        if !now && self.last_commit.elapsed() < COMMIT_EVERY {
            return;
        }
        self.last_commit = Instant::now();
        let offsets = self.in_flight.take_done();
        if offsets.is_empty() {
            return;
        }
        if let Err(error) = self.runtime.block_on(consumer.commit(&offsets)) {
            log::debug!(
                "downlink: can't commit {} offsets yet: {error}",
                offsets.len()
            );
            self.in_flight.put_back(offsets);
            return;
        }
        for (queue, offset) in &offsets {
            written("downlink.offsets", self.table.committed(queue, *offset));
        }
    }

    fn ask_lag(&mut self, consumer: &dyn Consumer) {
        if self.last_lag.is_none_or(|last| last.elapsed() >= LAG_EVERY) {
            self.last_lag = Some(Instant::now());
            let lag = self.runtime.block_on(consumer.lag());
            self.metrics
                .downlink_lag
                .store(lag.unwrap_or(u64::MAX), Relaxed);
        }
    }
}

/// Only a repetition after a crash is at stake, so the message goes on its way.
fn written(file: &str, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        log::warn!("{file} can't be written: {error}");
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts the warnings and says the first, the second, the fourth …: a wrong producer must not fill the log.
fn warn(route: &Route, mapped: &Mapped, incoming: &Incoming) {
    for warning in &mapped.warnings {
        let seen = route.counters.warnings.fetch_add(1, Relaxed) + 1;
        if seen.is_power_of_two() {
            log::warn!(
                "downlink rule {:?}: message {}: {warning} ({seen} such so far)",
                route.rule.text,
                incoming.message_id
            );
        }
    }
}
