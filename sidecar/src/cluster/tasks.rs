//! What runs: heartbeats, the telling of clients, the reading of what the others tell, and the frames for Mosquitto. All of them have
//! one core; none waits for RocketMQ while it holds it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rocketmq::{Consumer, Error, Incoming, Outgoing, Queue, Select, StartAt, Subscription};

use super::shared::{Shared, now};
use super::wire::{Load, NodeMessage};
use crate::downlink::Again;

/// How often the others are judged.
const TICK_EVERY: Duration = Duration::from_millis(100);
/// Beats are not closer, whatever there is to tell.
const BEATS_APART: Duration = Duration::from_millis(20);
/// Messages about clients sent at once.
const BATCH: usize = 64;
/// Frames given to the downlink at once: its thread looks for them a few times a second while nothing else is to be done.
const FRAMES: usize = 512;
/// Messages taken from RocketMQ at once, and how long one poll may take.
const POLL_MAX: usize = 256;
const POLL: Duration = Duration::from_millis(200);
/// How often it is kept how far the topics were read: what a restart reads again costs time alone.
const COMMIT_EVERY: Duration = Duration::from_secs(10);
/// Pauses after failures: doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long the last word to the others may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Where messages go: always the same queue while that takes them, so that they stay in order.
struct Lane {
    shared: Arc<Shared>,
    topic: String,
    queues: Vec<Queue>,
    place: usize,
}

impl Lane {
    fn new(shared: &Arc<Shared>, topic: &str, place: usize) -> Lane {
        Lane {
            shared: Arc::clone(shared),
            topic: topic.to_owned(),
            queues: Vec::new(),
            place,
        }
    }

    /// The place by which a node has a queue of its own, if there are enough.
    fn place_of(shared: &Arc<Shared>) -> usize {
        let mut hasher = DefaultHasher::new();
        shared.core().node.hash(&mut hasher);
        (hasher.finish() % 1024) as usize
    }

    async fn send(&mut self, batch: &[Outgoing]) -> Result<(), Error> {
        let sent = self.try_send(batch).await;
        match &sent {
            Ok(()) => self.shared.failed("", None),
            Err(error) => {
                self.shared
                    .failed("what this node has to tell can't be sent", Some(error));
                // What was told keeps its order by its numbers: another queue serves as well.
                self.queues.clear();
                self.place += 1;
            }
        }
        sent
    }

