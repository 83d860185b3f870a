//! A client with a session that was away from the whole cluster, or whose node is gone, and comes to this node: what it missed is read from RocketMQ, and given to
//! it alone.
//!
//! Mosquitto knows nothing of its old session. Once it has subscribed again, the messages published since it went are read once more, and those that neither came
//! nor will come by the new subscription are published again for it alone, in order: it gets them by that subscription, and no message that it may not read. What is
//! published meanwhile may come between.
//!
//! In the same way a broker that was killed gets the retained messages again that it had not saved.
//!
//! Which ones those are that a client has missed is told by the logs: a subscription brings what is injected behind it (the plugin tells where that was), and of this node's own
//! messages what was published behind it.

mod group;
mod handed;
mod job;
mod kept;
mod reader;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::config::Config;
use rocketmq::Backbone;
use tokio::sync::mpsc;

use crate::downlink::Replays;
use crate::groups::{Groups, Reread};
use crate::mapping::downlink::Context;
pub(crate) use handed::Handed;
pub(crate) use job::Want;
use kept::Kept;
use reader::Reader;

/// What the status tells.
#[derive(Debug, Default)]
pub(crate) struct MissedCounters {
    /// Clients that were served.
    pub(crate) clients: AtomicU64,
    /// Messages given to them.
    pub(crate) messages: AtomicU64,
}

/// What is to be read once more.
#[derive(Debug)]
pub(crate) enum Request {
    /// What a client has missed, that has subscribed now.
    Client(Want),
    /// The broker's retained messages, since this time (Unix milliseconds).
    Retained(u64),
    /// What a shared subscription is to get here.
    Group(Reread),
}

/// Where requests are put.
#[derive(Clone)]
pub(crate) struct Missed {
    requests: mpsc::UnboundedSender<Request>,
    kept: Arc<Mutex<Kept>>,
    pub(crate) counters: Arc<MissedCounters>,
}

impl Missed {
    /// Has it read. When this returns, it will be, also by the sidecar after this one; but for groups, which the other nodes take over then.
    pub(crate) fn request(&self, request: Request) {
        // In one order, here and there.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.add(&request);
        // Nobody takes them while the sidecar ends.
        let _ = self.requests.send(request);
    }
}

/// Starts the task that serves requests. It ends with the runtime. Nothing for a node that shares nothing.
///
/// # Errors
/// When the file of what is yet to be served can't be read or written.
pub(crate) fn start(
    config: &Config,
    backbone: Arc<dyn Backbone>,
    handed: Arc<Handed>,
    groups: Arc<Groups>,
    replays: Replays,
) -> io::Result<Option<Missed>> {
    let Some(rule) = config.shared_downlink() else {
        return Ok(None);
    };
    let (kept, unserved) = Kept::open(&config.spool_dir)?;
    let kept = Arc::new(Mutex::new(kept));
    let (requests, incoming) = mpsc::unbounded_channel();
    for request in unserved {
        let _ = requests.send(request);
    }
    let counters = Arc::new(MissedCounters::default());
    let reader = Reader {
        rule,
        group: format!("{}_MISSED", config.group),
        node_id: config.node_id.clone(),
        context: Context {
            // Whoever published it: the client was not here.
            node_id: String::new(),
            layout: config.layout,
        },
        backbone,
        handed,
        groups,
        replays,
        kept: Arc::clone(&kept),
        counters: Arc::clone(&counters),
    };
    tokio::spawn(reader.run(incoming));
    Ok(Some(Missed {
        requests,
        kept,
        counters,
    }))
}
