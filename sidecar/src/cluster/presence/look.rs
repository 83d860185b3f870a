//! Which clients there are of a kind, and for how long it is known where one was.

use super::{Entry, OURS, Table};

/// How long it is known where a client was whose session has ended, and one whose session is kept.
pub(in crate::cluster) const KNOWN_MS: u64 = 10 * 60_000;
pub(in crate::cluster) const KNOWN_KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// Clients that are away and known, at most; the oldest are forgotten first.
pub(in crate::cluster) const AWAY_MAX: usize = 100_000;

impl Table {
    /// Those of a node that are connected.
    pub(in crate::cluster) fn online_at(&self, node: &str) -> impl Iterator<Item = (&str, &Entry)> {
        let node = self.nodes.iter().position(|known| **known == *node);
        self.iter().filter(move |(_, entry)| {
            entry.is_online && node.is_some_and(|node| entry.node as usize == node)
        })
    }

    pub(in crate::cluster) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.clients
            .iter()
            .map(|(client, entry)| (&**client, entry))
    }

    /// Clients that are away and may yet miss something: those with a session of ours, and those of nodes that do not live.
    pub(in crate::cluster) fn away(
        &self,
        is_living: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&str, &Entry)> {
        let living: Vec<bool> = self.nodes.iter().map(|node| is_living(node)).collect();
        self.iter().filter(move |(_, entry)| {
            let is_gone = || !living.get(entry.node as usize).copied().unwrap_or(true);
            !entry.is_online
                && (entry.session_stays || entry.is_lost())
                && match entry.node {
                    OURS => true,
                    _ => is_gone(),
                }
        })
    }

    /// Forgets clients that have been away for long, or that are too many.
    pub(in crate::cluster) fn forget(&mut self, now_ms: u64) {
        let mut away: Vec<u64> = Vec::new();
        for entry in self.clients.values().filter(|entry| !entry.is_online) {
            away.push(entry.at_ms);
        }
        let mut not_before = 0;
        if away.len() > AWAY_MAX {
            let spare = away.len() - AWAY_MAX;
            not_before = *away.select_nth_unstable(spare).1;
        }
        let is_over = |entry: &Entry| {
            let known_ms = if entry.session_stays {
                KNOWN_KEPT_MS
            } else {
                KNOWN_MS
            };
            let is_done = !entry.is_to_tell && entry.at_ms.saturating_add(known_ms) < now_ms;
            !entry.is_online && (is_done || entry.at_ms < not_before)
        };
        let over = self.clients.iter().filter(|(_, entry)| is_over(entry));
        let over: Vec<Box<str>> = over.map(|(client, _)| client.clone()).collect();
        for client in over {
            self.clients.remove(&client);
            if self.is_published {
                self.to_clear.push_back(client);
            }
        }
    }
}
