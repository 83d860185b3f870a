//! What is shown of the cluster: in the status, by `mosquitto-rocketmq nodes` and by `mosquitto-rocketmq clients`. The names are stable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::core::{Core, Counters};
use super::members::Now;
pub(crate) use super::members::State;
use super::presence::Entry;
pub(crate) use super::wire::Load;
use super::wire::cause_text;

/// The section `cluster` of the status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// The cluster's name.
    pub(crate) name: String,
    /// This node takes part. Else it has just started, hears nothing, or another works under its id.
    pub(crate) is_at_work: bool,
    /// Another process works under this node's id, and this one does not.
    pub(crate) is_refused: bool,
    /// Since when our own heartbeats don't come back (Unix milliseconds): what is said of the others is of that time.
    pub(crate) stale_since_ms: Option<u64>,
    /// All nodes, this one among them.
    pub(crate) nodes: Vec<Node>,
    /// Clients that are connected to this node, and to all of them.
    pub(crate) clients_here: u64,
    pub(crate) clients: u64,
    /// Sessions of this node, their different filters, and about the memory that they take.
    pub(crate) sessions: u64,
    pub(crate) filters: u64,
    pub(crate) sessions_bytes: u64,
    /// How many tags of the shared messages are read; nothing: all.
    pub(crate) interest_tags: Option<u64>,
    /// Topics with a retained message that all nodes have.
    pub(crate) retained_topics: u64,
    /// Shared subscriptions (`$share`) with a member here.
    pub(crate) shared_subscriptions: u64,
    /// Messages that are kept for clients that are nowhere, and the clients.
    pub(crate) kept_messages: u64,
    pub(crate) kept_clients: u64,
    /// Clients that are yet to be told of, and to be published.
    pub(crate) to_tell: u64,
    pub(crate) to_publish: u64,
    /// Since the sidecar started.
    pub(crate) counters: Counters,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) node: String,
    /// Its state.
    pub(crate) state: State,
    /// Since when, Unix milliseconds.
    pub(crate) since_ms: u64,
    /// It is the one that was asked.
    pub(crate) is_this: bool,
    /// When it was heard last, Unix milliseconds; 0: never.
    pub(crate) heard_ms: u64,
    /// When its sidecar began, by its clock.
    pub(crate) started_ms: u64,
    /// Of its program.
    pub(crate) version: String,
    /// Of its heartbeats.
    pub(crate) seq: u64,
    /// What it has to do.
    #[serde(flatten)]
    pub(crate) load: Load,
    /// Its clients as known here.
    pub(crate) clients_known: u64,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    /// Its id.
    pub(crate) client: String,
    /// Where it is, or was last.
    pub(crate) node: String,
    /// Whether it is connected.
    pub(crate) online: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
    /// Since when, Unix milliseconds by its node's clock.
    pub(crate) at_ms: u64,
    /// Orders its logins in the cluster.
    pub(crate) login: u64,
}

/// Which clients are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// This one alone.
    pub(crate) id: Option<String>,
    /// Those of this node.
    pub(crate) node: Option<String>,
    /// Those behind this one, by the order of the ids.
    pub(crate) after: Option<String>,
}

/// Clients in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clients {
    /// At most [`CLIENTS_MAX`].
    pub(crate) clients: Vec<Client>,
    /// There are more behind the last one.
    pub(crate) has_more: bool,
}

/// Clients told at once.
pub(crate) const CLIENTS_MAX: usize = 5_000;

impl Core {
    pub(super) fn fill(&self, report: &mut Report, now: Now) {
        let mut known: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, entry) in self.table.iter().filter(|(_, entry)| entry.is_online) {
            *known.entry(self.table.node_of(entry)).or_default() += 1;
        }
        let members = &self.members;
        report.is_at_work = members.is_at_work(now);
        report.is_refused = members.is_refused;
        report.stale_since_ms = members.stale_since.map(|since| since.unix_ms);
        report.clients = known.values().sum();
        report.clients_here = known.get(self.node.as_str()).copied().unwrap_or(0);
        let (to_tell, to_publish) = self.table.waiting();
        (report.to_tell, report.to_publish) = (to_tell as u64, to_publish as u64);
        report.counters = self.counters.clone();
        let of_beat = |beat: &super::wire::Beat| Node {
            node: beat.node.clone(),
            state: State::Alive,
            since_ms: beat.started_ms,
            is_this: true,
            heard_ms: 0,
            started_ms: beat.started_ms,
            version: beat.version.clone(),
            seq: beat.seq,
            load: beat.load.clone(),
            clients_known: known.get(beat.node.as_str()).copied().unwrap_or(0),
        };
        let peers = members.peers.values().map(|peer| Node {
            state: peer.state,
            since_ms: peer.since_ms,
            is_this: false,
            heard_ms: peer.heard_ms,
            ..of_beat(&peer.beat)
        });
        report.nodes = peers.chain([of_beat(&members.own)]).collect();
        report.nodes.sort_by(|a, b| a.node.cmp(&b.node));
    }

    pub(super) fn clients(&self, wanted: &Wanted) -> Clients {
        let shown = |(client, entry): (&str, &Entry)| Client {
            client: client.to_owned(),
            node: self.table.node_of(entry).to_owned(),
            online: entry.is_online,
            cause: (!entry.is_online).then(|| cause_text(entry.cause)),
            at_ms: entry.at_ms,
            login: entry.version,
        };
        if let Some(id) = &wanted.id {
            let found = self.table.get(id).map(|entry| shown((id, entry)));
            return Clients {
                clients: found.into_iter().collect(),
                has_more: false,
            };
        }
        let is_wanted = |(client, entry): &(&str, &Entry)| {
            let is_there = |node: &String| node == self.table.node_of(entry);
            entry.is_online
                && wanted.node.as_ref().is_none_or(is_there)
                && wanted.after.as_deref().is_none_or(|after| *client > after)
        };
        let mut found: Vec<_> = self.table.iter().filter(is_wanted).collect();
        let has_more = found.len() > CLIENTS_MAX;
        if has_more {
            found.select_nth_unstable_by_key(CLIENTS_MAX, |(client, _)| *client);
            found.truncate(CLIENTS_MAX);
        }
        found.sort_unstable_by_key(|(client, _)| *client);
        Clients {
            clients: found.into_iter().map(shown).collect(),
            has_more,
        }
    }
}
