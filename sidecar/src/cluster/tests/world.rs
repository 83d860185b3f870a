//! Several nodes on a RocketMQ and a clock that the tests play.

use std::collections::BTreeSet;

use bytes::Bytes;
use protocol::message::{Command, DownlinkFrame};

use super::*;
use crate::cluster::members::State;
use crate::cluster::report::{Report, Wanted};
use crate::cluster::wire::{Load, News, SNAPSHOT};

pub(super) const BEGIN_MS: u64 = 1_000_000;
pub(super) const STEP_MS: u64 = 250;

pub(super) struct Node {
    pub(super) core: Core,
    /// How far it has read.
    pub(super) read: (usize, usize),
    /// Neither sends nor reads.
    pub(super) is_cut: bool,
    pub(super) is_dead: bool,
    /// Its clock against the others'.
    pub(super) skew_ms: u64,
    /// Logins that it was told to close.
    pub(super) closed: Vec<(String, u64)>,
    pub(super) moved: Vec<(String, u64)>,
    /// Clients that it takes for native bridges between nodes.
    pub(super) carriers: BTreeSet<String>,
    /// Payloads by topic, as its Mosquitto would keep them.
    pub(super) retained: BTreeMap<String, String>,
}

pub(super) struct World {
    pub(super) begin: Instant,
    pub(super) ms: u64,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) beats: Vec<(Bytes, i64)>,
    pub(super) presence: Vec<(Option<String>, Bytes)>,
    /// Connections, by node and client, with their logins.
    pub(super) open: BTreeMap<(String, String), u64>,
}

impl World {
    pub(super) fn new(nodes: &[&str]) -> World {
        let mut world = World {
            begin: Instant::now(),
            ms: 0,
            nodes: BTreeMap::new(),
            beats: Vec::new(),
            presence: Vec::new(),
            open: BTreeMap::new(),
        };
        for node in nodes {
            world.start(node, 0);
        }
        world.pass(3_000);
        world
    }

    pub(super) fn start(&mut self, name: &str, skew_ms: u64) {
        self.start_as(name, name, skew_ms);
    }

    /// `name` is ours; the node calls itself `id`.
    pub(super) fn start_as(&mut self, name: &str, id: &str, skew_ms: u64) {
        self.start_sharing(name, id, skew_ms, "#");
    }

    pub(super) fn start_sharing(&mut self, name: &str, id: &str, skew_ms: u64, filter: &str) {
        let options = [
            ("namesrv", "127.0.0.1:9876"),
            ("node_id", id),
            ("cluster", "factory"),
            ("share", filter),
        ];
        let config = Config::from_options(options.into_iter()).unwrap();
        let spool = format!("spool of {name}");
        let instance = format!("{name} since {}", self.ms);
        let node = Node {
            core: Core::new(
                &config,
                &spool,
                &instance,
                Arc::new(Groups::new(id)),
                self.now(skew_ms),
            ),
            read: (self.beats.len(), self.presence.len()),
            is_cut: false,
            is_dead: false,
            skew_ms,
            closed: Vec::new(),
            moved: Vec::new(),
            carriers: BTreeSet::new(),
            retained: BTreeMap::new(),
        };
        self.nodes.insert(name.to_owned(), node);
    }

