//! Follows the inbox, and gives clients that log in here what lies there for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::cluster::client_tag;
use protocol::config::Config;
use protocol::message::Message;
use rocketmq::{Backbone, Consumer, Error, Incoming, Interest, Select, StartAt, Subscription};
use tokio::sync::{mpsc, watch};

use super::index::{Index, Word};
use super::{Inbox, Limits, News, Place, queue_of, send, taken};
use crate::downlink::{Again, Replays};
use crate::metrics::unix_ms;

const BATCH: usize = 256;
const POLL: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);
/// So much earlier is read: the times of messages are those of RocketMQ's brokers, and this one is ours.
const CLOCKS_APART_MS: i64 = 5_000;
/// What a node did so shortly before it was heard last may not have been done.
const IN_HAND_MS: u64 = 2_000;
/// Clients served by one reading.
const TOGETHER_MAX: usize = 1_000;
/// How often what is too old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Starts the task. It ends with the runtime.
pub(crate) fn start(
    config: &Config,
    backbone: Arc<dyn Backbone>,
    inbox: Arc<Inbox>,
    replays: Replays,
    news: mpsc::UnboundedReceiver<News>,
) {
    let task = Task {
        group: format!("{}_INBOX", config.group),
        reading_group: format!("{}_MISSED", config.group),
        limits: Limits {
            time: config.cluster_keep_time,
            messages: usize::try_from(config.cluster_keep_messages).unwrap_or(usize::MAX),
        },
        backbone,
        inbox,
        replays,
        index: Index::default(),
        given: HashMap::new(),
        untold: BTreeMap::new(),
    };
    tokio::spawn(task.run(news));
}

struct Task {
    group: String,
    /// For what is read once more: what a group has registered counts for all that read in it.
    reading_group: String,
    limits: Limits,
    backbone: Arc<dyn Backbone>,
    inbox: Arc<Inbox>,
    replays: Replays,
    index: Index,
    /// Up to which offset a client was given what lay there, until the inbox says so.
    given: HashMap<String, i64>,
    /// The same, yet to be said.
    untold: BTreeMap<String, i64>,
}

/// What lies there for one client.
#[derive(Debug)]
struct Lying {
    /// Offset, time of storing, frame.
    messages: Vec<(i64, i64, Bytes)>,
    /// Up to which offset it was taken.
    taken: i64,
}

impl Default for Lying {
    fn default() -> Lying {
        Lying {
            messages: Vec::new(),
            taken: -1,
        }
    }
}

