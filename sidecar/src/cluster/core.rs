//! The judgement of it all: takes what is heard, says what is to be told, published and closed. It does nothing by itself, and knows no
//! clock but the one it is given.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use protocol::config::Config;
use protocol::message::{Event, What};
use serde::{Deserialize, Serialize};

use super::arrivals::Arrivals;
use super::members::{Change, Members, Now};
use super::presence::{Heard, Learned, Table};
use super::sessions::Sessions;
use super::wire::{Beat, News, NodeMessage, OFFLINE, ONLINE, SNAPSHOT, Snapshot, cause};
use crate::missed::Request;

/// How long a node is given to tell which clients it has, before it is asked (again).
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often clients are forgotten that are long away.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// A dead node's clients are told once more by the next node, if the one that should have told it dies within this time.
const TOLD_AGAIN_MS: u64 = 60_000;

/// What is counted since the sidecar began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    pub(crate) events_read: u64,
    pub(crate) events_damaged: u64,
    pub(crate) heartbeats_sent: u64,
    pub(crate) heartbeats_failed: u64,
    pub(crate) heartbeats_heard: u64,
    pub(crate) presence_sent: u64,
    pub(crate) presence_failed: u64,
    pub(crate) presence_heard: u64,
    pub(crate) presence_published: u64,
    pub(crate) snapshots_asked: u64,
    pub(crate) snapshots_sent: u64,
    pub(crate) snapshots_heard: u64,
    pub(crate) takeovers: u64,
    pub(crate) moved_clients: u64,
    pub(crate) moved_messages: u64,
    pub(crate) not_understood: u64,
}

/// A connection of ours that is to be closed: the client, and its login as the plugin knows it.
pub(super) type Close = (Box<str>, u64);

/// What a node has told of its clients as a whole.
#[derive(Debug, Default)]
struct Told {
    /// The epoch of which all is known.
    epoch: u64,
    /// The snapshot that comes: epoch, number, next part.
    coming: Option<(u64, u64, u64)>,
    asked: Option<Instant>,
    /// The epoch as of which its clients were given up.
    given_up: u64,
}

/// Our clients as they are told: those still to be told, and the number of it all.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) left: VecDeque<Box<str>>,
    pub(super) seq: u64,
    pub(super) part: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) node: String,
    /// The life of this node: see [`News::epoch`].
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) members: Members,
    pub(super) table: Table,
    pub(super) counters: Counters,
    pub(super) presence_topic: Option<String>,
    pub(super) closes: VecDeque<Close>,
    pub(super) telling: Option<Telling>,
    /// All our clients are to be told once more.
    pub(super) is_snapshot_wanted: bool,
    asks: VecDeque<NodeMessage>,
    arrivals: Arrivals,
    told: BTreeMap<String, Told>,
    forgot: Instant,
}

impl Core {
    pub(super) fn new(config: &Config, spool: &str, instance: &str, now: Now) -> Core {
        let own = Beat {
            node: config.node_id.clone(),
            spool: spool.to_owned(),
            instance: instance.to_owned(),
            started_ms: now.unix_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Beat::default()
        };
        Core {
            node: config.node_id.clone(),
            epoch: now.unix_ms,
            seq: 0,
            members: Members::new(own, config.cluster_node_timeout),
            table: Table::new(&config.node_id, config.cluster_presence.is_some()),
            counters: Counters::default(),
            presence_topic: config.cluster_presence.clone(),
            closes: VecDeque::new(),
            telling: None,
            is_snapshot_wanted: true,
            asks: VecDeque::new(),
            arrivals: Arrivals::default(),
            told: BTreeMap::new(),
            forgot: now.at,
        }
    }

    /// Takes up the clients that were connected when the sidecar before ended.
    pub(super) fn restore(&mut self, sessions: &Sessions, now: Now) {
        for (client, session) in sessions.iter() {
            if session.login > 0 && session.is_online() {
                let (login, version) = (session.login, session.version);
                self.table.set_own(client, login, version, now.unix_ms);
            }
        }
    }

    /// Something has happened in Mosquitto. Gives the version of a login, and what is to be read for a client that comes from elsewhere.
    pub(super) fn event(&mut self, event: &Event<'_>) -> (u64, Option<Request>) {
        let request = self.arrivals.follow(event, &self.table, &self.members);
        (self.note(event), request)
    }

