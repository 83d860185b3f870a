//! The task that reads once more what is asked for, and gives it.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::cluster::{Buckets, RETAINED_TAG};
use protocol::message::{Audience, ClientIdBuffer, Message, Selected};
use protocol::rules::DownlinkRule;
use rocketmq::{Backbone, Consumer, Incoming, Interest, Select, StartAt, Subscription};
use tokio::sync::{mpsc, watch};

use super::job::{Facts, Fate, Job};
use super::kept::{self, Kept};
use super::{Handed, MissedCounters, Request, Want};
use crate::downlink::{Again, Replays};
use crate::groups::Groups;
use crate::mapping::downlink::{Context, Outcome, map};
use crate::mapping::names;
use crate::metrics::unix_ms;

/// One reading serves all who come so close together, as when a node is gone: until nobody has come for this long ...
const QUIET: Duration = Duration::from_millis(300);
/// ... or for this long in all.
const GATHER: Duration = Duration::from_secs(2);
/// What was stored so shortly before a subscription may yet come by it.
const RECENT_MS: i64 = 10_000;
/// How long it is waited for.
const RECENT_WAIT: Duration = Duration::from_secs(3);
/// Messages of that kind held in memory.
const RECENT_MAX: usize = 20_000;
/// Identities remembered, to leave out what was stored twice.
const KNOWN_MAX: usize = 1 << 20;
pub(super) const POLL: Duration = Duration::from_millis(200);
pub(super) const BATCH: usize = 256;
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Client ids in one frame, in bytes; and one more.
const AUDIENCE_BYTES: usize = 16 << 10;

pub(super) struct Reader {
    pub(super) rule: DownlinkRule,
    pub(super) group: String,
    pub(super) node_id: String,
    pub(super) context: Context,
    pub(super) backbone: Arc<dyn Backbone>,
    pub(super) handed: Arc<Handed>,
    pub(super) groups: Arc<Groups>,
    pub(super) replays: Replays,
    pub(super) kept: Arc<Mutex<Kept>>,
    pub(super) counters: Arc<MissedCounters>,
}

impl Reader {
    pub(super) async fn run(self, mut incoming: mpsc::UnboundedReceiver<Request>) {
        while let Some(first) = incoming.recv().await {
            let requests = gather(first, &mut incoming).await;
            let mut retained_since_ms: Option<u64> = None;
            let (mut wants, mut groups) = (Vec::new(), Vec::new());
            let of_file = requests.iter().filter(|request| kept::is_kept(request));
            let of_file = of_file.count();
            for request in requests {
                match request {
                    Request::Client(want) => wants.push(want),
                    Request::Group(reread) => groups.push(reread),
                    Request::Retained(ms) => {
                        retained_since_ms =
                            Some(retained_since_ms.map_or(ms, |known| known.min(ms)));
                    }
                }
            }
            self.serve_groups(&groups).await;
            if let Some(since_ms) = retained_since_ms {
                self.serve_retained(since_ms).await;
            }
            self.serve_clients(wants).await;
            // Else not all may have been given.
            if !self.replays.is_stopping() {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.served(of_file);
            }
        }
    }

    async fn serve_clients(&self, wants: Vec<Want>) {
        if wants.is_empty() {
            return;
        }
        let clients: HashSet<&str> = wants.iter().map(|want| want.client_id.as_str()).collect();
        let clients = clients.len() as u64;
        let job = Job::new(wants, &self.node_id);
        let given = self.serve(&job).await;
        self.counters.clients.fetch_add(clients, Relaxed);
        log::info!(
            "{clients} clients that came from other nodes got {given} messages that they had missed"
        );
    }

