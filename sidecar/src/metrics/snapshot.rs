//! All counters at one moment.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::{ConnectionSnapshot, LogGauges, Metrics};

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

impl Metrics {
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

impl LogGauges {
    pub(super) fn snapshot(&self) -> LogSnapshot {
        let (released, end) = (self.released.load(Relaxed), self.end.load(Relaxed));
        LogSnapshot {
            released,
            end,
            waiting_bytes: end.saturating_sub(released),
        }
    }
}

fn rows<T, R>(map: &RwLock<BTreeMap<String, Arc<T>>>, row: impl Fn(String, &T) -> R) -> Vec<R> {
    let map = map.read().unwrap_or_else(PoisonError::into_inner);
    map.iter()
        .map(|(text, counters)| row(text.clone(), counters))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_lag_is_not_zero() {
        let metrics = Metrics::default();
        assert_eq!(metrics.snapshot().downlink_lag, None);
        metrics.downlink_lag.store(7, Relaxed);
        assert_eq!(metrics.snapshot().downlink_lag, Some(7));
    }
}
