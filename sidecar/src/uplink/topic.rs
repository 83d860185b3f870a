//! All lanes of one RocketMQ topic: a task that owns them, so that nothing is locked and the lanes can be laid anew.
//!
//! Order: a key's messages all go by one lane, and a lane has one batch in flight, which is sent again until it is
//! done with before anything behind it. When the topic's queues change, the lanes first come to rest; then what they
//! hold is spread over the new queues in the order of the log. So within a queue and a layout of lanes positions only fall
//! when something is repeated: nodes that read drop repetitions by that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rocketmq::{Backbone, Error, Queue};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lane::{Batch, BatchLimits, Item, Lane, Note};
use super::layout::{Layout, unstamp};
use super::reservations::{Reservations, Verdict};
use super::window::Window;
use crate::dead_letter::{DeadLetters, Letter};
use crate::metrics::{Ending, Metrics};

/// The topic's queues are looked up again this often while messages flow.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// The same while the queues are unknown or sends fail.
const LOOK_PAUSE_FAILING: Duration = Duration::from_millis(500);
/// RocketMQ's code for a topic that we may not write to: then none of a batch's messages is to blame.
const NO_PERMISSION: i32 = 16;

/// What the tasks of all topics share.
pub(super) struct Shared {
    pub(super) backbone: Arc<dyn Backbone>,
    pub(super) window: Arc<Window>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) dead: DeadLetters,
    pub(super) limits: BatchLimits,
    pub(super) topic_missing_timeout: Duration,
    pub(super) reservations: Reservations,
}

struct Topic {
    name: Arc<str>,
    shared: Arc<Shared>,
    /// Messages that wait for the queues to be known, or for the lanes to rest.
    unassigned: VecDeque<Item>,
    lanes: Vec<Lane>,
    /// Of `lanes`.
    layout: Layout,
    /// Messages out of `unassigned` are being written to the dead letters. If that fails they come back, before those that
    /// came meanwhile: so none may be assigned until it is known.
    is_burying_unassigned: bool,
    /// Queues that the lanes are to be laid to once they rest.
    next_queues: Option<Vec<Queue>>,
    is_looking: bool,
    look_at: Instant,
    /// Since when RocketMQ says that there is no such topic.
    missing_since: Option<Instant>,
    /// Messages given to this task that are not done with.
    outstanding: Arc<AtomicU64>,
    jobs: JoinSet<Job>,
}

/// What a finished job reports.
enum Job {
    Looked(Result<Vec<Queue>, Error>),
    Sent(usize, Batch, Result<(), Error>),
    /// Written, or to be written again.
    Buried(Grave, Batch, std::io::Result<()>),
}

/// Whose messages were buried.
#[derive(Clone, Copy)]
enum Grave {
    Lane(usize),
    Unassigned,
}

