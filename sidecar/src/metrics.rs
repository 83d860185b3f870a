//! Counters of the sidecar: what every rule has done, and how the connection to RocketMQ stands.
//!
//! Each message ends in exactly one of the final counters of its rule: `sent` or `dead` on the way up; `handed_over`,
//! `dead`, `own`, `expired` or `duplicates` on the way down. The others (`matched`, `received`, `retries`, `warnings`) count events.
//! `docs/counters.md` has the equations. The values are kept in the spool: see [`book`]. A message of the uplink is counted when its
//! turn comes in the log, together with the place up to which everything is counted.

pub(crate) mod book;
mod connection;
mod rule;
mod settle;
mod snapshot;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::health::Health;
use book::{Book, BookError, Way};
pub(crate) use connection::{Connection, ConnectionSnapshot};
use rule::Row;
pub(crate) use rule::{DownRule, UpRule};
pub(crate) use settle::{Ending, UplinkDone};
pub(crate) use snapshot::{DownRuleSnapshot, Snapshot, UpRuleSnapshot};

/// Everything the sidecar counts. Shared by all of its parts.
#[derive(Debug)]
pub(crate) struct Metrics {
    book: Book,
    started_ms: u64,
    up: RwLock<BTreeMap<String, Arc<UpRule>>>,
    down: RwLock<BTreeMap<String, Arc<DownRule>>>,
    /// Whether RocketMQ answers a probe.
    pub(crate) rocketmq: Connection,
    /// Whether it takes messages. Its last word, which is old when none wait.
    pub(crate) sending: Connection,
    /// Whether messages can be read from it.
    pub(crate) reading: Connection,
    /// Messages of the uplink log (one for all of its rules) that have ended.
    pub(crate) uplink_done: AtomicU64,
    /// The same, with each counted once for each of its rules.
    pub(crate) uplink_copies: AtomicU64,
    /// Messages of the uplink log that were in the stretches that failed their checksum.
    pub(crate) uplink_damaged: AtomicU64,
    /// What the plugin could not inject and gave back: dead letters.
    pub(crate) returned: AtomicU64,
    /// Stretches of the uplink log that failed their checksum and were skipped.
    pub(crate) corrupt_frames: AtomicU64,
    /// Frames and headers of the uplink log of which one byte was damaged, and mended.
    pub(crate) repaired_frames: AtomicU64,
    /// Frames whose rule is not in `rules.table`, or that do not decode: dead letters without a rule.
    pub(crate) unroutable: AtomicU64,
    /// Messages from RocketMQ that were left out because an earlier run had handed them over already.
    pub(crate) downlink_repeated: AtomicU64,
    /// Messages waiting in RocketMQ for this node; `u64::MAX` when unknown.
    pub(crate) downlink_lag: AtomicU64,
    /// What was done with (or handed over) less the frames of the log that are, wrapping: 0 unless logs or counters were made anew.
    uplink_base: AtomicU64,
    downlink_base: AtomicU64,
    /// The last judgement.
    pub(crate) health: Mutex<Health>,
    /// Positions of the uplink log.
    pub(crate) uplink_log: LogGauges,
    /// Positions of the downlink log.
    pub(crate) downlink_log: LogGauges,
}

/// Where a hand-off log stands. All values in bytes.
#[derive(Debug, Default)]
pub(crate) struct LogGauges {
    /// Position behind the last frame.
    pub(crate) end: AtomicU64,
    /// Everything before this position is done with.
    pub(crate) released: AtomicU64,
}

impl LogGauges {
    /// Records both positions.
    pub(crate) fn set(&self, released: u64, end: u64) {
        self.released.store(released, Relaxed);
        self.end.store(end, Relaxed);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            book: Book::default(),
            started_ms: unix_ms(),
            up: RwLock::default(),
            down: RwLock::default(),
            rocketmq: Connection::default(),
            sending: Connection::default(),
            reading: Connection::default(),
            uplink_base: AtomicU64::new(0),
            downlink_base: AtomicU64::new(0),
            health: Mutex::default(),
            uplink_done: AtomicU64::new(0),
            uplink_copies: AtomicU64::new(0),
            uplink_damaged: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            corrupt_frames: AtomicU64::new(0),
            repaired_frames: AtomicU64::new(0),
            unroutable: AtomicU64::new(0),
            downlink_repeated: AtomicU64::new(0),
            downlink_lag: AtomicU64::new(u64::MAX),
            uplink_log: LogGauges::default(),
            downlink_log: LogGauges::default(),
        }
    }
}

