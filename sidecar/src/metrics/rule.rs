//! The counters of a rule.

use std::sync::atomic::AtomicU64;

/// Counters of one uplink rule.
#[derive(Debug, Default)]
pub(crate) struct UpRule {
    /// Where they are kept.
    pub(super) row: Option<usize>,
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
    pub(super) row: Option<usize>,
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
pub(super) trait Row: Default {
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
