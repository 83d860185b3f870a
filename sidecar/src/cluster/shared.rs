//! What the tasks share: the core, what it works with, and what is shown and logged of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::cluster::{
    CARRIERS, Carrier, NATIVE_BRIDGES, NativeBridge, Topics, carriers_of, native_bridges_of,
};
use protocol::config::Config;
use rocketmq::{Backbone, Error};
use tokio::sync::{Notify, watch};

use super::Lost;
use super::core::Core;
use super::events::{EventCounters, Interests};
use super::members::{Change, Now};
use super::report::{Clients, Report, Wanted};
use super::wire::Load;
use crate::downlink::Replays;
use crate::health::{Reason, what};
use crate::inbox::{Place, Places};
use crate::metrics::{Metrics, unix_ms};
use crate::missed::Request;

/// After this a node that starts should have heard itself: topics that come into being are looked for every few seconds.
const FIRST_ECHO_MS: u64 = 15_000;

/// What all tasks share.
pub(crate) struct Shared {
    pub(super) core: Mutex<Core>,
    pub(super) name: String,
    pub(super) topics: Topics,
    /// The consumer group of this node for what the nodes tell.
    pub(super) group: String,
    pub(super) interests: Arc<Interests>,
    pub(super) events: Arc<EventCounters>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) backbone: Arc<dyn Backbone>,
    pub(super) replays: Replays,
    pub(super) stop: watch::Sender<bool>,
    /// There may be something to tell the others, and something for Mosquitto.
    pub(super) to_tell: Notify,
    pub(super) to_publish: Notify,
    /// What RocketMQ said last when a message of ours did not go.
    pub(super) failure: Mutex<Option<String>>,
    pub(super) lost: Arc<Lost>,
    pub(super) started_ms: u64,
    pub(super) spool_dir: PathBuf,
}

/// The clients that the plugin takes for native bridges between nodes when it starts.
pub(super) fn kept_carriers(spool_dir: &Path) -> Vec<Carrier> {
    carriers_of(&std::fs::read(spool_dir.join(CARRIERS)).unwrap_or_default())
}

pub(super) fn now() -> Now {
    Now {
        at: Instant::now(),
        unix_ms: unix_ms(),
    }
}

impl Places for Shared {
    fn place(&self, client_id: &str) -> Place {
        self.core().place(client_id)
    }

    fn is_lowest(&self) -> bool {
        let core = self.core();
        core.members.is_hearing() && core.members.is_lowest()
    }
}

impl Shared {
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Sleeps, but not past a stop.
    pub(super) async fn pause(&self, time: Duration) {
        let mut stop = self.stop.subscribe();
        let _ = tokio::time::timeout(time, stop.wait_for(|is_stopping| *is_stopping)).await;
    }

    /// Wakes whoever has something to do after a change.
    pub(super) fn wake(&self) {
        self.to_tell.notify_one();
        self.to_publish.notify_one();
    }

    pub(super) fn load(&self) -> Load {
        let waits = |log: &crate::metrics::LogGauges| {
            let (released, end) = (log.released.load(Relaxed), log.end.load(Relaxed));
            end.saturating_sub(released)
        };
        let health = self.metrics.health.lock();
        let health = health.unwrap_or_else(PoisonError::into_inner);
        Load {
            clients: 0,
            uplink_bytes: waits(&self.metrics.uplink_log),
            downlink_bytes: waits(&self.metrics.downlink_log),
            degraded: health
                .reasons
                .iter()
                .map(|reason| reason.what.clone())
                .collect(),
        }
    }

