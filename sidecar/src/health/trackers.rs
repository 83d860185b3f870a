//! What remembers since when something is so.

use std::time::{Duration, Instant};

use super::RECENT;
use crate::status::report::Log;

/// Notices that a log has messages and none of them moves.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// The position that was released when something moved last (or began to wait), and when that was.
    front: Option<(u64, Instant, u64)>,
}

impl Stall {
    /// Since when nothing moves (Unix milliseconds), once it is for longer than `patience`.
    pub(super) fn look(
        &mut self,
        now: Instant,
        now_ms: u64,
        log: Option<Log>,
        patience: Duration,
    ) -> Option<u64> {
        let Some(log) = log.filter(|log| log.end > log.released) else {
            self.front = None;
            return None;
        };
        match self.front {
            Some((released, since, since_ms)) if released == log.released => {
                (now.saturating_duration_since(since) >= patience).then_some(since_ms)
            }
            _ => {
                self.front = Some((log.released, now, now_ms));
                None
            }
        }
    }
}

/// Notices that a total grows, until it has not grown for a while.
#[derive(Debug, Default)]
pub(super) struct Recent {
    total: Option<u64>,
    /// Since when (Unix milliseconds), by how much, and when last.
    growth: Option<(u64, u64, Instant)>,
}

impl Recent {
    /// Since when it grows, and by how much.
    pub(super) fn look(&mut self, now: Instant, now_ms: u64, total: u64) -> Option<(u64, u64)> {
        // The first total is what was before.
        let before = self.total.replace(total).unwrap_or(total);
        // A plugin that starts anew begins at 0.
        let added = total.saturating_sub(before);
        if added > 0 {
            let (since_ms, sum, _) = self.growth.unwrap_or((now_ms, 0, now));
            self.growth = Some((since_ms, sum + added, now));
        }
        self.growth = self
            .growth
            .filter(|(_, _, last)| now.saturating_duration_since(*last) < RECENT);
        self.growth.map(|(since_ms, sum, _)| (since_ms, sum))
    }
}
