//! All lanes of one RocketMQ topic: a task that owns them, so that nothing is locked and the lanes can be laid anew.
//!
//! Order: a key's messages all go by one lane, and a lane has one batch in flight, which is sent again until it is
//! done with before anything behind it. When the topic's queues change, the lanes first come to rest; then what they
//! hold is spread over the new queues in the order of the log. So within a queue and a layout of lanes positions only fall
//! when something is repeated: nodes that read drop repetitions by that.

mod outcome;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rocketmq::{Backbone, Error, Queue};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lane::{Batch, BatchLimits, Item, Lane};
use super::layout::Layout;
use super::reservations::Reservations;
use super::window::Window;
use crate::dead_letter::DeadLetters;
use crate::metrics::{Ending, Metrics};

/// The topic's queues are looked up again this often while messages flow.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// The same while the queues are unknown or sends fail.
const LOOK_PAUSE_FAILING: Duration = Duration::from_millis(500);

/// What the tasks of all topics share.
pub(super) struct Shared {
    pub(super) backbone: Arc<dyn Backbone>,
    pub(super) window: Arc<Window>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) dead: DeadLetters,
    pub(super) limits: BatchLimits,
    pub(super) topic_missing_timeout: Duration,
    pub(super) reservations: Reservations,
    pub(super) cluster: Option<super::Shared>,
}

struct Topic {
    name: Arc<str>,
    shared: Arc<Shared>,
    /// Messages that wait for the queues to be known, or for the lanes to rest.
    unassigned: VecDeque<Item>,
    lanes: Vec<Lane>,
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

    fn assign(&mut self, item: Item) {
        let lanes = self.lanes.len() as u64;
        let index = usize::try_from(item.note.hash % lanes.max(1)).unwrap_or(0);
        if let Some(lane) = self.lanes.get_mut(index) {
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
                } else if let Some(when) = self.lanes[index].wakes_at(self.shared.limits) {
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
        let layout = Layout::of(&queues);
        let lanes = queues.into_iter().map(|queue| Lane::new(&layout, queue));
        let old = std::mem::replace(&mut self.lanes, lanes.collect());
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
