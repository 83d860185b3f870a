//! What this node knows of its clients and of the other nodes.
//!
//! ```text
//! plugin ─▶ events/ ─▶ event thread ─▶ sessions, kept in cluster.sessions ─▶ what is of interest ─▶ downlink
//! ```

mod events;
mod filters;
mod interest;
mod journal;
mod sessions;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::config::Config;
use protocol::message::What;
use rocketmq::Interest;
use tokio::sync::watch;

use crate::metrics::unix_ms;
use events::{EventCounters, EventThread, Interests, Listener};
use journal::Journal;
use sessions::Sessions;

/// What was kept, before anything runs.
pub(crate) struct Prepared {
    config: Arc<Config>,
    journal: Journal,
    sessions: Sessions,
    interests: Arc<Interests>,
}

impl Prepared {
    /// Reads what was kept. Nothing for a node that belongs to no cluster.
    ///
    /// # Errors
    /// When `cluster.sessions` in the spool can't be read or written.
    pub(crate) fn open(config: &Arc<Config>) -> io::Result<Option<Prepared>> {
        if config.cluster.is_none() {
            return Ok(None);
        }
        let (journal, mut sessions) = Journal::open(&config.spool_dir, unix_ms())?;
        sessions.wanted.take_change();
        Ok(Some(Prepared {
            config: Arc::clone(config),
            interests: Arc::new(Interests::new(sessions.wanted.interest())),
            journal,
            sessions,
        }))
    }

    /// What is of interest of the shared messages.
    pub(crate) fn interest(&self) -> watch::Receiver<Arc<Interest>> {
        self.interests.subscribe()
    }

    /// Begins to work.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(self) -> io::Result<ClusterHandle> {
        let stop = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(EventCounters::default());
        let listener: Listener = Box::new(|event| match event.what {
            What::Online { login, .. } => login,
            _ => 0,
        });
        let thread = EventThread {
            spool_dir: self.config.spool_dir.clone(),
            journal: self.journal,
            sessions: self.sessions,
            interests: self.interests,
            counters,
            stop: Arc::clone(&stop),
            listener,
            swept_ms: 0,
        };
        let thread = std::thread::Builder::new()
            .name("cluster-events".to_owned())
            .spawn(move || thread.run())?;
        Ok(ClusterHandle { stop, thread })
    }
}

/// The running part.
pub(crate) struct ClusterHandle {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ClusterHandle {
    /// Ends everything. False when it did not end in time; what was not kept is read again then.
    pub(crate) async fn stop(self, limit: Duration) -> bool {
        self.stop.store(true, Relaxed);
        let deadline = Instant::now() + limit;
        while !self.thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.thread.is_finished()
    }
}

#[cfg(test)]
mod tests;