    pub(super) fn now(&self, skew_ms: u64) -> Now {
        Now {
            at: self.begin + Duration::from_millis(self.ms),
            unix_ms: BEGIN_MS + self.ms + skew_ms,
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.ms + ms;
        while self.ms < until {
            self.ms += STEP_MS;
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in &names {
            let now = self.now(self.nodes[name].skew_ms);
            let node = self.nodes.get_mut(name).unwrap();
            if node.is_dead {
                continue;
            }
            node.core.tick(now);
            if !node.is_cut {
                let stored_at_ms = i64::try_from(BEGIN_MS + self.ms).unwrap();
                if self.ms.is_multiple_of(1_000) {
                    let beat = node.core.members.next_beat(now, Load::default());
                    let asks = node.core.take_asks();
                    for message in [NodeMessage::Beat(Box::new(beat))].into_iter().chain(asks) {
                        self.beats.push((message.outgoing().body, stored_at_ms));
                    }
                }
                let batch = node.core.next_presence(64, now);
                self.presence
                    .extend(batch.into_iter().map(|message| (message.tag, message.body)));
            }
        }
        for name in &names {
            let now = self.now(self.nodes[name].skew_ms);
            let node = self.nodes.get_mut(name).unwrap();
            if node.is_dead || node.is_cut {
                continue;
            }
            for (body, stored_at_ms) in &self.beats[node.read.0..] {
                node.core.node_message(body, *stored_at_ms, now);
            }
            for (tag, body) in &self.presence[node.read.1..] {
                node.core.presence_message(tag.as_deref(), body, now);
            }
            node.read = (self.beats.len(), self.presence.len());
            for frame in node.core.next_frames(1_000, now) {
                match DownlinkFrame::decode(&frame.bytes).unwrap() {
                    DownlinkFrame::Command(Command::Close {
                        client_id,
                        login,
                        reason,
                        ..
                    }) => {
                        assert_eq!(reason, cause::TAKEN_OVER);
                        node.closed.push((client_id.to_owned(), login));
                    }
                    DownlinkFrame::Command(Command::Moved {
                        client_id, login, ..
                    }) => node.moved.push((client_id.to_owned(), login)),
                    DownlinkFrame::Command(Command::Carrier {
                        client_id,
                        is_carrier,
                        ..
                    }) => {
                        let was_carrier = match is_carrier {
                            true => !node.carriers.insert(client_id.to_owned()),
                            false => node.carriers.remove(client_id),
                        };
                        assert_ne!(was_carrier, is_carrier, "told twice");
                    }
                    DownlinkFrame::Selected(_) => panic!("nobody has missed anything"),
                    DownlinkFrame::Message(message) => {
                        assert!(message.retain);
                        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                        node.retained.insert(message.topic.to_owned(), payload);
                    }
                }
            }
        }
        // The plugin closes what is still of that login, and tells so.
        for name in &names {
            for (client, login) in self.nodes[name].closed.clone() {
                if self.open.get(&(name.clone(), client.clone())) == Some(&login) {
                    self.log_out(name, &client, login, cause::TAKEN_OVER);
                }
            }
        }
    }

    pub(super) fn event(&mut self, node: &str, what: What<'_>) -> u64 {
        let at_ms = BEGIN_MS + self.ms + self.nodes[node].skew_ms;
        self.take(node, at_ms, what).0
    }

    pub(super) fn take(
        &mut self,
        node: &str,
        at_ms: u64,
        what: What<'_>,
    ) -> (u64, Option<Request>) {
        self.node(node).core.event(&Event { at_ms, what })
    }

    pub(super) fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap()
    }

    /// By the node's clock; gives the login.
    pub(super) fn log_in(&mut self, node: &str, client: &str) -> u64 {
        self.log_in_with(node, client, true)
    }

    pub(super) fn log_in_with(&mut self, node: &str, client: &str, clean: bool) -> u64 {
        let login = BEGIN_MS + self.ms + self.nodes[node].skew_ms;
        let online = What::Online {
            client_id: client,
            username: None,
            login,
            mqtt_version: 5,
            clean,
        };
        self.event(node, online);
        let place = (node.to_owned(), client.to_owned());
        self.open.insert(place, login);
        login
    }

    pub(super) fn log_out(&mut self, node: &str, client: &str, login: u64, cause: u8) {
        self.log_out_with(node, client, (login, cause), false);
    }

    pub(super) fn log_out_with(
        &mut self,
        node: &str,
        client: &str,
        (login, cause): (u64, u8),
        session_stays: bool,
    ) {
        let offline = What::Offline {
            client_id: client,
            login,
            cause,
            session_stays,
        };
        self.event(node, offline);
        self.open.remove(&(node.to_owned(), client.to_owned()));
    }

    /// Where each node says that a client is: `node`, or why it is not there.
    pub(super) fn places(&self, client: &str) -> Vec<String> {
        let living = self.nodes.values().filter(|node| !node.is_dead);
        let place = |node: &Node| {
            let wanted = Wanted {
                id: Some(client.to_owned()),
                ..Wanted::default()
            };
            match &node.core.clients(&wanted).clients[..] {
                [] => "unknown".to_owned(),
                [found, ..] => found.cause.clone().unwrap_or_else(|| found.node.clone()),
            }
        };
        living.map(place).collect()
    }

    pub(super) fn states(&self, by: &str) -> Vec<(String, State)> {
        let mut report = Report::default();
        let node = &self.nodes[by];
        node.core.fill(&mut report, self.now(node.skew_ms));
        let nodes = report.nodes.into_iter();
        nodes.map(|node| (node.node, node.state)).collect()
    }

    /// What was told of a client, in the order in which RocketMQ has it.
    pub(super) fn told(&self, client: &str) -> Vec<(String, bool, String)> {
        let news = self
            .presence
            .iter()
            .filter(|(tag, _)| tag.as_deref() != Some(SNAPSHOT));
        news.map(|(_, body)| serde_json::from_slice::<News>(body).unwrap())
            .filter(|news| news.client == client)
            .map(|news| (news.node, news.online, news.by))
            .collect()
    }
}
