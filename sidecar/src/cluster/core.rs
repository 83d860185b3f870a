//! The judgement of it all: takes what is heard, says what is to be told, published and closed. It does nothing by itself, and knows no
//! clock but the one it is given.

mod sharing;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::config::Config;
use protocol::message::{Event, What};
use serde::{Deserialize, Serialize};

use super::arrivals::{Arrivals, Known};
use super::carriers::{self, Carriers};
use super::here::Here;
use super::members::{Change, Members, Now, Peer};
use super::presence::Table;
use super::sessions::Sessions;
use super::wire::{Beat, NodeMessage, cause};
use crate::groups::{Groups, Reread};
use crate::inbox::Place;
use crate::missed::Request;

/// How long a node is given to tell which clients it has, before it is asked (again).
const ASK_EVERY: Duration = Duration::from_secs(5);
/// By then a node that has started knows all clients, or there is something wrong.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
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

/// A connection of ours that is to be closed, or a session that is to get nothing: the client, and its login as the plugin knows it.
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

impl Told {
    /// All clients of the node are known.
    fn is_known(&self, peer: &Peer) -> bool {
        self.epoch >= peer.beat.epoch && self.epoch > self.given_up
    }
}

/// Our clients as they are told: those still to be told, and the number of it all.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) left: VecDeque<Box<str>>,
    pub(super) away: VecDeque<Box<str>>,
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
    /// Clients of ours that are on other nodes now, with their last login here.
    pub(super) moves: VecDeque<Close>,
    here: Here,
    pub(super) telling: Option<Telling>,
    /// All our clients are to be told once more.
    pub(super) is_snapshot_wanted: bool,
    asks: VecDeque<NodeMessage>,
    pub(super) arrivals: Arrivals,
    /// The clients of all other nodes are known.
    knows_all: bool,
    /// They have not been yet, and will be in a moment: this process has just begun.
    is_settling: bool,
    started: Instant,
    /// What clients have missed that came when that was not yet known.
    requests: Vec<Request>,
    /// Native bridges between nodes.
    pub(super) carriers: Carriers,
    pub(super) groups: Arc<Groups>,
    /// What is to be read once more for shared subscriptions.
    pub(super) rereads: Vec<Reread>,
    told: BTreeMap<String, Told>,
    forgot: Instant,
}

impl Core {
    pub(super) fn new(
        config: &Config,
        spool: &str,
        instance: &str,
        groups: Arc<Groups>,
        now: Now,
    ) -> Core {
        let own = Beat {
            node: config.node_id.clone(),
            spool: spool.to_owned(),
            instance: instance.to_owned(),
            started_ms: now.unix_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            share: carriers::share_id(config),
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
            moves: VecDeque::new(),
            here: Here::default(),
            telling: None,
            is_snapshot_wanted: true,
            asks: VecDeque::new(),
            arrivals: Arrivals::default(),
            knows_all: false,
            is_settling: true,
            started: now.at,
            requests: Vec::new(),
            carriers: Carriers::default(),
            groups,
            rereads: Vec::new(),
            told: BTreeMap::new(),
            forgot: now.at,
        }
    }

    /// Takes up the clients that were connected when the sidecar before ended.
    pub(super) fn restore(&mut self, sessions: &Sessions, now: Now) {
        self.here.restore(sessions);
        for (client, session) in sessions.iter() {
            let (login, version) = (session.login, session.version);
            match session.is_online() {
                _ if login == 0 => {}
                true => self.table.set_own(client, login, version, now.unix_ms),
                false => self
                    .table
                    .set_own_away(client, login, version, session.away_since_ms),
            }
        }
    }

    /// Something has happened in Mosquitto. Gives the version of a login, and what is to be read for a client that comes from elsewhere.
    pub(super) fn event(&mut self, event: &Event<'_>) -> (u64, Option<Request>) {
        let known = Known {
            table: &self.table,
            members: &self.members,
            is_all: self.knows_all,
        };
        let request = self.arrivals.follow(event, &known);
        (self.note(event), request)
    }

    fn note(&mut self, event: &Event<'_>) -> u64 {
        self.here.follow(event);
        if let What::Restored { client_id, .. } = event.what {
            let known = self.table.get(client_id);
            match known {
                Some(known) if !Table::is_ours(known) => self.has_moved(client_id),
                _ => self.table.session_is_there(client_id),
            }
        }
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
            What::Started { ran_until_ms, .. } => {
                self.carriers.started();
                let at_ms = match ran_until_ms {
                    0 => event.at_ms,
                    ms => ms.min(event.at_ms),
                };
                let ours = self.table.online_at(&self.node);
                let ours: Vec<(Box<str>, u64)> = ours
                    .map(|(client, entry)| (client.into(), entry.login))
                    .collect();
                for (client, login) in ours {
                    self.table
                        .log_out(&client, login, cause::RESTARTED, false, at_ms);
                }
                self.table.sessions_are_gone();
                0
            }
            _ => 0,
        }
    }

    /// Where a client is, for whoever has a message for it alone.
    pub(super) fn place(&self, client: &str) -> Place {
        let is_living = |node: &str| {
            let peer = self.members.peers.get(node);
            peer.is_some_and(Peer::is_living)
        };
        match self.table.get(client) {
            Some(known) if !known.is_online && !known.session_stays => {}
            Some(known) if Table::is_ours(known) => return Place::Here,
            Some(known) if is_living(self.table.node_of(known)) => return Place::Elsewhere,
            Some(_) => {}
            None if self.here.login(client).is_some() => return Place::Here,
            None => {}
        }
        match self.members.is_hearing() && self.members.is_lowest() {
            _ if self.is_settling => Place::Open,
            true => Place::Nowhere,
            false => Place::Unknown,
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
                let was_hearing = self.members.has_echo();
                let changes = self.members.heard(&beat, stored_at_ms, now);
                if !was_hearing && self.members.has_echo() {
                    self.only_living_share();
                    self.groups.news.notify_one();
                }
                self.share(&beat, stored_at_ms);
                self.follow(&changes, now);
                changes
            }
            NodeMessage::Leave { node, instance } => {
                let left = self.members.left(&node, &instance, now);
                let changes: Vec<Change> = left.into_iter().collect();
                self.follow(&changes, now);
                changes
            }
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
        self.settle_arrivals(now);
        self.carriers.judge(&self.members, &self.table, now);
        changes
    }

    fn follow(&mut self, changes: &[Change], now: Now) {
        for change in changes {
            if let Change::Dead(node) | Change::Left(node) | Change::Gone(node) = change {
                let rereads = self.groups.gone(node);
                self.rereads.extend(rereads);
            }
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
            if !peer.is_living() || told.is_known(peer) {
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
