//! RocketMQ → hand-off log: one consumer in this node's own group for all downlink rules.
//!
//! This is not a consumer that shares its group with others, and it knows nothing of MQTT sessions: the plugin injects, and
//! Mosquitto delivers.
//!
//! One thread does it all in order: poll RocketMQ → match the rules → map → append to the log → remember → commit what the
//! plugin has released. When the log is full it waits, and so nothing more is polled: the back-pressure ends in RocketMQ.

mod handed_over;
mod in_flight;
mod routes;
pub(crate) mod seen;
mod settled;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::config::Config;
use rocketmq::{Backbone, Incoming, Interest};
use tokio::sync::{Notify, oneshot, watch};

use crate::groups::Groups;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::missed::Handed;
use crate::retained::Retained;
use worker::Worker;

/// Takes a message that can't be handed over, with the rule and the reason.
pub(crate) type DeadLetter = Box<dyn FnMut(&Incoming, &str, &str) + Send>;

/// What the downlink has of the cluster that its node belongs to.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Who wrote each retained topic last.
    pub(crate) retained: Arc<Retained>,
    /// What was handed over lately.
    pub(crate) handed: Arc<Handed>,
    /// The shared subscriptions over all nodes.
    pub(crate) groups: Arc<Groups>,
    /// What is kept for clients that are nowhere; nothing where nothing is.
    pub(crate) inbox: Option<Arc<Inbox>>,
    /// What the node's subscribers can want.
    pub(crate) interest: watch::Receiver<Arc<Interest>>,
}

/// Where messages go beside the log, and what of them is judged by others.
pub(crate) struct Outlets {
    pub(crate) dead: DeadLetter,
    pub(crate) shared: Option<Shared>,
}

/// A dead letter that is to come down again.
#[derive(Debug)]
pub(crate) enum Again {
    /// A frame that the plugin could not inject, as it was.
    Frame(Vec<u8>),
    /// A retained message of the cluster that the broker may have lost.
    Shared(Box<Incoming>),
    /// A message that its rule could not map: by that rule if it still holds, else by all that want it now.
    Message(Box<Incoming>, String),
}

/// What became of it: in the log, or why not.
pub(crate) type AgainOutcome = Result<(), String>;

/// Hands dead letters to the thread, which alone may write to the log.
#[derive(Clone)]
pub(crate) struct Replays(Arc<Control>);

impl Replays {
    /// The answer comes when the thread has tried; never, when it ends before.
    pub(crate) fn submit(&self, what: Again) -> oneshot::Receiver<AgainOutcome> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self
            .0
            .replays
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((what, sender));
        drop(waiting);
        self.0.news.notify_one();
        answer
    }

    /// Whether the thread is to end: then there may be no answer.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }
}

/// What the thread is told from outside.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    new_rules: Mutex<Option<Arc<Config>>>,
    replays: Mutex<VecDeque<(Again, oneshot::Sender<AgainOutcome>)>>,
    /// There is something in `replays`: reading is not waited for.
    news: Notify,
}

impl Control {
    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn take_rules(&self) -> Option<Arc<Config>> {
        self.new_rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn next_replay(&self) -> Option<(Again, oneshot::Sender<AgainOutcome>)> {
        self.replays
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// True when the session with RocketMQ has to end: for good, or to begin anew with other rules.
    fn is_interrupted(&self) -> bool {
        self.is_stopping()
            || self
                .new_rules
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
    }

    /// Sleeps, but not long past an interruption.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_interrupted() && Instant::now() < until {
            std::thread::sleep(
                Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())),
            );
        }
    }
}

/// The running downlink.
pub(crate) struct DownlinkHandle {
    control: Arc<Control>,
    thread: JoinHandle<()>,
}

/// Starts the thread. Does not fail while RocketMQ is away. Must be called within a Tokio runtime.
///
/// # Errors
/// When `downlink.offsets` in the spool can't be read or written, or no thread can be started.
pub(crate) fn start(
    config: Arc<Config>,
    writer: handoff::Writer,
    backbone: Arc<dyn Backbone>,
    metrics: Arc<Metrics>,
    outlets: Outlets,
) -> std::io::Result<DownlinkHandle> {
    let control = Arc::new(Control::default());
    let runtime = tokio::runtime::Handle::current();
    let worker = Worker::new(
        config,
        writer,
        backbone,
        metrics,
        outlets,
        Arc::clone(&control),
        runtime,
    )?;
    let thread = std::thread::Builder::new()
        .name("downlink".to_owned())
        .spawn(move || worker.run())?;
    Ok(DownlinkHandle { control, thread })
}

impl DownlinkHandle {
    /// The way for dead letters.
    pub(crate) fn replays(&self) -> Replays {
        Replays(Arc::clone(&self.control))
    }

    /// Other rules: the consumer is opened again with them, from where the old one was.
    pub(crate) fn reload(&self, config: Arc<Config>) {
        *self
            .control
            .new_rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(config);
    }

    /// Ends polling, commits what the plugin has released, and closes the consumer. False when it did not end in time; nothing
    /// is lost then, only the last commits are missing, and `downlink.offsets` makes up for them.
    pub(crate) async fn stop(self, limit: Duration) -> bool {
        self.control.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + limit;
        while !self.thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.thread.is_finished()
    }
}