    async fn serve_retained(&self, since_ms: u64) {
        log::info!(
            "Mosquitto may have lost retained messages that it had not saved: they are read again"
        );
        while let Err(error) = self.read_retained(since_ms).await {
            log::warn!("retained messages can't be read again, trying again: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read_retained(&self, since_ms: u64) -> Result<(), rocketmq::Error> {
        let tags = Buckets::Some([RETAINED_TAG.to_owned()].into());
        let mut consumer = self.consumer(tags, since_ms).await?;
        let outcome = loop {
            match consumer.poll(BATCH, POLL).await {
                Ok(batch) if batch.is_empty() && consumer.settled_ms().is_some() => break Ok(()),
                Ok(batch) => {
                    for message in batch.into_iter().filter(|message| message.is_read_back) {
                        self.hand_over(|| Again::Shared(Box::new(message.clone())))
                            .await;
                    }
                }
                Err(error) => break Err(error),
            }
        };
        consumer.close().await;
        outcome
    }

    /// Returns how many messages were given. Begins again when RocketMQ fails, without those that were given already.
    async fn serve(&self, job: &Job) -> u64 {
        let mut state = State::default();
        while let Err(error) = self.read(job, &mut state).await {
            log::warn!("what clients have missed can't be read, trying again: {error}");
            tokio::time::sleep(PAUSE).await;
        }
        state.given
    }

    async fn read(&self, job: &Job, state: &mut State) -> Result<(), rocketmq::Error> {
        let (buckets, since_ms) = job.buckets();
        let started_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
        let mut consumer = self.consumer(buckets, since_ms).await?;
        let outcome = loop {
            match consumer.poll(BATCH, POLL).await {
                Ok(batch) if batch.is_empty() && consumer.settled_ms().is_some() => break Ok(()),
                Ok(batch) => {
                    for message in batch.into_iter().filter(|message| message.is_read_back) {
                        self.take(job, message, started_ms, state).await;
                    }
                }
                Err(error) => break Err(error),
            }
        };
        consumer.close().await;
        outcome?;
        self.take_recent(job, state).await;
        Ok(())
    }

    /// Reads what these buckets have had since then, and gives it as read back.
    pub(super) async fn consumer(
        &self,
        buckets: Buckets,
        since_ms: u64,
    ) -> Result<Box<dyn Consumer>, rocketmq::Error> {
        let since_ms = i64::try_from(since_ms).unwrap_or(i64::MAX);
        let mut interest = Interest::default();
        match buckets {
            Buckets::All => interest.all_since_ms = Some(since_ms),
            Buckets::Some(tags) => {
                interest.tags = tags.into_iter().map(|tag| (tag, since_ms)).collect();
            }
        }
        let (_, interest) = watch::channel(Arc::new(interest));
        let subscription = Subscription {
            topic: self.rule.topic.clone(),
            select: Select::Interest(interest),
        };
        self.backbone
            .subscribe(&self.group, vec![subscription], StartAt::Present)
            .await
    }

    /// Gives a message to those who have missed it, or keeps it until that is known.
    async fn take(&self, job: &Job, message: Incoming, started_ms: i64, state: &mut State) {
        let Some(facts) = Facts::of(&message).filter(|_| message.problem.is_none()) else {
            return;
        };
        let is_recent = message.stored_at_ms > started_ms - RECENT_MS;
        let is_open = |want: &&Want| job.fate(want, &facts, &self.handed) == Fate::Open;
        // In order: what stands behind one that is waited for waits too.
        if is_recent
            && state.recent.len() < RECENT_MAX
            && (!state.recent.is_empty() || job.wanted_by(&facts).iter().any(is_open))
        {
            state.recent.push(message);
            return;
        }
        self.give(job, &message, state).await;
    }

    async fn take_recent(&self, job: &Job, state: &mut State) {
        let recent = std::mem::take(&mut state.recent);
        if recent.is_empty() {
            return;
        }
        tokio::time::sleep(RECENT_WAIT).await;
        for message in recent {
            self.give(job, &message, state).await;
        }
    }

    async fn give(&self, job: &Job, message: &Incoming, state: &mut State) {
        let Some(facts) = Facts::of(message) else {
            return;
        };
        let id = message
            .properties
            .iter()
            .find(|(name, _)| name == names::ID);
        if !state.is_new(id.map_or("", |(_, id)| id)) {
            return;
        }
        let wanted = job.wanted_by(&facts);
        let missed = |want: &&&Want| job.fate(want, &facts, &self.handed) != Fate::Comes;
        // Two subscriptions of one client may have been made at different times: what one of them brings, the other has not missed.
        let comes = wanted.iter().filter(|want| !missed(want));
        let has_it: HashSet<&str> = comes.map(|want| want.client_id.as_str()).collect();
        let clients: BTreeSet<&str> = wanted
            .iter()
            .map(|want| want.client_id.as_str())
            .filter(|client| !has_it.contains(client))
            .collect();
        if clients.is_empty() {
            return;
        }
        let mut mapped = match map(message, &self.rule, &self.context, unix_ms()) {
            Ok(Outcome::Deliver(mapped)) => mapped,
            Ok(Outcome::Own | Outcome::Expired) => return,
            Err(error) => {
                // It is a dead letter already, of the way down.
                log::debug!("{}: {error}", message.message_id);
                return;
            }
        };
        mapped.do_not_retain();
        for (frame, count) in frames(&mapped.message(), &clients) {
            if self.hand_over(|| Again::Frame(frame.clone())).await {
                state.given += count;
                self.counters.messages.fetch_add(count, Relaxed);
            }
        }
    }

    /// False when the sidecar is ending.
    pub(super) async fn hand_over(&self, what: impl Fn() -> Again) -> bool {
        let mut said: Option<Instant> = None;
        loop {
            match self.replays.submit(what()).await {
                Ok(Ok(())) => return true,
                Ok(Err(reason)) => {
                    if said.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) {
                        log::warn!("what a client has missed waits for the downlink: {reason}");
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => return false,
            }
        }
    }
}

/// How far a reading has come.
#[derive(Default)]
pub(super) struct State {
    known: HashSet<u64>,
    recent: Vec<Incoming>,
    pub(super) given: u64,
}

impl State {
    pub(super) fn is_new(&mut self, id: &str) -> bool {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(hasher.finish())
    }
}

/// The message for these clients alone, by their subscriptions: as many frames as it needs, each with the number of its clients.
fn frames(message: &Message<'_>, clients: &BTreeSet<&str>) -> Vec<(Vec<u8>, u64)> {
    let mut frames = Vec::new();
    let mut rest = clients.iter().peekable();
    while rest.peek().is_some() {
        let mut ids = ClientIdBuffer::default();
        let mut count = 0;
        while let Some(client) = rest.next_if(|_| ids.byte_len() < AUDIENCE_BYTES) {
            // Mosquitto has no clients with longer ids.
            count += u64::from(ids.push(client).is_ok());
        }
        let selected = Selected {
            audience: Audience::Clients(ids.as_ids()),
            message: *message,
        };
        let mut frame = vec![0; selected.encoded_len()];
        selected.encode_into(&mut frame);
        frames.push((frame, count));
    }
    frames
}

async fn gather(first: Request, incoming: &mut mpsc::UnboundedReceiver<Request>) -> Vec<Request> {
    let mut requests = vec![first];
    if let [Request::Group(_)] = requests[..] {
        // Its members wait, and are few.
        requests.extend(std::iter::from_fn(|| incoming.try_recv().ok()));
        return requests;
    }
    let until = Instant::now() + GATHER;
    while Instant::now() < until {
        match tokio::time::timeout(QUIET, incoming.recv()).await {
            Ok(Some(request)) => requests.push(request),
            Ok(None) | Err(_) => break,
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use protocol::message::DownlinkFrame;

    use super::*;

    #[test]
    fn a_message_for_many_clients_stands_in_as_few_frames_as_it_can() {
        let names: Vec<String> = (0..3000)
            .map(|number| format!("client-{number:04}"))
            .collect();
        let clients: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let message = Message {
            topic: "news",
            ..Message::default()
        };
        let frames = frames(&message, &clients);
        assert_eq!(frames.len(), 3);
        let mut found = Vec::new();
        for (frame, count) in &frames {
            let Ok(DownlinkFrame::Selected(selected)) = DownlinkFrame::decode(frame) else {
                panic!("a selected message")
            };
            let Audience::Clients(ids) = selected.audience else {
                panic!("clients")
            };
            assert_eq!(selected.message.topic, "news");
            assert_eq!(ids.iter().count() as u64, *count);
            found.extend(ids.iter());
        }
        assert_eq!(found, clients.into_iter().collect::<Vec<_>>());
    }
}