/// Runs until the sender is gone and everything is done with.
pub(super) async fn run(
    name: Arc<str>,
    shared: Arc<Shared>,
    outstanding: Arc<AtomicU64>,
    mut incoming: mpsc::UnboundedReceiver<Vec<Item>>,
) {
    let mut topic = Topic {
        name,
        shared,
        unassigned: VecDeque::new(),
        lanes: Vec::new(),
        layout: Layout::default(),
        is_burying_unassigned: false,
        next_queues: None,
        is_looking: false,
        look_at: Instant::now(),
        missing_since: None,
        outstanding,
        jobs: JoinSet::new(),
    };
    let mut is_open = true;
    while is_open || topic.outstanding.load(Relaxed) > 0 {
        let wake = topic.drive(Instant::now());
        tokio::select! {
            items = incoming.recv(), if is_open => match items {
                Some(items) => topic.take(items),
                None => is_open = false,
            },
            Some(job) = topic.jobs.join_next(), if !topic.jobs.is_empty() => {
                // A job that panicked has ended the process by the panic hook.
                if let Ok(job) = job {
                    topic.finish(job);
                }
            }
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }
}

impl Topic {
    fn take(&mut self, items: Vec<Item>) {
        if self.lanes.is_empty() || self.next_queues.is_some() || self.is_burying_unassigned {
            self.unassigned.extend(items);
        } else {
            for item in items {
                self.assign(item);
            }
        }
    }

    fn assign(&mut self, mut item: Item) {
        let lanes = self.lanes.len() as u64;
        let index = usize::try_from(item.note.hash % lanes.max(1)).unwrap_or(0);
        if let Some(lane) = self.lanes.get_mut(index) {
            self.layout.stamp(&mut item.message);
            lane.push(item);
        }
    }

    /// Starts what can be started. Returns when to look again if nothing happens before.
    fn drive(&mut self, now: Instant) -> Instant {
        let is_busy = self.outstanding.load(Relaxed) > 0;
        if is_busy && !self.is_looking && now >= self.look_at {
            self.look();
        }
        if let Some(queues) = self
            .next_queues
            .take_if(|_| !self.lanes.iter().any(Lane::is_in_flight))
        {
            self.lay(queues);
        }
        let mut wake = if is_busy {
            self.look_at.max(now + Duration::from_millis(10))
        } else {
            now + Duration::from_secs(3600)
        };
        if self.next_queues.is_none() {
            for index in 0..self.lanes.len() {
                if let Some(batch) = self.lanes[index].next_batch(self.shared.limits, now) {
                    self.send(index, batch);
                } else if let Some(when) = self.lanes[index].wakes_at() {
                    wake = wake.min(when);
                }
            }
        }
        wake
    }

    fn look(&mut self) {
        self.is_looking = true;
        let (backbone, name) = (Arc::clone(&self.shared.backbone), Arc::clone(&self.name));
        self.jobs
            .spawn(async move { Job::Looked(backbone.write_queues(&name).await) });
    }

    fn send(&mut self, index: usize, batch: Batch) {
        let (backbone, queue) = (
            Arc::clone(&self.shared.backbone),
            self.lanes[index].queue.clone(),
        );
        self.jobs.spawn(async move {
            let outcome = backbone.send(&queue, &batch.messages).await;
            Job::Sent(index, batch, outcome)
        });
    }

    fn finish(&mut self, job: Job) {
        let now = Instant::now();
        match job {
            Job::Looked(outcome) => {
                self.is_looking = false;
                self.looked(outcome, now);
            }
            Job::Sent(index, batch, Ok(())) => {
                if self
                    .shared
                    .reservations
                    .safe(&self.lanes[index].queue.broker)
                {
                    log::info!(
                        "broker {} stores messages safely again",
                        self.lanes[index].queue.broker
                    );
                }
                self.stored(index, &batch);
            }
            Job::Sent(index, batch, Err(Error::Reserved { reason })) => {
                self.stored_with_reservations(index, batch, &reason, now);
            }
            Job::Sent(index, batch, Err(error)) => self.not_sent(index, batch, &error, now),
            Job::Buried(grave, batch, Ok(())) => {
                match grave {
                    Grave::Lane(index) => self.lanes[index].done(),
                    Grave::Unassigned => self.unassigned_buried(),
                }
                self.complete(&batch.notes, |note| {
                    Ending::Dead(Arc::clone(&note.rule.counters))
                });
            }
            Job::Buried(grave, batch, Err(error)) => {
                log::error!("dead letters can't be written, trying again: {error}");
                match grave {
                    Grave::Lane(index) => self.lanes[index].failed(batch, now),
                    Grave::Unassigned => {
                        for (message, note) in batch.messages.into_iter().zip(batch.notes).rev() {
                            self.unassigned.push_front(Item { message, note });
                        }
                        self.unassigned_buried();
                    }
                }
            }
        }
    }

    fn stored(&mut self, index: usize, batch: &Batch) {
        self.missing_since = None;
        if self.shared.metrics.sending.up() {
            log::info!("RocketMQ takes messages");
        }
        self.lanes[index].done();
        self.complete(&batch.notes, |note| Ending::Sent {
            rule: Arc::clone(&note.rule.counters),
            bytes: note.payload_bytes,
        });
    }

    /// The master has the batch, its disk or its slave has not.
    fn stored_with_reservations(&mut self, index: usize, batch: Batch, reason: &str, now: Instant) {
        let broker = &self.lanes[index].queue.broker;
        match self.shared.reservations.judge(broker, now) {
            Verdict::Again { is_first } => {
                if is_first {
                    log::warn!(
                        "broker {broker} has stored messages, but {reason}: sending them again"
                    );
                }
                self.note_down(&Error::Reserved {
                    reason: reason.to_owned(),
                });
                if let Some(note) = batch.notes.first() {
                    note.rule.counters.retries.fetch_add(1, Relaxed);
                }
                self.lanes[index].reserved(batch, now);
            }
            Verdict::Accept { is_first } => {
                if is_first {
                    log::warn!(
                        "broker {broker}: {reason}, and that has not changed: its messages count as stored from now on"
                    );
                }
                for note in &batch.notes {
                    note.rule.counters.reserved.fetch_add(1, Relaxed);
                }
                self.stored(index, &batch);
            }
        }
    }

    fn unassigned_buried(&mut self) {
        self.is_burying_unassigned = false;
        if !self.lanes.is_empty() && self.next_queues.is_none() {
            self.reassign();
        }
    }

    fn complete(&mut self, notes: &[Note], ending: impl Fn(&Note) -> Ending) {
        let ended = notes.iter().map(|note| (note.ticket, ending(note)));
        self.shared.window.complete(ended);
        self.outstanding.fetch_sub(notes.len() as u64, Relaxed);
    }

    fn looked(&mut self, outcome: Result<Vec<Queue>, Error>, now: Instant) {
        match outcome {
            Ok(queues) if !queues.is_empty() => {
                self.look_at = now + LOOK_PAUSE;
                let is_same = self.lanes.iter().map(|lane| &lane.queue).eq(&queues);
                if is_same {
                    self.next_queues = None;
                    self.reassign();
                } else {
                    self.next_queues = Some(queues);
                }
            }
            Ok(_) => self.look_at = now + LOOK_PAUSE_FAILING,
            Err(error) => {
                self.look_at = now + LOOK_PAUSE_FAILING;
                // With lanes there are sends, and their answers count.
                if self.lanes.is_empty() {
                    self.is_unreachable(&error, now);
                }
            }
        }
    }

    /// Nothing can be assigned to a lane yet.
    fn is_unreachable(&mut self, error: &Error, now: Instant) {
        if !matches!(error, Error::TopicMissing { .. } | Error::Refused { .. }) {
            self.missing_since = None;
            self.note_down(error);
        } else if self.is_missing_for_good(error, now) && !self.is_burying_unassigned {
            let items = std::mem::take(&mut self.unassigned);
            if !items.is_empty() {
                self.bury(Grave::Unassigned, Batch::from_items(items), error);
            }
        }
    }

    /// True when RocketMQ has said for long enough that the topic is not there.
    fn is_missing_for_good(&mut self, error: &Error, now: Instant) -> bool {
        let patience = self.shared.topic_missing_timeout;
        let since = *self.missing_since.get_or_insert_with(|| {
            log::warn!("{error}; its messages become dead letters if that does not change within {patience:?}");
            now
        });
        now.duration_since(since) >= patience
    }

    fn not_sent(&mut self, index: usize, batch: Batch, error: &Error, now: Instant) {
        match error {
            Error::Refused { code, .. } if *code != NO_PERMISSION && batch.messages.len() > 1 => {
                self.lanes[index].split(batch);
                return;
            }
            Error::Refused { .. } => {
                self.bury(Grave::Lane(index), batch, error);
                return;
            }
            Error::TopicMissing { .. } => {
                if self.is_missing_for_good(error, now) {
                    self.bury(Grave::Lane(index), batch, error);
                    return;
                }
            }
            Error::Unavailable { .. }
            | Error::Busy { .. }
            | Error::Reserved { .. }
            | Error::Timeout => {
                self.missing_since = None;
                self.note_down(error);
                self.look_at = self.look_at.min(now + LOOK_PAUSE_FAILING);
            }
        }
        if let Some(note) = batch.notes.first() {
            note.rule.counters.retries.fetch_add(1, Relaxed);
        }
        self.lanes[index].failed(batch, now);
    }

    fn note_down(&self, error: &Error) {
        if self.shared.metrics.sending.down(&error.to_string()) {
            log::warn!("messages wait: {error}");
        }
    }

    fn bury(&mut self, grave: Grave, batch: Batch, error: &Error) {
        self.is_burying_unassigned |= matches!(grave, Grave::Unassigned);
        let (dead, name, reason) = (
            self.shared.dead.clone(),
            Arc::clone(&self.name),
            error.to_string(),
        );
        self.jobs.spawn_blocking(move || {
            let messages = batch.messages.iter().zip(&batch.notes);
            let mut letters: Vec<_> = messages
                .map(|(message, note)| {
                    let mut message = message.clone();
                    unstamp(&mut message);
                    Letter::refused(&name, &message, &note.rule.rule.text, &reason)
                })
                .collect();
            let outcome = dead.append(&mut letters);
            Job::Buried(grave, batch, outcome)
        });
    }

    /// Lays the lanes to these queues. Nothing is in flight.
    fn lay(&mut self, queues: Vec<Queue>) {
        if !self.lanes.is_empty() {
            log::info!(
                "{}: {} queues instead of {}",
                self.name,
                queues.len(),
                self.lanes.len()
            );
        }
        self.layout = Layout::of(&queues);
        let old = std::mem::replace(&mut self.lanes, queues.into_iter().map(Lane::new).collect());
        let mut items: Vec<Item> = old.into_iter().flat_map(Lane::into_waiting).collect();
        items.sort_by_key(|item| (item.note.ticket, item.note.copy));
        for item in items {
            self.assign(item);
        }
        self.reassign();
    }

    fn reassign(&mut self) {
        if self.is_burying_unassigned {
            return;
        }
        for item in std::mem::take(&mut self.unassigned) {
            self.assign(item);
        }
    }
}

impl Batch {
    fn from_items(items: impl IntoIterator<Item = Item>) -> Batch {
        let (messages, notes) = items
            .into_iter()
            .map(|item| (item.message, item.note))
            .unzip();
        Batch { messages, notes }
    }
}