    fn note(&mut self, event: &Event<'_>) -> u64 {
        match event.what {
            What::Online {
                client_id, login, ..
            } => self.table.log_in(client_id, login, event.at_ms),
            What::Offline {
                client_id,
                login,
                cause,
                session_stays,
            } => {
                self.table
                    .log_out(client_id, login, cause, session_stays, event.at_ms);
                0
            }
            What::Started { .. } => {
                let ours = self.table.online_at(&self.node);
                let ours: Vec<(Box<str>, u64)> = ours
                    .map(|(client, entry)| (client.into(), entry.login))
                    .collect();
                for (client, login) in ours {
                    self.table
                        .log_out(&client, login, cause::RESTARTED, false, event.at_ms);
                }
                0
            }
            _ => 0,
        }
    }

    /// Takes what was said on the nodes' topic.
    pub(super) fn node_message(&mut self, body: &[u8], stored_at_ms: i64, now: Now) -> Vec<Change> {
        let Ok(message) = serde_json::from_slice::<NodeMessage>(body) else {
            self.counters.not_understood += 1;
            return Vec::new();
        };
        match message {
            NodeMessage::Beat(beat) => {
                self.counters.heartbeats_heard += 1;
                let changes = self.members.heard(&beat, stored_at_ms, now);
                self.follow(&changes, now);
                changes
            }
            NodeMessage::Leave { node, instance } => self
                .members
                .left(&node, &instance, now)
                .into_iter()
                .collect(),
            NodeMessage::Ask {
                node,
                of,
                above_epoch,
            } => {
                if of == self.node && node != self.node {
                    self.be_above(above_epoch, now);
                    self.is_snapshot_wanted = true;
                }
                Vec::new()
            }
        }
    }

    /// What we tell from now on counts more than what was told of us as of that epoch.
    fn be_above(&mut self, epoch: u64, now: Now) {
        if self.epoch <= epoch {
            self.begin_epoch(epoch, now);
        }
    }

    fn begin_epoch(&mut self, above: u64, now: Now) {
        self.epoch = now.unix_ms.max(above.saturating_add(1)).max(self.epoch + 1);
        self.seq = 0;
        self.telling = None;
        self.is_snapshot_wanted = true;
    }

    /// Takes what was said of clients.
    pub(super) fn presence_message(&mut self, tag: Option<&str>, body: &[u8], now: Now) {
        let is_read = match tag {
            Some(ONLINE | OFFLINE) => serde_json::from_slice(body)
                .map(|news| self.news(&news, now))
                .is_ok(),
            Some(SNAPSHOT) => serde_json::from_slice(body)
                .map(|snapshot| self.snapshot(&snapshot, now))
                .is_ok(),
            _ => false,
        };
        if !is_read {
            self.counters.not_understood += 1;
        }
    }

    fn news(&mut self, news: &News, now: Now) {
        self.counters.presence_heard += 1;
        if news.node == self.node {
            // Others take us for dead, and we are not.
            if news.by != self.node && !news.online && news.epoch >= self.epoch {
                self.be_above(news.epoch, now);
            }
            return;
        }
        let heard = Heard {
            node: &news.node,
            version: news.login,
            epoch: news.epoch,
            seq: news.seq,
            is_online: news.online,
            cause: news.cause_code,
            session_stays: news.session_stays,
            at_ms: news.at_ms,
        };
        self.learn(&news.client, &heard);
    }

    fn learn(&mut self, client: &str, heard: &Heard<'_>) {
        let known = self.table.get(client);
        let is_ours_online = known.is_some_and(|known| Table::is_ours(known) && known.is_online);
        if is_ours_online && !heard.is_online {
            // That login is over, so it can't have taken ours over: ours is the later one, whatever the clocks say.
            if known.is_some_and(|known| (heard.version, heard.node) > (known.version, &self.node))
            {
                self.table.raise(client, heard.version);
            }
            return;
        }
        match self.table.learn(client, heard) {
            Learned::Supersedes { login } => {
                self.counters.takeovers += 1;
                self.closes.push_back((client.into(), login));
            }
            Learned::Stale if heard.is_online => self.correct(client, heard),
            _ => {}
        }
    }

