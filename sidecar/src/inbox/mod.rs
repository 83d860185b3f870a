//! Messages for single clients that are nowhere: kept in RocketMQ until the client comes, to whichever node.
//!
//! A message for one client comes down on every node, and the one that has the client delivers it. Of one that no living node has, neither connected nor as a session,
//! the lowest living node puts what it would have injected into the cluster's inbox. All nodes follow that, and know for whom something lies there. The node that a client
//! logs in to reads it, has it injected for the client, and says so in the inbox.
//!
//! While a node dies, it is not known to: what was its to deliver or to keep, the others remember for as long as that may turn out (`recent`), and do it then.
//!
//! A client's messages stand in one queue, in order: "taken up to this offset" says it all.

mod index;
mod recent;
mod task;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use protocol::cluster::client_tag;
use protocol::config::Config;
use rocketmq::{Backbone, Error, Outgoing, Properties, Queue};
use tokio::sync::mpsc;

pub(crate) use task::start;

use crate::mapping::{escape, names};
use crate::metrics::unix_ms;
use recent::Recent;

/// Where a client is, as far as a node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here, connected or as a session that Mosquitto keeps.
    Here,
    /// At another living node.
    Elsewhere,
    /// Nowhere, and this node is the one to keep what comes for it.
    Nowhere,
    /// Not known, or another node's business.
    Unknown,
    /// Not known yet: this node has just started.
    Open,
}

/// Tells where clients are.
pub(crate) trait Places: Send + Sync {
    /// Where this one is.
    fn place(&self, client_id: &str) -> Place;
    /// Whether this node does what one alone has to do: no living one has a lower name.
    fn is_lowest(&self) -> bool;
}

/// The inbox, for those who put something into it and who want something out of it.
pub(crate) struct Inbox {
    topic: String,
    places: OnceLock<Arc<dyn Places>>,
    wake: mpsc::UnboundedSender<News>,
    recent: Mutex<Recent>,
    messages: AtomicU64,
    clients: AtomicU64,
}

/// What the task has to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// A client has logged in here.
    LoggedIn(String),
    /// A node is gone, and was heard last at this time, Unix milliseconds.
    Gone(u64),
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
struct Limits {
    time: Duration,
    messages: usize,
}

impl Inbox {
    /// The inbox of the cluster, and the clients that log in here for the task that serves them. Nothing where nothing is kept.
    pub(crate) fn new(config: &Config) -> Option<(Inbox, mpsc::UnboundedReceiver<News>)> {
        let topics = config.cluster_topics()?;
        if config.cluster_keep_time.is_zero() {
            return None;
        }
        let (wake, logins) = mpsc::unbounded_channel();
        let inbox = Inbox {
            topic: topics.inbox,
            places: OnceLock::new(),
            wake,
            recent: Mutex::new(Recent::new(config.cluster_node_timeout)),
            messages: AtomicU64::new(0),
            clients: AtomicU64::new(0),
        };
        Some((inbox, logins))
    }

    /// Who knows where clients are. Until then nothing is kept.
    pub(crate) fn set_places(&self, places: Arc<dyn Places>) {
        // Once.
        let _ = self.places.set(places);
    }

    /// A client has logged in here.
    pub(crate) fn logged_in(&self, client_id: &str) {
        // The task may have ended before us.
        let _ = self.wake.send(News::LoggedIn(client_id.to_owned()));
    }

    /// A node is gone: what was its to do since shortly before it was heard last is this node's now, where it has to do with it.
    pub(crate) fn gone(&self, heard_ms: u64) {
        let _ = self.wake.send(News::Gone(heard_ms));
    }

    /// Remembers a frame for a client that is another node's to deliver or to keep.
    pub(crate) fn is_anothers(&self, client_id: &str, frame: &[u8]) {
        self.recent().note(client_id, frame, unix_ms());
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that lie there, and for how many clients.
    pub(crate) fn kept_now(&self) -> (u64, u64) {
        (self.messages.load(Relaxed), self.clients.load(Relaxed))
    }

    /// Where this client is.
    pub(crate) fn place(&self, client_id: &str) -> Place {
        let places = self.places.get();
        places.map_or(Place::Open, |places| places.place(client_id))
    }

    /// Keeps a frame for a client: when this returns `Ok`, RocketMQ has it.
    pub(crate) async fn keep(
        &self,
        backbone: &dyn Backbone,
        client_id: &str,
        frame: &[u8],
    ) -> Result<(), Error> {
        let queue = queue_of(backbone, &self.topic, client_id).await?;
        send(backbone, &queue, kept(client_id, frame)).await
    }
}

/// The queue of what is kept for a client.
async fn queue_of(backbone: &dyn Backbone, topic: &str, client_id: &str) -> Result<Queue, Error> {
    let mut queues = backbone.write_queues(topic).await?;
    if queues.is_empty() {
        return Err(Error::TopicMissing {
            topic: topic.to_owned(),
        });
    }
    let at = crc32c::crc32c(client_id.as_bytes()) as usize % queues.len();
    Ok(queues.swap_remove(at))
}

async fn send(backbone: &dyn Backbone, queue: &Queue, message: Outgoing) -> Result<(), Error> {
    match backbone.send(queue, &[message]).await {
        // It is stored.
        Ok(()) | Err(Error::Reserved { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn kept(client_id: &str, frame: &[u8]) -> Outgoing {
    let mut properties = Properties::default();
    properties.push(names::TARGET_CLIENT, &escape(client_id));
    Outgoing {
        body: Bytes::copy_from_slice(frame),
        tag: Some(client_tag(client_id)),
        properties,
        ..Outgoing::default()
    }
}

/// Says that everything for the client up to this offset of its queue has been given to it.
fn taken(client_id: &str, offset: i64) -> Outgoing {
    let mut properties = Properties::default();
    properties.push(names::TARGET_CLIENT, &escape(client_id));
    properties.push_display(names::TAKEN, offset);
    Outgoing {
        body: Bytes::from_static(b"taken"),
        tag: Some(client_tag(client_id)),
        properties,
        ..Outgoing::default()
    }
}
