//! Counters of the sidecar: what every rule has done, and how the connection to RocketMQ stands.
//!
//! Each message ends in exactly one of the final counters of its rule: `sent` or `dead` on the way up; `handed_over`,
//! `dead`, `own`, `expired` or `duplicates` on the way down. The others (`matched`, `received`, `retries`, `warnings`) count events.
//! `docs/counters.md` has the equations. The values are kept in the spool: see [`book`]. A message of the uplink is counted when its
//! turn comes in the log, together with the place up to which everything is counted.

pub(crate) mod book;
mod settle;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::health::Health;
use book::{Book, BookError, Way};
pub(crate) use settle::{Ending, UplinkDone};

/// Counters of one uplink rule.
#[derive(Debug, Default)]
pub(crate) struct UpRule {
    /// Where they are kept.
    row: Option<usize>,
    /// Messages taken from the hand-off log for this rule.
    pub(crate) matched: AtomicU64,
    /// Messages that RocketMQ has stored.
    pub(crate) sent: AtomicU64,
    /// Payload bytes of the messages in `sent`.
    pub(crate) bytes: AtomicU64,
    /// Messages written to the dead letters.
    pub(crate) dead: AtomicU64,
    /// Batches that had to be sent again.
    pub(crate) retries: AtomicU64,
    /// Messages in `sent` of which RocketMQ said that its disk or its slave does not have them.
    pub(crate) reserved: AtomicU64,
}

/// Counters of one downlink rule.
#[derive(Debug, Default)]
pub(crate) struct DownRule {
    /// Where they are kept.
    row: Option<usize>,
    /// Messages that came from RocketMQ and match the rule.
    pub(crate) received: AtomicU64,
    /// Messages written to the hand-off log for the plugin to inject.
    pub(crate) handed_over: AtomicU64,
    /// Payload bytes of the messages in `handed_over`.
    pub(crate) bytes: AtomicU64,
    /// Messages written to the dead letters.
    pub(crate) dead: AtomicU64,
    /// Messages that this node had published itself on the same MQTT topic: its subscribers have them already.
    pub(crate) own: AtomicU64,
    /// Messages whose expiry had passed before they were handed over.
    pub(crate) expired: AtomicU64,
    /// Messages that their sender had stored more than once in RocketMQ, and that were handed over before.
    pub(crate) duplicates: AtomicU64,
    /// Properties with a value that could not be used; the rule's default was taken instead.
    pub(crate) warnings: AtomicU64,
}

/// Counters with a row in the book. The order of `cells` is part of the file's format: new ones go to the end, at most `book::ROW`.
trait Row: Default {
    fn in_row(row: Option<usize>) -> Self;
    fn cells(&self) -> Vec<&AtomicU64>;
}

impl Row for UpRule {
    fn in_row(row: Option<usize>) -> UpRule {
        UpRule {
            row,
            ..UpRule::default()
        }
    }

    fn cells(&self) -> Vec<&AtomicU64> {
        vec![
            &self.matched,
            &self.sent,
            &self.bytes,
            &self.dead,
            &self.retries,
            &self.reserved,
        ]
    }
}

impl Row for DownRule {
    fn in_row(row: Option<usize>) -> DownRule {
        DownRule {
            row,
            ..DownRule::default()
        }
    }

