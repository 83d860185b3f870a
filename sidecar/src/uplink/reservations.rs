//! What to make of "stored, but …": the answers `FLUSH_DISK_TIMEOUT`, `FLUSH_SLAVE_TIMEOUT` and `SLAVE_NOT_AVAILABLE`, which
//! only brokers give that are set up to write through, or to wait for a slave.
//!
//! The message is in the master's log then, and nowhere else: if the master dies now and the slave takes over, it is gone. To
//! take that for an acknowledgement is to lose messages in a switch; never to take it is to stand still for as long as a
//! slave is away. So it is sent again, as one message with one identity, until the broker says it is safe or until its
//! patience is over (`replica_timeout`, counted per broker from its first such answer). From then on its messages count as
//! stored, and are counted as `reserved`, until it says once that one is safe. A broker that does not answer for a while begins
//! anew: what it says then may be said by another master, or of another slave.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by the lanes of all topics.
#[derive(Debug)]
pub(super) struct Reservations {
    patience: Duration,
    brokers: Mutex<HashMap<String, State>>,
    /// Whether there is any: looked at for each batch.
    is_any: AtomicBool,
}

#[derive(Debug)]
struct State {
    since: Instant,
    is_accepted: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To be sent again.
    Again { is_first: bool },
    /// Taken as stored.
    Accept { is_first: bool },
}

impl Reservations {
    pub(super) fn new(patience: Duration) -> Reservations {
        Reservations {
            patience,
            brokers: Mutex::default(),
            is_any: AtomicBool::new(false),
        }
    }

    /// The broker answered with reservations.
    pub(super) fn judge(&self, broker: &str, now: Instant) -> Verdict {
        let mut brokers = self.lock();
        let is_first = !brokers.contains_key(broker);
        let state = brokers.entry(broker.to_owned()).or_insert(State {
            since: now,
            is_accepted: false,
        });
        self.is_any.store(true, Ordering::Relaxed);
        if now.duration_since(state.since) < self.patience {
            return Verdict::Again { is_first };
        }
        let is_first = !std::mem::replace(&mut state.is_accepted, true);
        Verdict::Accept { is_first }
    }

    /// The broker stored something without reservations. True when it had had some.
    pub(super) fn safe(&self, broker: &str) -> bool {
        if !self.is_any.load(Ordering::Relaxed) {
            return false;
        }
        let mut brokers = self.lock();
        let had_some = brokers.remove(broker).is_some();
        self.is_any.store(!brokers.is_empty(), Ordering::Relaxed);
        had_some
    }

    /// The broker gave no answer.
    pub(super) fn silent(&self, broker: &str) {
        self.safe(broker);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_believed_after_its_patience_until_it_is_safe_again() {
        let table = Reservations::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| table.judge("a", start + Duration::from_secs(seconds));
        assert_eq!(at(0), Verdict::Again { is_first: true });
        assert_eq!(at(9), Verdict::Again { is_first: false });
        assert!(!table.safe("b"));
        assert_eq!(at(10), Verdict::Accept { is_first: true });
        assert_eq!(at(99), Verdict::Accept { is_first: false });
        assert!(table.safe("a") && !table.safe("a"));
        assert_eq!(at(100), Verdict::Again { is_first: true });
    }

    #[test]
    fn a_broker_that_was_silent_is_given_its_patience_anew() {
        let table = Reservations::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| table.judge("a", start + Duration::from_secs(seconds));
        assert_eq!(at(0), Verdict::Again { is_first: true });
        table.silent("a");
        assert_eq!(at(60), Verdict::Again { is_first: true });
        assert_eq!(at(70), Verdict::Accept { is_first: true });
        table.silent("a");
        assert_eq!(at(71), Verdict::Again { is_first: true });
    }

    #[test]
    fn without_patience_it_is_believed_at_once() {
        let table = Reservations::new(Duration::ZERO);
        assert_eq!(
            table.judge("a", Instant::now()),
            Verdict::Accept { is_first: true }
        );
    }
}