    /// The section of the status.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report {
            name: self.name.clone(),
            sessions: self.events.sessions.load(Relaxed),
            filters: self.events.filters.load(Relaxed),
            sessions_bytes: self.events.bytes.load(Relaxed),
            interest_tags: self.interests.tags().map(|tags| tags as u64),
            ..Report::default()
        };
        self.core().fill(&mut report, now());
        report.shared_subscriptions = self.core().groups.len() as u64;
        if let Some(inbox) = &self.lost.inbox {
            (report.kept_messages, report.kept_clients) = inbox.kept_now();
        }
        report.retained_topics = self.lost.retained.len() as u64;
        if let Some(missed) = &self.lost.missed {
            report.counters.moved_clients = missed.counters.clients.load(Relaxed);
            report.counters.moved_messages = missed.counters.messages.load(Relaxed);
        }
        report.counters.events_read = self.events.read.load(Relaxed);
        report.counters.events_damaged = self.events.damaged.load(Relaxed);
        report
    }

    /// Clients of the cluster.
    pub(crate) fn clients(&self, wanted: &Wanted) -> Clients {
        self.core().clients(wanted)
    }

    /// What is wrong, if anything is.
    pub(crate) fn problem(&self) -> Option<Reason> {
        let core = self.core();
        let members = &core.members;
        if members.is_refused {
            let detail = format!(
                "another broker works as node {}: give each its own node_id",
                core.node
            );
            return Some(Reason::new(what::NODE_ID_TWICE, self.started_ms, detail));
        }
        let timeout_ms = members.timeout().as_millis() as u64;
        let (since_ms, patience_ms) = match members.stale_since {
            Some(since) => (since.unix_ms, timeout_ms),
            None if members.is_hearing() => return None,
            None => (self.started_ms, timeout_ms.max(FIRST_ECHO_MS)),
        };
        if unix_ms().saturating_sub(since_ms) < patience_ms {
            return None;
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let detail = format!(
            "this node does not hear its own heartbeats on {}, so nothing is known of the others: {}",
            self.topics.nodes,
            failure.as_deref().unwrap_or("nothing comes back")
        );
        Some(Reason::new(what::CLUSTER_AWAY, since_ms, detail))
    }

    /// The native bridges of our own broker, as its plugin has told them last.
    pub(super) fn own_bridges(&self) -> Vec<NativeBridge> {
        let text = std::fs::read(self.spool_dir.join(NATIVE_BRIDGES)).unwrap_or_default();
        native_bridges_of(&text)
    }

    /// Writes for the plugin's next start which clients are native bridges between nodes.
    pub(super) fn keep_carriers(&self) {
        let Some(text) = self.core().carriers.take_text() else {
            return;
        };
        let path = self.spool_dir.join(CARRIERS);
        let fresh = path.with_extension("carriers.new");
        let written = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path));
        if let Err(error) = written {
            log::debug!("{} can't be written yet: {error}", path.display());
            self.core().carriers.not_written();
        }
    }

    /// The rules are others.
    pub(crate) fn reload(&self, config: &Config) {
        self.core().reload(config);
    }

    pub(super) fn failed(&self, what: &str, error: Option<&Error>) {
        let text = error.map(|error| format!("{what}: {error}"));
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if *failure != text {
            match &text {
                Some(text) => log::debug!("cluster: {text}"),
                None => log::debug!("cluster: messages go again"),
            }
            *failure = text;
        }
    }

    fn say(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Joined(node) => log::info!("cluster: node {node} is there"),
                Change::Suspect(node) => log::warn!("cluster: node {node} is silent"),
                Change::Recovered(node) => log::info!("cluster: node {node} is heard again"),
                Change::Dead(node) => {
                    log::warn!("cluster: node {node} is dead: its clients count as offline");
                }
                Change::Left(node) => log::info!("cluster: node {node} has left"),
                Change::Gone(node) => {
                    log::info!(
                        "cluster: node {node} has not come back: its clients count as offline"
                    );
                }
                Change::Back(node) => log::info!("cluster: node {node} is back"),
                Change::ViewLost => log::warn!(
                    "cluster: this node does not hear itself through RocketMQ; nothing is known of the others"
                ),
                Change::ViewBack(time) => {
                    log::info!(
                        "cluster: this node hears itself again, after {} s",
                        time.as_secs()
                    );
                }
                Change::Rival {
                    instance,
                    spool,
                    is_refused,
                } => self.say_rival(instance, spool, *is_refused),
                Change::RivalGone => {
                    log::info!(
                        "cluster: the other broker of our node id is gone; this one works again"
                    );
                }
            }
        }
    }

    fn say_rival(&self, instance: &str, spool: &str, is_refused: bool) {
        let node = &self.core().node;
        if is_refused {
            log::error!(
                "cluster: another broker works as node {node} (spool {spool}, process {instance}) and was there before this one: this node takes no part in the cluster until that one is gone. Give each broker its own node_id"
            );
        } else {
            log::error!(
                "cluster: another broker works as node {node} (spool {spool}, process {instance}), began later, and takes no part. Give each broker its own node_id"
            );
        }
    }

    /// Has read once more what shared subscriptions need.
    pub(super) fn reread(&self) {
        for reread in self.core().take_rereads() {
            self.lost.request(Request::Group(reread));
        }
        for request in self.core().take_requests() {
            self.lost.request(request);
        }
    }

    pub(super) fn changed(&self, changes: &[Change]) {
        self.say(changes);
        if let Some(inbox) = &self.lost.inbox {
            for change in changes {
                if let Change::Dead(node) | Change::Gone(node) = change {
                    let core = self.core();
                    let peer = core.members.peers.get(node);
                    inbox.gone(peer.map_or(0, |peer| peer.heard_ms));
                }
            }
        }
        self.interests.withhold(self.core().members.is_refused);
    }
}