    fn cells(&self) -> Vec<&AtomicU64> {
        vec![
            &self.received,
            &self.handed_over,
            &self.bytes,
            &self.dead,
            &self.own,
            &self.expired,
            &self.warnings,
            &self.duplicates,
        ]
    }
}

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

    fn snapshot(&self) -> LogSnapshot {
        let (released, end) = (self.released.load(Relaxed), self.end.load(Relaxed));
        LogSnapshot {
            released,
            end,
            waiting_bytes: end.saturating_sub(released),
        }
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

    /// All values at this moment. Counters are read one by one, so they may be apart by what happens meanwhile.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let lag = self.downlink_lag.load(Relaxed);
        Snapshot {
            started_ms: self.started_ms,
            uplink: rows(&self.up, |rule, c| UpRuleSnapshot {
                rule,
                matched: c.matched.load(Relaxed),
                sent: c.sent.load(Relaxed),
                bytes: c.bytes.load(Relaxed),
                dead: c.dead.load(Relaxed),
                retries: c.retries.load(Relaxed),
                reserved: c.reserved.load(Relaxed),
            }),
            downlink: rows(&self.down, |rule, c| DownRuleSnapshot {
                rule,
                received: c.received.load(Relaxed),
                handed_over: c.handed_over.load(Relaxed),
                bytes: c.bytes.load(Relaxed),
                dead: c.dead.load(Relaxed),
                own: c.own.load(Relaxed),
                expired: c.expired.load(Relaxed),
                duplicates: c.duplicates.load(Relaxed),
                warnings: c.warnings.load(Relaxed),
            }),
            rocketmq: self.rocketmq.snapshot(),
            uplink_done: self.uplink_done.load(Relaxed),
            uplink_copies: self.uplink_copies.load(Relaxed),
            uplink_damaged: self.uplink_damaged.load(Relaxed),
            returned: self.returned.load(Relaxed),
            uplink_base: self.uplink_base.load(Relaxed).cast_signed(),
            downlink_base: self.downlink_base.load(Relaxed).cast_signed(),
            corrupt_frames: self.corrupt_frames.load(Relaxed),
            repaired_frames: self.repaired_frames.load(Relaxed),
            unroutable: self.unroutable.load(Relaxed),
            downlink_repeated: self.downlink_repeated.load(Relaxed),
            downlink_lag: (lag != u64::MAX).then_some(lag),
            uplink_log: self.uplink_log.snapshot(),
            downlink_log: self.downlink_log.snapshot(),
        }
    }
}

fn rows<T, R>(map: &RwLock<BTreeMap<String, Arc<T>>>, row: impl Fn(String, &T) -> R) -> Vec<R> {
    let map = map.read().unwrap_or_else(PoisonError::into_inner);
    map.iter()
        .map(|(text, counters)| row(text.clone(), counters))
        .collect()
}

/// How often the sidecar says that it is alive.
pub(crate) const BEAT_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

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

/// See [`Metrics`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of Metrics")]
pub(crate) struct Snapshot {
    pub(crate) started_ms: u64,
    pub(crate) uplink: Vec<UpRuleSnapshot>,
    pub(crate) downlink: Vec<DownRuleSnapshot>,
    pub(crate) rocketmq: ConnectionSnapshot,
    pub(crate) uplink_done: u64,
    pub(crate) uplink_copies: u64,
    pub(crate) uplink_damaged: u64,
    pub(crate) returned: u64,
    pub(crate) uplink_base: i64,
    pub(crate) downlink_base: i64,
    pub(crate) corrupt_frames: u64,
    /// Frames and headers of the uplink log of which one byte was damaged, and mended.
    pub(crate) repaired_frames: u64,
    pub(crate) unroutable: u64,
    pub(crate) downlink_repeated: u64,
    pub(crate) downlink_lag: Option<u64>,
    pub(crate) uplink_log: LogSnapshot,
    pub(crate) downlink_log: LogSnapshot,
}

/// See [`LogGauges`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of LogGauges")]
pub(crate) struct LogSnapshot {
    pub(crate) released: u64,
    pub(crate) end: u64,
    /// `end - released`: frames with their headers and the gaps at the ends of segments.
    pub(crate) waiting_bytes: u64,
}

/// See [`UpRule`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of UpRule")]
pub(crate) struct UpRuleSnapshot {
    pub(crate) rule: String,
    pub(crate) matched: u64,
    pub(crate) sent: u64,
    pub(crate) bytes: u64,
    pub(crate) dead: u64,
    pub(crate) retries: u64,
    #[serde(default)]
    pub(crate) reserved: u64,
}

/// See [`DownRule`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of DownRule")]
pub(crate) struct DownRuleSnapshot {
    pub(crate) rule: String,
    pub(crate) received: u64,
    pub(crate) handed_over: u64,
    pub(crate) bytes: u64,
    pub(crate) dead: u64,
    pub(crate) own: u64,
    pub(crate) expired: u64,
    #[serde(default)]
    pub(crate) duplicates: u64,
    pub(crate) warnings: u64,
}

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

    #[test]
    fn an_unknown_lag_is_not_zero() {
        let metrics = Metrics::default();
        assert_eq!(metrics.snapshot().downlink_lag, None);
        metrics.downlink_lag.store(7, Relaxed);
        assert_eq!(metrics.snapshot().downlink_lag, Some(7));
    }
}
