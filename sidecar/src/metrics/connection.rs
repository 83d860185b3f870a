//! How the connection to RocketMQ stands.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Metrics, unix_ms};

/// Whether RocketMQ takes or gives messages, since when, and what it said last when it did not.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    // Read for every batch, so that the mutex is only taken when something changes.
    is_up: AtomicBool,
    state: Mutex<ConnectionSnapshot>,
}

impl Connection {
    /// RocketMQ answered. Cheap when it was up before. True if it was not.
    pub(crate) fn up(&self) -> bool {
        if self.is_up.load(Relaxed) {
            return false;
        }
        let mut state = self.lock();
        if state.connected {
            return false;
        }
        state.connected = true;
        state.since_ms = unix_ms();
        self.is_up.store(true, Relaxed);
        true
    }

    /// RocketMQ did not answer, or answered that it can't. True if it had been up, or if this is the first word about it.
    pub(crate) fn down(&self, reason: &str) -> bool {
        let mut state = self.lock();
        let now = unix_ms();
        let changed = state.connected || state.since_ms == 0;
        if changed {
            state.since_ms = now;
        }
        state.connected = false;
        state.last_error = Some(reason.to_owned());
        state.last_error_ms = Some(now);
        self.is_up.store(false, Relaxed);
        changed
    }

    /// The state at this moment.
    pub(crate) fn snapshot(&self) -> ConnectionSnapshot {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionSnapshot> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Connection`]. Times are Unix milliseconds; `since_ms` is 0 while nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConnectionSnapshot {
    /// The last exchange with RocketMQ succeeded.
    pub(crate) connected: bool,
    /// When `connected` took its value.
    pub(crate) since_ms: u64,
    /// The last error, kept after it is over.
    pub(crate) last_error: Option<String>,
    /// When the last error was seen.
    pub(crate) last_error_ms: Option<u64>,
}

impl Metrics {
    /// The connection to RocketMQ as a whole: what fails of probing, sending (while messages wait) and reading, since the first
    /// of them failed.
    pub(crate) fn connection(&self) -> ConnectionSnapshot {
        let log = self.uplink_log.snapshot();
        let mut all = vec![self.rocketmq.snapshot(), self.reading.snapshot()];
        let sending = self.sending.snapshot();
        if log.waiting_bytes > 0 || sending.connected {
            all.push(sending);
        }
        all.retain(|one| one.since_ms != 0);
        let last = all.iter().max_by_key(|one| one.last_error_ms).cloned();
        let down = all.iter().filter(|one| !one.connected);
        let mut whole = down
            .min_by_key(|one| one.since_ms)
            .or_else(|| all.first())
            .cloned()
            .unwrap_or_default();
        if whole.connected
            && let Some(last) = last
        {
            (whole.last_error, whole.last_error_ms) = (last.last_error, last.last_error_ms);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_reports_each_change_once_and_keeps_the_last_error() {
        let connection = Connection::default();
        assert!(connection.down("no name server"), "the first word is news");
        assert!(!connection.down("still none"));
        assert!(connection.up());
        assert!(!connection.up());
        let state = connection.snapshot();
        assert!(state.connected);
        assert_eq!(state.last_error.as_deref(), Some("still none"));
        assert!(connection.down("gone"));
        assert!(!connection.snapshot().connected);
    }
}
