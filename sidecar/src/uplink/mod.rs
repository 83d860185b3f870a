//! Uplink: from the hand-off log into RocketMQ.
//!
//! ```text
//! hand-off log ─▶ intake (a thread) ─▶ one task per topic ─▶ lanes, one per queue ─▶ RocketMQ
//!      ▲                                                         │
//!      └──────── release ◀── window: what is done with ◀─────────┘
//! ```
//! A position goes back to the log's writer only when RocketMQ has stored everything before it, or the dead letters have.
//! What is under way is bounded by bytes; behind that bound messages wait in the log. Nothing here gives up on a message
//! that RocketMQ may yet take.

mod dealer;
mod intake;
mod lane;
mod layout;
mod pass_on;
mod reservations;
mod rules;
#[cfg(test)]
mod tests;
mod topic;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use handoff::{Reader, Waiter};
use protocol::config::Config;
use protocol::message::Epochs;
use protocol::rules::{RuleTable, UplinkRule};
use rocketmq::Backbone;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::dead_letter::DeadLetters;
use crate::metrics::Metrics;
use crate::retained::Retained;
use intake::Intake;
use lane::BatchLimits;
use reservations::Reservations;
use rules::Rules;
use window::Window;

/// The log, and what it takes to read it.
pub(crate) struct Log {
    pub(crate) reader: Reader,
    pub(crate) epochs: Epochs,
    pub(crate) rules: RuleTable,
}

/// Of a node of a cluster: the RocketMQ topic that its nodes share, and who wrote each retained topic last.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) topic: String,
    /// How messages go there.
    pub(crate) rule: UplinkRule,
    pub(crate) retained: Arc<Retained>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainOutcome {
    /// Everything in the log is done with.
    Drained,
    /// The time was over first. What is left is safe in the log.
    TimedOut {
        /// Bytes of the log that are not done with.
        left: u64,
    },
}

/// The running uplink.
pub(crate) struct UplinkHandle {
    control: Arc<Control>,
    waiter: Waiter,
    ended: oneshot::Receiver<DrainOutcome>,
}

/// What the intake is told from outside.
#[derive(Debug, Default)]
struct Control {
    deadline: Mutex<Option<Instant>>,
}

impl Control {
    fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_draining(&self) -> bool {
        self.deadline().is_some()
    }
}

/// Starts the uplink. Must be called within a tokio runtime.
pub(crate) fn start(
    config: Arc<Config>,
    log: Log,
    backbone: Arc<dyn Backbone>,
    metrics: Arc<Metrics>,
    dead: DeadLetters,
    cluster: Option<Shared>,
) -> UplinkHandle {
    let Log {
        reader,
        epochs,
        rules,
    } = log;
    let control = Arc::new(Control::default());
    let waiter = reader.waiter();
    let released = reader.released();
    let counted = metrics.begin_uplink(reader.epoch(), released, reader.released_frames());
    let shared = Arc::new(topic::Shared {
        backbone,
        window: Arc::new(Window::new(released, counted)),
        metrics: Arc::clone(&metrics),
        dead,
        limits: BatchLimits {
            messages: usize::try_from(config.batch_messages_max).unwrap_or(usize::MAX),
            bytes: usize::try_from(config.batch_bytes_max).unwrap_or(usize::MAX),
        },
        topic_missing_timeout: config.topic_missing_timeout,
        reservations: Reservations::new(config.replica_timeout),
        cluster,
    });
    let rules = Rules::new(rules, metrics);
    let intake = Intake::new(
        &config,
        reader,
        epochs,
        rules,
        shared,
        Arc::clone(&control),
        Handle::current(),
    );
    let (sender, ended) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("uplink-intake".to_owned())
        .spawn(move || {
            // Nobody listens when the process ends without a drain.
            let _ = sender.send(intake.run());
        });
    if let Err(error) = spawned {
        // Then `drain` reports what is left, and the log keeps it.
        log::error!("no thread for the uplink: {error}");
    }
    UplinkHandle {
        control,
        waiter,
        ended,
    }
}

impl UplinkHandle {
    /// Sends what is in the log by now, and ends. Takes little more than `limit`.
    pub(crate) async fn drain(self, limit: Duration) -> DrainOutcome {
        *self
            .control
            .deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + limit);
        self.waiter.wake();
        // The thread may be in a system call on a bad disk: it is not waited for without a bound.
        match tokio::time::timeout(limit + Duration::from_secs(2), self.ended).await {
            Ok(Ok(outcome)) => outcome,
            _ => DrainOutcome::TimedOut { left: u64::MAX },
        }
    }
}