impl Metrics {
    /// Goes on with the counters of a spool. Only for the one sidecar that has its logs.
    ///
    /// # Errors
    /// When the files can't be read or written.
    pub(crate) fn open(spool_dir: &Path) -> Result<Metrics, BookError> {
        let metrics = Metrics {
            book: Book::open(spool_dir)?,
            ..Metrics::default()
        };
        for (at, global) in metrics.uplink_globals().into_iter().enumerate() {
            global.store(metrics.book.get(book::place::FIRST + at), Relaxed);
        }
        for (at, counter) in metrics.others() {
            counter.store(metrics.book.get(at), Relaxed);
        }
        for (way, rule, _) in metrics.book.rules() {
            match way {
                Way::Up => drop(metrics.up_rule(&rule)),
                Way::Down => drop(metrics.down_rule(&rule)),
            }
        }
        metrics
            .book
            .set_all(&[(book::place::PID, u64::from(std::process::id()))]);
        metrics.beat();
        Ok(metrics)
    }

    /// What the sidecar of a spool has kept, to look at. Nothing when none has been there.
    pub(crate) fn look(spool_dir: &Path) -> Option<Metrics> {
        let look = book::Look::at(spool_dir)?;
        let metrics = Metrics {
            started_ms: look.get(book::place::HEARTBEAT),
            ..Metrics::default()
        };
        let load = |row: usize, cells: Vec<&AtomicU64>| {
            for (at, cell) in cells.into_iter().enumerate() {
                cell.store(look.get(row + at), Relaxed);
            }
        };
        load(book::place::FIRST, metrics.uplink_globals().to_vec());
        for (at, counter) in metrics.others() {
            counter.store(look.get(at), Relaxed);
        }
        for (way, rule, row) in look.rules() {
            match way {
                Way::Up => load(row, metrics.up_rule(&rule).cells()),
                Way::Down => load(row, metrics.down_rule(&rule).cells()),
            }
        }
        Some(metrics)
    }

    /// When the sidecar of a spool was alive last, as far as it has said so; 0 when it never has.
    pub(crate) fn last_beat(spool_dir: &Path) -> u64 {
        book::Look::at(spool_dir).map_or(0, |look| look.get(book::place::HEARTBEAT))
    }

    /// Says in the spool that the sidecar is alive. To be called every [`BEAT_EVERY`].
    pub(crate) fn beat(&self) {
        self.book.beat(unix_ms());
    }

    /// Kept counters with places of their own.
    fn others(&self) -> [(usize, &AtomicU64); 3] {
        [
            (book::place::DOWNLINK_REPEATED, &self.downlink_repeated),
            (book::place::UPLINK_BASE, &self.uplink_base),
            (book::place::DOWNLINK_BASE, &self.downlink_base),
        ]
    }

    /// Kept counters of the uplink that are no rule's. The order is part of the file's format: new ones go to the end.
    fn uplink_globals(&self) -> [&AtomicU64; 6] {
        [
            &self.uplink_done,
            &self.uplink_copies,
            &self.uplink_damaged,
            &self.returned,
            &self.corrupt_frames,
            &self.unroutable,
        ]
    }

    /// The counters of the uplink rule with this text; they live as long as the process. Not for every message: keep the `Arc`.
    pub(crate) fn up_rule(&self, text: &str) -> Arc<UpRule> {
        self.entry(&self.up, Way::Up, text)
    }

    /// The counters of the downlink rule with this text.
    pub(crate) fn down_rule(&self, text: &str) -> Arc<DownRule> {
        self.entry(&self.down, Way::Down, text)
    }

    fn entry<T: Row>(
        &self,
        map: &RwLock<BTreeMap<String, Arc<T>>>,
        way: Way,
        text: &str,
    ) -> Arc<T> {
        if let Some(found) = map.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Arc::clone(found);
        }
        let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
        let entry = map.entry(text.to_owned()).or_insert_with(|| {
            let row = self.book.row(way, text);
            let counters = T::in_row(row);
            for (at, cell) in counters.cells().into_iter().enumerate() {
                let kept = row.map_or(0, |row| self.book.get(row + at));
                cell.store(kept, Relaxed);
            }
            Arc::new(counters)
        });
        Arc::clone(entry)
    }
}

/// How often the sidecar says that it is alive.
pub(crate) const BEAT_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// Unix time in milliseconds; 0 for a clock that stands before 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_its_counters() {
        let metrics = Metrics::default();
        metrics.up_rule("a A").sent.fetch_add(2, Relaxed);
        metrics.up_rule("a A").sent.fetch_add(1, Relaxed);
        metrics.down_rule("B b").dead.fetch_add(1, Relaxed);
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.uplink.len(), 1);
        assert_eq!(
            (snapshot.uplink[0].rule.as_str(), snapshot.uplink[0].sent),
            ("a A", 3)
        );
        assert_eq!(snapshot.downlink[0].dead, 1);
    }
}
