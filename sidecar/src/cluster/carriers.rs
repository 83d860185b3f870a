//! Mosquitto's own bridges between nodes: which clients of this broker are one, so that its plugin takes nothing of what they bring that RocketMQ brings too.
//!
//! A client is one when another node has told that it has a bridge with this client id, or when a bridge of our own has been connected to another node, which
//! is seen by its id at the other end. It is kept in the spool, for the plugin to go by when Mosquitto starts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use protocol::cluster::{Carrier, NativeBridge, carriers_text};
use protocol::config::Config;

use super::core::Core;
use super::members::{Members, Now};
use super::presence::Table;
use crate::groups::group_id;

/// What was kept counts for so long without being told anew.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A bridge of our own that has been connected to no node for so long is taken to be led elsewhere, though its addresses are the same.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    /// Of our own broker; nothing: not known yet.
    own: Option<Vec<NativeBridge>>,
    /// Those of them that have been connected to other nodes, and since when they are not.
    at_nodes: BTreeMap<Carrier, Option<Instant>>,
    /// From the time before, and until when they count.
    kept: BTreeSet<String>,
    kept_until: Option<Instant>,
    /// As the plugin was told.
    told: BTreeSet<String>,
    to_tell: VecDeque<(Box<str>, bool)>,
    /// All of them.
    current: BTreeSet<Carrier>,
    /// As the plugin finds them when Mosquitto starts.
    written: BTreeSet<Carrier>,
    /// The other nodes, and whether they share the same filters as this one.
    nodes: BTreeMap<String, bool>,
}

impl Carriers {
    /// Those that the plugin has found when it started, or may have.
    pub(super) fn restore(&mut self, kept: Vec<Carrier>) {
        for carrier in &kept {
            self.told.insert(carrier.client_id.clone());
            match carrier.addresses {
                Some(_) => drop(self.at_nodes.insert(carrier.clone(), None)),
                None => drop(self.kept.insert(carrier.client_id.clone())),
            }
        }
        self.written = kept.into_iter().collect();
    }

    /// The bridges of our own broker.
    pub(super) fn set_own(&mut self, own: Vec<NativeBridge>) {
        self.own = Some(own);
    }

    /// Mosquitto has started again: the plugin knows what was written.
    pub(super) fn started(&mut self) {
        let told = self.told.iter().map(|id| (Box::from(id.as_str()), true));
        self.to_tell = told.collect();
    }

    /// Judges anew who is one.
    pub(super) fn judge(&mut self, members: &Members, table: &Table, now: Now) {
        self.compare(members);
        let mut carriers = BTreeSet::new();
        for (node, peer) in &members.peers {
            if self.shares_the_same(node) {
                carriers.extend(peer.beat.bridges.iter().cloned());
            }
        }
        if members.is_hearing() && !self.kept.is_empty() {
            let until = *self.kept_until.get_or_insert(now.at + KEPT_FOR);
            if now.at >= until {
                self.kept.clear();
            }
        }
        carriers.extend(self.kept.iter().cloned());
        let of_others = carriers.iter().map(|client_id| Carrier {
            client_id: client_id.clone(),
            addresses: None,
        });
        self.current = of_others.collect();
        self.judge_own(members, table, now);
        self.current.extend(self.at_nodes.keys().cloned());
        carriers.extend(self.at_nodes.keys().map(|own| own.client_id.clone()));
        self.tell(carriers);
    }

    fn judge_own(&mut self, members: &Members, table: &Table, now: Now) {
        let Some(own) = &self.own else {
            return;
        };
        let is_at_a_node = |own: &&NativeBridge| {
            let known = table.get(&own.remote_id).filter(|known| known.is_online);
            known.is_some_and(|known| self.shares_the_same(table.node_of(known)))
        };
        let there: BTreeSet<Carrier> = {
            let there = own.iter().filter(is_at_a_node);
            there.map(NativeBridge::carrier).collect()
        };
        let all: BTreeSet<Carrier> = own.iter().map(NativeBridge::carrier).collect();
        self.at_nodes.retain(|carrier, away_since| {
            if !members.is_hearing() {
                *away_since = None;
            } else if !there.contains(carrier) {
                away_since.get_or_insert(now.at);
            }
            let is_elsewhere = away_since
                .is_some_and(|since| now.at.saturating_duration_since(since) >= ELSEWHERE_AFTER);
            all.contains(carrier) && !is_elsewhere
        });
        self.at_nodes
            .extend(there.into_iter().map(|carrier| (carrier, None)));
    }

    /// Not so for this node itself.
    fn shares_the_same(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|is_same| *is_same)
    }

    /// What only some nodes share can't be told to come by RocketMQ.
    fn compare(&mut self, members: &Members) {
        self.nodes
            .retain(|node, _| members.peers.contains_key(node));
        for (node, peer) in &members.peers {
            let is_same = peer.beat.share == members.own.share;
            let was_same = self.nodes.insert(node.clone(), is_same).unwrap_or(true);
            match (was_same, is_same) {
                (true, false) => log::warn!(
                    "cluster: node {node} shares other filters than this one: what only one of both shares does not get through. Give all nodes the same `share` lines"
                ),
                (false, true) => log::info!("cluster: node {node} shares the same filters again"),
                _ => {}
            }
        }
    }

    fn tell(&mut self, carriers: BTreeSet<String>) {
        for id in carriers.difference(&self.told) {
            log::info!(
                "cluster: client {id} is a native bridge between nodes: what it brings of the shared topics is not taken, since RocketMQ brings it"
            );
            self.to_tell.push_back((Box::from(id.as_str()), true));
        }
        for id in self.told.difference(&carriers) {
            log::info!("cluster: client {id} is no native bridge between nodes any more");
            self.to_tell.push_back((Box::from(id.as_str()), false));
        }
        self.told = carriers;
    }

    /// What is to be written for the plugin's next start, when that has changed. To be called after [`Carriers::judge`].
    pub(super) fn take_text(&mut self) -> Option<String> {
        (self.current != self.written).then(|| {
            self.written.clone_from(&self.current);
            carriers_text(self.written.iter())
        })
    }

    /// It was not, and is to be written again.
    pub(super) fn not_written(&mut self) {
        self.written.clear();
    }

    /// What the plugin is to be told next.
    pub(super) fn next_to_tell(&mut self) -> Option<(Box<str>, bool)> {
        self.to_tell.pop_front()
    }

    /// It could not be told.
    pub(super) fn tell_again(&mut self, client: Box<str>, is_carrier: bool) {
        // What is newer says more.
        if !self.to_tell.iter().any(|(newer, _)| *newer == client) {
            self.to_tell.push_back((client, is_carrier));
        }
    }
}

impl Core {
    /// The native bridges of our own broker.
    pub(super) fn set_own_bridges(&mut self, bridges: Vec<NativeBridge>) {
        let remote_ids = bridges.iter().map(|bridge| bridge.remote_id.clone());
        self.members.own.bridges = remote_ids.collect();
        self.carriers.set_own(bridges);
    }

    /// The rules are others.
    pub(super) fn reload(&mut self, config: &Config) {
        self.members.own.share = share_id(config);
    }
}

/// Stands for what a node shares, among the nodes.
pub(super) fn share_id(config: &Config) -> u64 {
    let filters = config.share.iter().map(|rule| rule.filter.as_str());
    let filters: BTreeSet<&str> = filters.collect();
    group_id(&filters.into_iter().collect::<Vec<_>>().join("\n"))
}
