//! The downlink thread.

mod direct;
mod hand_over;
mod replay;
mod share;
mod shared;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use protocol::config::{Config, StartFrom};
use rocketmq::{Backbone, Consumer, Select, StartAt};
use tokio::runtime::Handle;

use super::handed_over::{HandedOver, boot_id};
use super::in_flight::InFlight;
use super::routes::Routes;
use super::seen::Seen;
use super::settled::Settled;
use super::{Control, DeadLetter, Outlets, Shared};
use crate::mapping::downlink::Context;
use crate::metrics::Metrics;

/// Messages taken from RocketMQ's client at once.
const BATCH: usize = 256;
/// How long one poll may take: bounds how late a stop, a reload or a commit is seen.
const POLL: Duration = Duration::from_millis(200);
const COMMIT_EVERY: Duration = Duration::from_millis(200);
const LAG_EVERY: Duration = Duration::from_secs(5);
/// Pauses after failures: doubled up to the second.
const SETTLED_EVERY: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a stop waits for the plugin to take what is in the log already.
const LAST_RELEASES: Duration = Duration::from_millis(500);

pub(super) struct Worker {
    runtime: Handle,
    config: Arc<Config>,
    context: Context,
    /// The same for what may be delivered whoever published it.
    context_of_any: Context,
    routes: Routes,
    /// Of the cluster, if the node belongs to one.
    shared: Option<Shared>,
    writer: handoff::Writer,
    backbone: Arc<dyn Backbone>,
    metrics: Arc<Metrics>,
    dead: DeadLetter,
    control: Arc<Control>,
    table: HandedOver,
    seen: Seen,
    settled: Settled,
    in_flight: InFlight,
    last_commit: Instant,
    last_lag: Option<Instant>,
    last_settled: Option<Instant>,
    retry: Duration,
    /// Messages that are in the log and may not be on the disk.
    unsynced: u64,
    /// What is at hand has been here before, and is delivered to all alone.
    is_again: bool,
}

impl Worker {
    pub(super) fn new(
        config: Arc<Config>,
        writer: handoff::Writer,
        backbone: Arc<dyn Backbone>,
        metrics: Arc<Metrics>,
        outlets: Outlets,
        control: Arc<Control>,
        runtime: Handle,
    ) -> io::Result<Worker> {
        let Outlets { dead, shared } = outlets;
        metrics.begin_downlink(writer.epoch(), writer.frames());
        let boot_id = boot_id();
        let table = HandedOver::open(&config.spool_dir, writer.epoch(), &boot_id)?;
        let seen = Seen::open(&config.spool_dir, writer.epoch(), &boot_id)?;
        let settled = Settled::open(&config.spool_dir, &boot_id)?;
        let mut worker = Worker {
            runtime,
            context: Context {
                node_id: config.node_id.clone(),
                layout: config.layout,
            },
            context_of_any: Context {
                node_id: String::new(),
                layout: config.layout,
            },
            routes: Routes::new(&config, &metrics),
            shared,
            config,
            writer,
            backbone,
            metrics,
            dead,
            control,
            table,
            seen,
            settled,
            in_flight: InFlight::default(),
            last_commit: Instant::now(),
            last_lag: None,
            last_settled: None,
            retry: RETRY_FIRST,
            unsynced: 0,
            is_again: false,
        };
        worker.release();
        Ok(worker)
    }

    pub(super) fn run(mut self) {
        while !self.control.is_stopping() {
            self.replay(None);
            if let Some(config) = self.control.take_rules() {
                self.routes = Routes::new(&config, &self.metrics);
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
        let interest = self.shared.as_ref().map(|shared| {
            let interest = shared.interest.clone();
            self.settled.on(interest, &self.runtime)
        });
        let subscriptions = self.routes.subscriptions(interest.as_ref());
        for subscription in &subscriptions {
            let (group, topic) = (&self.config.group, &subscription.topic);
            match &subscription.select {
                Select::Tags(tags) => {
                    log::info!("downlink: group {group} reads {topic} (tags {tags})");
                }
                Select::Interest(_) => {
                    log::info!("downlink: group {group} reads of {topic} what is subscribed to");
                }
            }
        }
        self.runtime.block_on(
            self.backbone
                .subscribe(&self.config.group, subscriptions, start),
        )
    }

    /// Reads until the rules change or the sidecar ends.
    fn session(&mut self, mut consumer: Box<dyn Consumer>) {
        while !self.control.is_interrupted() {
            // A poll that waits has taken nothing yet, and can be given up.
            let polled = self.runtime.block_on(async {
                tokio::select! {
                    polled = consumer.poll(BATCH, POLL) => Some(polled),
                    () = self.control.news.notified() => None,
                }
            });
            match polled {
                None => {}
                Some(Ok(batch)) => {
                    self.answered();
                    if !batch.is_empty() {
                        self.hand_over(&batch, consumer.as_mut());
                    }
                    self.note_settled(consumer.as_ref());
                }
                Some(Err(error)) => {
                    // It reads on by itself: what it then finds must not wait for us.
                    self.retry = RETRY_FIRST;
                    self.failed("can't read", &error);
                }
            }
            self.replay(Some(consumer.as_mut()));
            self.correct();
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
        self.note_done(&offsets);
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