impl Task {
    async fn run(mut self, mut news: mpsc::UnboundedReceiver<News>) {
        loop {
            let since_ms = self.not_before();
            let interest = Interest {
                all_since_ms: Some(since_ms),
                ..Interest::default()
            };
            match self.consumer(&self.group, interest).await {
                Ok(consumer) => self.follow(consumer, &mut news).await,
                Err(error) => log::debug!("the inbox can't be read, trying again: {error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What was stored before that is kept no more.
    fn not_before(&self) -> i64 {
        let now_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
        let time_ms = i64::try_from(self.limits.time.as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(time_ms)
    }

    /// Until RocketMQ fails.
    async fn follow(
        &mut self,
        mut consumer: Box<dyn Consumer>,
        news: &mut mpsc::UnboundedReceiver<News>,
    ) {
        let mut is_settled = false;
        let mut forgot = Instant::now();
        loop {
            let mut due = BTreeSet::new();
            let mut heard = None;
            tokio::select! {
                polled = consumer.poll(BATCH, POLL) => match polled {
                    Ok(batch) => {
                        let clients = batch.iter().filter_map(|incoming| self.index.follow(incoming));
                        due.extend(clients);
                    }
                    Err(error) => {
                        log::debug!("the inbox can't be read, trying again: {error}");
                        break;
                    }
                },
                first = news.recv() => match first {
                    Some(first) => heard = Some(first),
                    None => break,
                },
            }
            while let Some(next) = heard.take().or_else(|| news.try_recv().ok()) {
                match next {
                    News::LoggedIn(client) => drop(due.insert(client)),
                    News::Gone(heard_ms) => self.take_over(heard_ms).await,
                }
            }
            if !is_settled && consumer.settled_ms().is_some() {
                is_settled = true;
                due.extend(self.index.clients().map(str::to_owned));
            }
            due.retain(|client| self.is_due(client));
            while !due.is_empty() {
                let later = match due.iter().nth(TOGETHER_MAX).cloned() {
                    Some(first) => due.split_off(&first),
                    None => BTreeSet::new(),
                };
                self.serve(&due).await;
                due = later;
            }
            self.tell().await;
            let (messages, clients) = self.index.size();
            self.inbox.messages.store(messages, Relaxed);
            self.inbox.clients.store(clients, Relaxed);
            if forgot.elapsed() >= FORGET_EVERY {
                forgot = Instant::now();
                self.index.forget(self.not_before());
                self.given
                    .retain(|client, _| self.index.waiting(client).is_some());
            }
        }
        consumer.close().await;
    }

    /// Does what a node that is gone may have left undone: delivers to those who have come here, and keeps for those who are nowhere.
    async fn take_over(&self, heard_ms: u64) {
        let since_ms = heard_ms.saturating_sub(IN_HAND_MS);
        let recent = self.inbox.recent().since(since_ms);
        for (number, client, frame) in recent {
            let is_done = match self.inbox.place(&client) {
                Place::Here => self.hand_over(&Bytes::from(frame)).await,
                Place::Nowhere => self.keep(&client, &frame).await,
                Place::Elsewhere | Place::Unknown | Place::Open => false,
            };
            if is_done {
                self.inbox.recent().forget(number);
            }
        }
    }

    /// False when it can never be.
    async fn keep(&self, client: &str, frame: &[u8]) -> bool {
        loop {
            match self.inbox.keep(&*self.backbone, client, frame).await {
                Ok(()) => return true,
                Err(error @ Error::Refused { .. }) => {
                    log::error!("a message for {client} can't be kept: {error}");
                    return false;
                }
                Err(error) => log::warn!("a message for {client} is yet to be kept: {error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a client that is here has something lying there that it was not given.
    fn is_due(&self, client: &str) -> bool {
        let is_here = self.inbox.place(client) == Place::Here;
        let given = self.given.get(client).copied().unwrap_or(-1);
        let waiting = self.index.waiting(client);
        is_here && waiting.is_some_and(|waiting| waiting.last_offset > given)
    }

    async fn consumer(&self, group: &str, interest: Interest) -> Result<Box<dyn Consumer>, Error> {
        let (_, interest) = watch::channel(Arc::new(interest));
        let subscription = Subscription {
            topic: self.inbox.topic.clone(),
            select: Select::Interest(interest),
        };
        self.backbone
            .subscribe(group, vec![subscription], StartAt::Present)
            .await
    }

    async fn serve(&mut self, clients: &BTreeSet<String>) {
        let lying = loop {
            match self.read(clients).await {
                Ok(lying) => break lying,
                Err(error) => {
                    log::warn!("what is kept for clients can't be read, trying again: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        for (client, lying) in lying {
            self.give(&client, lying).await;
        }
    }

    async fn read(&self, clients: &BTreeSet<String>) -> Result<BTreeMap<String, Lying>, Error> {
        let oldest = clients
            .iter()
            .filter_map(|client| self.index.waiting(client));
        let oldest_ms = oldest
            .map(|waiting| waiting.oldest_ms)
            .min()
            .unwrap_or(i64::MAX);
        let since_ms = oldest_ms
            .saturating_sub(CLOCKS_APART_MS)
            .max(self.not_before());
        let interest = Interest {
            tags: clients
                .iter()
                .map(|client| (client_tag(client), since_ms))
                .collect(),
            ..Interest::default()
        };
        let mut consumer = self.consumer(&self.reading_group, interest).await?;
        let mut lying: BTreeMap<String, Lying> = BTreeMap::new();
        let outcome = loop {
            match consumer.poll(BATCH, POLL).await {
                Ok(batch) if batch.is_empty() && consumer.settled_ms().is_some() => break Ok(()),
                Ok(batch) => batch
                    .into_iter()
                    .for_each(|incoming| note(&mut lying, clients, incoming)),
                Err(error) => break Err(error),
            }
        };
        consumer.close().await;
        outcome.map(|()| lying)
    }

    /// Has the client's messages injected: the newest, if there are too many.
    async fn give(&mut self, client: &str, mut lying: Lying) {
        let not_before = self.not_before();
        let given = self
            .given
            .get(client)
            .copied()
            .unwrap_or(-1)
            .max(lying.taken);
        lying
            .messages
            .sort_unstable_by_key(|(offset, _, _)| *offset);
        lying.messages.dedup_by_key(|(offset, _, _)| *offset);
        let Some(last) = lying.messages.last().map(|(offset, _, _)| *offset) else {
            return;
        };
        lying
            .messages
            .retain(|(offset, stored_ms, _)| *offset > given && *stored_ms >= not_before);
        let spare = lying.messages.len().saturating_sub(self.limits.messages);
        if spare > 0 {
            log::warn!(
                "{spare} messages for {client} are too many (cluster_keep_messages), and are dropped: the oldest"
            );
        }
        let mut count = 0;
        for (_, _, frame) in lying.messages.drain(..).skip(spare) {
            if is_over(&frame) {
                continue;
            }
            if !self.hand_over(&frame).await {
                return;
            }
            count += 1;
        }
        if count > 0 {
            log::debug!("{client} gets {count} messages that were kept for it");
        }
        self.given.insert(client.to_owned(), last);
        self.untold.insert(client.to_owned(), last);
    }

    /// False when the sidecar is ending.
    async fn hand_over(&self, frame: &Bytes) -> bool {
        loop {
            match self.replays.submit(Again::Frame(frame.to_vec())).await {
                Ok(Ok(())) => return true,
                Ok(Err(reason)) => {
                    log::debug!("what is kept for a client waits: {reason}");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => return false,
            }
        }
    }

    /// Says what was given.
    async fn tell(&mut self) {
        while let Some((client, offset)) = self.untold.pop_first() {
            let told = async {
                let queue = queue_of(&*self.backbone, &self.inbox.topic, &client).await?;
                send(&*self.backbone, &queue, taken(&client, offset)).await
            };
            if let Err(error) = told.await {
                log::debug!("it can't be told that {client} was given what was kept: {error}");
                self.untold.insert(client, offset);
                return;
            }
        }
    }
}

fn note(lying: &mut BTreeMap<String, Lying>, clients: &BTreeSet<String>, incoming: Incoming) {
    match Word::of(&incoming) {
        Some(Word::Kept(client)) if clients.contains(&client) => {
            let message = (incoming.offset, incoming.stored_at_ms, incoming.body);
            lying.entry(client).or_default().messages.push(message);
        }
        Some(Word::Taken(client, offset)) if clients.contains(&client) => {
            let lying = lying.entry(client).or_default();
            lying.taken = lying.taken.max(offset);
        }
        _ => {}
    }
}

/// Whether it is no message, or one whose time is over.
fn is_over(frame: &[u8]) -> bool {
    let Ok(message) = Message::decode(frame) else {
        return true;
    };
    let age_ms = unix_ms().saturating_sub(message.received_at_ms);
    message
        .expiry_s
        .is_some_and(|seconds| age_ms >= u64::from(seconds) * 1000)
}
