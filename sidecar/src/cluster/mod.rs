//! What this node knows of its clients and of the other nodes.
//!
//! ```text
//! plugin ─▶ events/ ─▶ event thread ─▶ sessions, kept in cluster.sessions ─▶ what is of interest ─▶ downlink
//!                          │
//!                          ▼          ┌─▶ heartbeats, presence ─▶ RocketMQ ─▶ the other nodes
//! RocketMQ ─▶ listening ─▶ core ──────┤
//!                                     └─▶ retained presence, logins to close ─▶ downlink log ─▶ plugin
//! ```
//! Nothing here is needed for messages to get through: a node that hears nothing of the others carries them all the same.

mod arrivals;
mod carriers;
mod core;
mod events;
mod filters;
mod here;
mod interest;
mod journal;
mod members;
mod presence;
pub(crate) mod report;
mod sessions;
mod shared;
mod speak;
mod tasks;
mod wire;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::cluster::Topics;
use protocol::config::Config;
use protocol::message::What;
use protocol::topic::filter_matches;
use rocketmq::{Backbone, Interest};
use tokio::sync::{Notify, watch};

use crate::downlink::Replays;
use crate::groups::Groups;
use crate::inbox::{Inbox, Places};
use crate::metrics::{Metrics, unix_ms};
use crate::missed::{Missed, Request};
use crate::retained::Retained;
use core::Core;
use events::{EventCounters, EventThread, Interests, Listener};
use journal::Journal;
use sessions::Sessions;
pub(crate) use shared::Shared;

/// Whoever shares this shares what is for single clients.
const SOME_DIRECT_TOPIC: &str = "p2p/client";

/// Where what was lost and missed is made good.
pub(crate) struct Lost {
    /// Who wrote each retained topic last.
    pub(crate) retained: Arc<Retained>,
    /// Nothing where nothing is shared.
    pub(crate) missed: Option<Missed>,
    /// What is kept for clients; nothing where nothing is.
    pub(crate) inbox: Option<Arc<Inbox>>,
}

impl Lost {
    fn request(&self, request: Request) {
        if let Some(missed) = &self.missed {
            missed.request(request);
        }
    }
}

/// What was kept, before anything runs.
pub(crate) struct Prepared {
    config: Arc<Config>,
    name: String,
    spool: String,
    journal: Journal,
    sessions: Sessions,
    interests: Arc<Interests>,
    groups: Arc<Groups>,
}

impl Prepared {
    /// Reads what was kept. Nothing for a node that belongs to no cluster.
    ///
    /// # Errors
    /// When `cluster.sessions` or `cluster.id` in the spool can't be read or written.
    pub(crate) fn open(config: &Arc<Config>) -> io::Result<Option<Prepared>> {
        let Some(name) = config.cluster.clone() else {
            return Ok(None);
        };
        let spool = spool_id(&config.spool_dir)?;
        let (journal, mut sessions) = Journal::open(&config.spool_dir, unix_ms())?;
        let mut shares = config.share.iter();
        if shares.any(|rule| filter_matches(&rule.filter, SOME_DIRECT_TOPIC)) {
            sessions.wanted.direct_since_ms = Some(unix_ms());
        }
        sessions.wanted.take_change();
        Ok(Some(Prepared {
            config: Arc::clone(config),
            name,
            spool,
            interests: Arc::new(Interests::new(sessions.wanted.interest())),
            groups: Arc::new(Groups::new(&config.node_id)),
            journal,
            sessions,
        }))
    }

    /// What is of interest of the shared messages. It changes while the node works.
    pub(crate) fn interest(&self) -> watch::Receiver<Arc<Interest>> {
        self.interests.subscribe()
    }

    /// The shared subscriptions over all nodes.
    pub(crate) fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups)
    }

    /// Begins to work. Does not fail while RocketMQ is away. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(
        self,
        backbone: Arc<dyn Backbone>,
        metrics: Arc<Metrics>,
        replays: Replays,
        lost: Lost,
    ) -> io::Result<ClusterHandle> {
        let now = shared::now();
        let groups = Arc::clone(&self.groups);
        let mut core = Core::new(&self.config, &self.spool, &random_id()?, groups, now);
        core.restore(&self.sessions, now);
        core.carriers
            .restore(shared::kept_carriers(&self.config.spool_dir));
        let events = Arc::new(EventCounters::default());
        let lost = Arc::new(lost);
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            topics: Topics::of(&self.name),
            name: self.name,
            group: format!("{}_CLUSTER", self.config.group),
            interests: Arc::clone(&self.interests),
            events: Arc::clone(&events),
            metrics,
            backbone,
            replays,
            stop: watch::channel(false).0,
            to_tell: Notify::new(),
            to_publish: Notify::new(),
            failure: Mutex::default(),
            lost: Arc::clone(&lost),
            started_ms: now.unix_ms,
            spool_dir: self.config.spool_dir.clone(),
        });
        if let Some(inbox) = &lost.inbox {
            let places: Arc<dyn Places> = Arc::<Shared>::clone(&shared);
            inbox.set_places(places);
        }
        let listening = Arc::clone(&shared);
        let listener: Listener = Box::new(move |event| {
            if let What::Started { saved_at_ms, .. } = event.what
                && let Some(since_ms) = lost.retained.started(saved_at_ms)
            {
                lost.request(Request::Retained(since_ms));
            }
            let (version, request) = listening.core().event(event);
            if let (What::Online { client_id, .. }, Some(inbox)) = (event.what, &lost.inbox) {
                inbox.logged_in(client_id);
            }
            request
                .into_iter()
                .for_each(|request| lost.request(request));
            listening.wake();
            version
        });
        let thread = EventThread {
            spool_dir: self.config.spool_dir.clone(),
            journal: self.journal,
            sessions: self.sessions,
            interests: self.interests,
            counters: events,
            stop: shared.stop.subscribe(),
            listener,
            groups: self.groups,
            swept_ms: 0,
        };
        let thread = std::thread::Builder::new()
            .name("cluster-events".to_owned())
            .spawn(move || thread.run())?;
        let tasks = vec![
            tokio::spawn(tasks::tick(Arc::clone(&shared))),
            tokio::spawn(tasks::beat(Arc::clone(&shared))),
            tokio::spawn(tasks::tell(Arc::clone(&shared))),
            tokio::spawn(tasks::listen(Arc::clone(&shared))),
            tokio::spawn(tasks::hand_over(Arc::clone(&shared))),
        ];
        Ok(ClusterHandle {
            shared,
            thread,
            tasks,
        })
    }
}

/// The running part.
pub(crate) struct ClusterHandle {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl ClusterHandle {
    /// Where the status comes from.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Takes leave of the others and ends everything. False when it did not end in time; what was not kept is read again then.
    pub(crate) async fn stop(self, limit: Duration) -> bool {
        self.shared.stop.send_replace(true);
        let deadline = Instant::now() + limit;
        loop {
            // Whoever has just gone to sleep is woken the next time.
            self.shared.wake();
            let is_done = |task: &tokio::task::JoinHandle<()>| task.is_finished();
            if self.thread.is_finished() && self.tasks.iter().all(is_done) {
                return true;
            }
            if Instant::now() >= deadline {
                self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What tells this spool from all others: made once.
fn spool_id(spool_dir: &Path) -> io::Result<String> {
    let path = spool_dir.join("cluster.id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = random_id()?;
    let fresh = path.with_extension("id.new");
    std::fs::write(&fresh, format!("{id}\n"))?;
    std::fs::rename(fresh, path)?;
    Ok(id)
}

fn random_id() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests;