    async fn try_send(&mut self, batch: &[Outgoing]) -> Result<(), Error> {
        let backbone = &self.shared.backbone;
        if self.queues.is_empty() {
            self.queues = backbone.write_queues(&self.topic).await?;
        }
        let Some(queue) = self.queues.get(self.place % self.queues.len().max(1)) else {
            return Err(Error::TopicMissing {
                topic: self.topic.clone(),
            });
        };
        match backbone.send(queue, batch).await {
            // It is stored.
            Ok(()) | Err(Error::Reserved { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Judges the others by the time.
pub(super) async fn tick(shared: Arc<Shared>) {
    while !shared.is_stopping() {
        let changes = shared.core().tick(now());
        shared.changed(&changes);
        shared.keep_carriers();
        shared.reread();
        shared.wake();
        shared.pause(TICK_EVERY).await;
    }
}

/// Heartbeats, and questions. One that did not go is not sent again: the next one says more.
pub(super) async fn beat(shared: Arc<Shared>) {
    // All in one queue: in the order in which things were said.
    let mut lane = Lane::new(&shared, &shared.topics.nodes, 0);
    let every = shared.core().members.beat_every();
    let groups = Arc::clone(&shared.core().groups);
    while !shared.is_stopping() {
        let load = shared.load();
        let bridges = shared.own_bridges();
        let batch: Vec<Outgoing> = {
            let mut core = shared.core();
            core.set_own_bridges(bridges);
            let clients = core.table.online_at(&core.node).count() as u64;
            let mut beat = core.members.next_beat(now(), Load { clients, ..load });
            // The first word of a group is one that this node hears too: all have to go by the same.
            if core.members.has_echo() {
                (beat.groups, beat.done) = core.groups.own_word();
            }
            let asks = core.take_asks();
            let messages = [NodeMessage::Beat(Box::new(beat))].into_iter().chain(asks);
            messages.map(|message| message.outgoing()).collect()
        };
        let sent = lane.send(&batch).await;
        {
            let counters = &mut shared.core().counters;
            match sent {
                Ok(()) => counters.heartbeats_sent += 1,
                Err(_) => counters.heartbeats_failed += 1,
            }
        }
        tokio::select! {
            () = shared.pause(every) => {}
            // A group that waits for its first message.
            () = groups.news.notified() => shared.pause(BEATS_APART).await,
        }
    }
    let (node, instance) = {
        let core = shared.core();
        (core.node.clone(), core.members.own.instance.clone())
    };
    let leave = NodeMessage::Leave { node, instance }.outgoing();
    // Else they find out by its silence.
    let _ = tokio::time::timeout(LAST_WORD, lane.send(&[leave])).await;
}

/// Tells of clients: one batch at a time, each until it is stored.
pub(super) async fn tell(shared: Arc<Shared>) {
    let mut lane = Lane::new(&shared, &shared.topics.presence, Lane::place_of(&shared));
    let mut retry = RETRY_FIRST;
    let mut batch: Vec<Outgoing> = Vec::new();
    while !shared.is_stopping() {
        if batch.is_empty() {
            batch = shared.core().next_presence(BATCH, now());
        }
        if batch.is_empty() {
            shared.to_tell.notified().await;
            continue;
        }
        if lane.send(&batch).await.is_ok() {
            shared.core().counters.presence_sent += batch.len() as u64;
            batch.clear();
            retry = RETRY_FIRST;
            continue;
        }
        shared.core().counters.presence_failed += 1;
        shared.pause(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
    let _ = tokio::time::timeout(LAST_WORD, async {
        while !batch.is_empty() && lane.send(&batch).await.is_ok() {
            batch = shared.core().next_presence(BATCH, now());
        }
    })
    .await;
}

/// Reads what the others tell.
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut retry = RETRY_FIRST;
    while !shared.is_stopping() {
        let topics = [&shared.topics.nodes, &shared.topics.presence];
        let subscriptions = topics.map(|topic| Subscription {
            topic: topic.clone(),
            select: Select::Tags("*".to_owned()),
        });
        let consumer = shared
            .backbone
            .subscribe(&shared.group, subscriptions.into(), StartAt::Latest)
            .await;
        match consumer {
            Ok(consumer) => listen_to(&shared, consumer).await,
            Err(error) => {
                shared.failed("what the other nodes tell can't be read", Some(&error));
                shared.pause(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn listen_to(shared: &Arc<Shared>, mut consumer: Box<dyn Consumer>) {
    let mut next: std::collections::BTreeMap<Queue, i64> = std::collections::BTreeMap::new();
    let mut committed = Instant::now();
    while !shared.is_stopping() {
        match consumer.poll(POLL_MAX, POLL).await {
            Ok(batch) => {
                for incoming in &batch {
                    take(shared, incoming);
                    next.insert(incoming.queue.clone(), incoming.offset + 1);
                }
            }
            Err(error) => {
                shared.failed("what the other nodes tell can't be read", Some(&error));
                shared.pause(RETRY_FIRST).await;
            }
        }
        // What Mosquitto is yet to be given would be forgotten with this process.
        let is_done = shared.core().table.waiting().1 == 0;
        if is_done && !next.is_empty() && committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            let offsets: Vec<_> = std::mem::take(&mut next).into_iter().collect();
            if consumer.commit(&offsets).await.is_err() {
                next.extend(offsets);
            }
        }
    }
    if shared.core().table.waiting().1 == 0 {
        let offsets: Vec<_> = next.into_iter().collect();
        let _ = tokio::time::timeout(LAST_WORD, consumer.commit(&offsets)).await;
    }
    consumer.close().await;
}

fn take(shared: &Arc<Shared>, incoming: &Incoming) {
    let now = now();
    if incoming.problem.is_some() {
        shared.core().counters.not_understood += 1;
    } else if incoming.queue.topic == shared.topics.nodes {
        let body = &incoming.body;
        let changes = shared.core().node_message(body, incoming.stored_at_ms, now);
        if !changes.is_empty() {
            shared.changed(&changes);
        }
        shared.reread();
    } else {
        let tag = incoming.tag.as_deref();
        shared.core().presence_message(tag, &incoming.body, now);
    }
    shared.wake();
}

/// Gives Mosquitto what it is to publish and to close, through the downlink's thread, which alone may write to the log.
pub(super) async fn hand_over(shared: Arc<Shared>) {
    while !shared.is_stopping() {
        let frames = shared.core().next_frames(FRAMES, now());
        if frames.is_empty() {
            shared.to_publish.notified().await;
            continue;
        }
        let mut answers = Vec::with_capacity(frames.len());
        for frame in frames {
            let answer = shared.replays.submit(Again::Frame(frame.bytes.clone()));
            answers.push((frame, Some(answer)));
        }
        let mut is_failing = false;
        for (frame, answer) in answers.drain(..) {
            // Behind one that did not get in, the others are called back (by letting go of the answer).
            let outcome = match answer {
                Some(answer) if !is_failing => answer.await.ok(),
                _ => None,
            };
            let mut core = shared.core();
            if matches!(outcome, Some(Ok(()))) {
                core.counters.presence_published += 1;
            } else {
                is_failing = true;
                core.frame_again(frame);
            }
        }
        if is_failing {
            shared.pause(RETRY_MAX).await;
        }
    }
}
