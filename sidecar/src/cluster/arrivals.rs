//! Clients that have come from other nodes, and since when they were away from all of them.

use std::collections::HashMap;

use protocol::message::{Event, What};

use super::members::Members;
use super::presence::Table;
use super::wire::cause;
use crate::missed::{Request, Want};

/// How long after its login a client may subscribe to what it had subscribed to before.
const SUBSCRIBES_WITHIN_MS: u64 = 60_000;

/// When a client came, and since when it was away.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrival {
    came_ms: u64,
    since_ms: u64,
    /// What it has subscribed to since it came.
    filters: Vec<Box<str>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Arrivals(HashMap<Box<str>, Arrival>);

impl Arrivals {
    /// Notes a login, before the table knows of it; and tells what is to be read for a subscription.
    pub(super) fn follow(
        &mut self,
        event: &Event<'_>,
        table: &Table,
        members: &Members,
    ) -> Option<Request> {
        match event.what {
            What::Online {
                client_id, clean, ..
            } => {
                self.0.remove(client_id);
                if !clean && let Some(since_ms) = away_since(client_id, event.at_ms, table, members)
                {
                    let came_ms = event.at_ms;
                    let arrival = Arrival {
                        came_ms,
                        since_ms,
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
                (is_soon && is_new).then(|| {
                    let earlier = arrival.filters.clone();
                    arrival.filters.push(filter.into());
                    Request::Client(Want {
                        client_id: client_id.to_owned(),
                        filter: filter.to_owned(),
                        earlier,
                        since_ms: arrival.since_ms,
                        downlink_position,
                        uplink_position,
                    })
                })
            }
            _ => None,
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.0
            .retain(|_, arrival| arrival.came_ms.saturating_add(SUBSCRIBES_WITHIN_MS) >= now_ms);
    }
}

/// Since when a client that was last on another node has got nothing. Nothing for one whose session is here, or has ended.
fn away_since(client_id: &str, at_ms: u64, table: &Table, members: &Members) -> Option<u64> {
    let known = table
        .get(client_id)
        .filter(|known| !Table::is_ours(known))?;
    let is_lost = matches!(known.cause, cause::NODE_LOST | cause::NODE_LEFT);
    if !known.is_online {
        return (known.session_stays || is_lost).then_some(known.at_ms.min(at_ms));
    }
    // Its node may be dead and not yet be known to be: it was there when it was heard last.
    let peer = members.peers.get(table.node_of(known));
    Some(peer.map_or(known.at_ms, |peer| peer.heard_ms).min(at_ms))
}
