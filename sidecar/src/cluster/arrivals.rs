//! Clients that have come from other nodes, and since when they were away from all of them.
//!
//! While this node does not know of all clients of the other nodes (it has just started, or does not hear), it may not know that a client was elsewhere. Those that
//! come then are noted with what they subscribe to, and what is told of where they were before, until everything is known.

use std::collections::HashMap;

use protocol::message::{Event, What};

use super::members::Members;
use super::presence::{Entry, Heard, Table, is_lost};
use crate::missed::{Request, Want};

/// How long after its login a client may subscribe to what it had subscribed to before.
const SUBSCRIBES_WITHIN_MS: u64 = 60_000;

/// What is known of the cluster when something happens.
pub(super) struct Known<'a> {
    pub(super) table: &'a Table,
    pub(super) members: &'a Members,
    /// That is everything.
    pub(super) is_all: bool,
}

/// When a client came, and since when it was away.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrival {
    came_ms: u64,
    since: Since,
    /// What it has subscribed to since it came.
    filters: Vec<Box<str>>,
}

/// Since when a client was away.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Since {
    /// Unix milliseconds.
    Ms(u64),
    /// That is yet to be found out.
    Open {
        /// Where it was last, by what was told of other nodes.
        last: Option<Last>,
        /// The version of its last login here; what is older does not count.
        own_version: u64,
        /// What is to be read then; each without the time.
        wants: Vec<Want>,
    },
}

/// Where a client was, and how it stood there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    node: Box<str>,
    /// Version, epoch and number: see [`Heard`].
    order: (u64, u64, u64),
    is_online: bool,
    cause: u8,
    session_stays: bool,
    at_ms: u64,
}

impl Last {
    fn known(table: &Table, entry: &Entry) -> Last {
        Last {
            node: table.node_of(entry).into(),
            order: (entry.version, entry.epoch, entry.seq),
            is_online: entry.is_online,
            cause: entry.cause,
            session_stays: entry.session_stays,
            at_ms: entry.at_ms,
        }
    }

    fn heard(heard: &Heard<'_>) -> Last {
        Last {
            node: heard.node.into(),
            order: (heard.version, heard.epoch, heard.seq),
            is_online: heard.is_online,
            cause: heard.cause,
            session_stays: heard.session_stays,
            at_ms: heard.at_ms,
        }
    }

    /// Since when a client that came at this time has got nothing. Nothing for one whose session has ended.
    fn away_since(&self, came_ms: u64, members: &Members) -> Option<u64> {
        if !self.is_online {
            return (self.session_stays || is_lost(self.cause)).then_some(self.at_ms.min(came_ms));
        }
        // Its node may be dead and not yet be known to be: it was there when it was heard last.
        let peer = members.peers.get(&*self.node);
        Some(peer.map_or(self.at_ms, |peer| peer.heard_ms).min(came_ms))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Arrivals(HashMap<Box<str>, Arrival>);

impl Arrivals {
    /// Notes a login, before the table knows of it; and tells what is to be read for a subscription.
    pub(super) fn follow(&mut self, event: &Event<'_>, known: &Known<'_>) -> Option<Request> {
        match event.what {
            What::Online {
                client_id, clean, ..
            } => {
                self.0.remove(client_id);
                if !clean && let Some(since) = since(client_id, event.at_ms, known) {
                    let arrival = Arrival {
                        came_ms: event.at_ms,
                        since,
                        filters: Vec::new(),
                    };
                    self.0.insert(client_id.into(), arrival);
                }
                None
            }
            What::Offline { client_id, .. } => {
                self.0.remove(client_id);
                None
            }
            What::Started { .. } => {
                self.0.clear();
                None
            }
            What::Subscribed {
                client_id,
                filter,
                downlink_position,
                uplink_position,
                ..
            } if !filter.starts_with("$share/") => {
                let arrival = self.0.get_mut(client_id)?;
                let is_soon = event.at_ms <= arrival.came_ms.saturating_add(SUBSCRIBES_WITHIN_MS);
                let is_new = arrival.filters.iter().all(|known| **known != *filter);
                if !is_soon || !is_new {
                    return None;
                }
                let earlier = arrival.filters.clone();
                arrival.filters.push(filter.into());
                let mut want = Want {
                    client_id: client_id.to_owned(),
                    filter: filter.to_owned(),
                    earlier,
                    since_ms: 0,
                    downlink_position,
                    uplink_position,
                };
                match &mut arrival.since {
                    Since::Ms(since_ms) => {
                        want.since_ms = *since_ms;
                        Some(Request::Client(want))
                    }
                    Since::Open { wants, .. } => {
                        wants.push(want);
                        None
                    }
                }
            }
            _ => None,
        }
    }

    /// Something is told of a client of another node.
    pub(super) fn told(&mut self, client_id: &str, heard: &Heard<'_>) {
        let Some(arrival) = self.0.get_mut(client_id) else {
            return;
        };
        if let Since::Open {
            last, own_version, ..
        } = &mut arrival.since
            && heard.version > *own_version
            && last
                .as_ref()
                .is_none_or(|last| (heard.version, heard.epoch, heard.seq) > last.order)
        {
            *last = Some(Last::heard(heard));
        }
    }

    /// What is to be read for those of whom it was not known: for all when everything is known, or, for there may be a node that never tells, for those
    /// who came a while ago.
    pub(super) fn settle(&mut self, members: &Members, is_all: bool, now_ms: u64) -> Vec<Request> {
        let mut requests = Vec::new();
        self.0.retain(|_, arrival| {
            let is_old = arrival.came_ms.saturating_add(SUBSCRIBES_WITHIN_MS) < now_ms;
            let Since::Open { last, wants, .. } = &mut arrival.since else {
                return true;
            };
            if !is_all && !is_old {
                return true;
            }
            let since_ms = last
                .as_ref()
                .and_then(|last| last.away_since(arrival.came_ms, members));
            let Some(since_ms) = since_ms else {
                return false;
            };
            let wants = std::mem::take(wants).into_iter();
            requests.extend(wants.map(|want| Request::Client(Want { since_ms, ..want })));
            arrival.since = Since::Ms(since_ms);
            true
        });
        requests
    }

    /// Forgets those whose time is over.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.0.retain(|_, arrival| {
            let is_open = matches!(arrival.since, Since::Open { .. });
            is_open || arrival.came_ms.saturating_add(SUBSCRIBES_WITHIN_MS) >= now_ms
        });
    }
}

/// Since when a client was away that comes now. Nothing for one whose session is here, or has ended.
fn since(client_id: &str, at_ms: u64, known: &Known<'_>) -> Option<Since> {
    let entry = known.table.get(client_id);
    let elsewhere = entry.filter(|entry| !Table::is_ours(entry));
    let last = elsewhere.map(|entry| Last::known(known.table, entry));
    if known.is_all {
        let since_ms = last?.away_since(at_ms, known.members)?;
        return Some(Since::Ms(since_ms));
    }
    let own = entry.filter(|entry| Table::is_ours(entry));
    Some(Since::Open {
        last,
        own_version: own.map_or(0, |own| own.version),
        wants: Vec::new(),
    })
}