    /// A node believes in a login that we know to be older than another one: it is told of that.
    fn correct(&mut self, client: &str, heard: &Heard<'_>) {
        let Some(known) = self.table.get(client) else {
            return;
        };
        let node = self.table.node_of(known);
        if node == heard.node {
            return;
        }
        let is_living = self
            .members
            .peers
            .get(node)
            .is_some_and(|peer| peer.is_living());
        if Table::is_ours(known) || (!is_living && self.members.is_lowest()) {
            self.table.tell(client);
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, now: Now) {
        if snapshot.node == self.node {
            return;
        }
        for (client, version, at_ms) in &snapshot.clients {
            let heard = Heard {
                node: &snapshot.node,
                version: *version,
                epoch: snapshot.epoch,
                seq: snapshot.seq,
                is_online: true,
                cause: 0,
                session_stays: false,
                at_ms: *at_ms,
            };
            self.learn(client, &heard);
        }
        let told = self.told.entry(snapshot.node.clone()).or_default();
        let this = (snapshot.epoch, snapshot.seq);
        match told.coming {
            Some((epoch, seq, next)) if (epoch, seq) == this => {
                if snapshot.part < next {
                    // Sent twice.
                    return;
                }
                // With a gap it is no whole one: it is asked for again.
                told.coming = (snapshot.part == next).then_some((epoch, seq, next + 1));
            }
            _ => told.coming = (snapshot.part == 0).then_some((this.0, this.1, 1)),
        }
        if snapshot.is_last && told.coming.take().is_some() {
            self.counters.snapshots_heard += 1;
            told.epoch = told.epoch.max(snapshot.epoch);
            let (epoch, seq) = this;
            self.table
                .only_told(&snapshot.node, epoch, seq, now.unix_ms);
        }
    }

    /// Judges by the time. To be called several times a second.
    pub(super) fn tick(&mut self, now: Now) -> Vec<Change> {
        let changes = self.members.judge(now);
        self.follow(&changes, now);
        if self.members.is_hearing() && !self.members.is_refused {
            self.ask(now);
        }
        if now.at.saturating_duration_since(self.forgot) >= FORGET_EVERY {
            self.forgot = now.at;
            self.table.forget(now.unix_ms);
            self.arrivals.forget(now.unix_ms);
        }
        self.members.own.epoch = self.epoch;
        changes
    }

    fn follow(&mut self, changes: &[Change], now: Now) {
        for change in changes {
            match change {
                Change::Dead(node) => self.give_up(node, cause::NODE_LOST, now),
                Change::Gone(node) => self.give_up(node, cause::NODE_LEFT, now),
                Change::RivalGone => self.begin_epoch(0, now),
                // The others have taken us for dead meanwhile.
                Change::ViewBack(time) if *time >= self.members.timeout() => {
                    self.begin_epoch(0, now);
                }
                _ => {}
            }
        }
    }

    /// A node is gone, and its clients with it. All nodes judge so for themselves; the lowest tells it to everybody else.
    fn give_up(&mut self, node: &str, cause: u8, now: Now) {
        let peer = self.members.peers.get(node);
        let epoch = peer.map_or(0, |peer| peer.beat.epoch);
        // Since then they have got nothing.
        let at_ms = peer.map_or(now.unix_ms, |peer| peer.heard_ms);
        let told = self.told.entry(node.to_owned()).or_default();
        told.given_up = told.given_up.max(epoch);
        let mut over = self.table.give_up(node, epoch, cause, at_ms);
        if !self.members.is_lowest() {
            return;
        }
        // The lowest until now may have died before it could tell of another.
        let again = self.table.iter().filter(|(_, entry)| {
            !entry.is_online
                && matches!(entry.cause, cause::NODE_LOST | cause::NODE_LEFT)
                && entry.at_ms.saturating_add(TOLD_AGAIN_MS) >= now.unix_ms
        });
        over.extend(again.map(|(client, _)| Box::from(client)));
        for client in over {
            self.table.tell(&client);
        }
    }

    /// Asks the living whose clients are not all known.
    fn ask(&mut self, now: Now) {
        for (node, peer) in &self.members.peers {
            let told = self.told.entry(node.clone()).or_default();
            let is_known = told.epoch >= peer.beat.epoch && told.epoch > told.given_up;
            if !peer.is_living() || is_known {
                continue;
            }
            let asked = told.asked;
            if asked.is_none_or(|at| now.at.saturating_duration_since(at) >= ASK_EVERY) {
                told.asked = Some(now.at);
                self.counters.snapshots_asked += 1;
                self.asks.push_back(NodeMessage::Ask {
                    node: self.node.clone(),
                    of: node.clone(),
                    above_epoch: told.given_up,
                });
            }
        }
    }

    /// What is to be asked of other nodes.
    pub(super) fn take_asks(&mut self) -> Vec<NodeMessage> {
        self.asks.drain(..).collect()
    }
}

#[cfg(test)]
#[path = "tests/core.rs"]
mod tests;
