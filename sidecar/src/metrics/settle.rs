//! Counting what ended a message: exactly once, whoever is killed when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::book::place;
use super::{DownRule, Metrics, Row, UpRule};

/// What became of a message of the uplink, for one of its rules.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// RocketMQ has stored it.
    Sent {
        /// The rule's counters.
        rule: Arc<UpRule>,
        /// Bytes of its payload.
        bytes: u64,
    },
    /// It is a dead letter.
    Dead(Arc<UpRule>),
    /// It is a dead letter and no rule is known.
    Unroutable,
    /// The plugin could not inject it and gave it back: a dead letter.
    Returned,
}

/// What has been done with in the uplink log since the last time.
#[derive(Debug, Default)]
pub(crate) struct UplinkDone {
    /// Everything before this position is done with.
    pub(crate) position: u64,
    /// How many of the frames before it were not counted yet.
    pub(crate) frames: u64,
    /// What became of their messages.
    pub(crate) endings: Vec<Ending>,
}

impl Metrics {
    /// The log with this epoch is read from now on, from a position before which there are `frames` frames. Returns the position
    /// before which everything is counted already.
    pub(crate) fn begin_uplink(&self, epoch: u64, released: u64, frames: u64) -> u64 {
        if self.book.get(place::UPLINK_EPOCH) != epoch {
            let done = self.uplink_done.load(Relaxed) + self.uplink_damaged.load(Relaxed);
            let base = done.wrapping_sub(frames);
            self.uplink_base.store(base, Relaxed);
            self.book.set_all(&[
                (place::UPLINK_BASE, base),
                (place::UPLINK_EPOCH, epoch),
                (place::UPLINK_POSITION, released),
                (place::UPLINK_FRAMES, frames),
            ]);
        }
        self.book.get(place::UPLINK_POSITION)
    }

    /// Counts what has ended, before it is released. `log_frames`: how many frames of the log lie before the position.
    pub(crate) fn settle_uplink(&self, done: &UplinkDone, log_frames: u64) {
        let mut rules: BTreeMap<usize, &Arc<UpRule>> = BTreeMap::new();
        for ending in &done.endings {
            let rule = match ending {
                Ending::Sent { rule, bytes } => {
                    rule.sent.fetch_add(1, Relaxed);
                    rule.bytes.fetch_add(*bytes, Relaxed);
                    rule
                }
                Ending::Dead(rule) => {
                    rule.dead.fetch_add(1, Relaxed);
                    rule
                }
                Ending::Unroutable => {
                    self.unroutable.fetch_add(1, Relaxed);
                    continue;
                }
                Ending::Returned => {
                    self.returned.fetch_add(1, Relaxed);
                    continue;
                }
            };
            rules.extend(rule.row.map(|row| (row, rule)));
        }
        self.uplink_done.fetch_add(done.frames, Relaxed);
        self.uplink_copies
            .fetch_add(done.endings.len() as u64, Relaxed);
        let counted = self.book.get(place::UPLINK_FRAMES);
        let lost = log_frames.saturating_sub(counted.saturating_add(done.frames));
        self.uplink_damaged.fetch_add(lost, Relaxed);
        let mut changes = vec![
            (place::UPLINK_POSITION, done.position),
            (place::UPLINK_FRAMES, log_frames),
        ];
        add_row(&mut changes, place::FIRST, self.uplink_globals());
        for (row, rule) in rules {
            add_row(&mut changes, row, rule.cells());
            // Those under way are read again after a kill, and counted as taken then.
            changes.retain(|(at, _)| *at != row);
            changes.push((row, rule.sent.load(Relaxed) + rule.dead.load(Relaxed)));
        }
        self.book.set_all(&changes);
    }

    /// The downlink log with this epoch is written from now on; it has `frames` frames. One that was appended by a sidecar that was
    /// killed before it could count it is counted now.
    pub(crate) fn begin_downlink(&self, epoch: u64, frames: u64) {
        let row = self.book.get(place::APPENDING);
        let counted = self.book.get(place::DOWNLINK_FRAMES);
        let is_same_log = self.book.get(place::DOWNLINK_EPOCH) == epoch;
        if row == 0 && is_same_log && frames > counted {
            // A dead letter, and the sidecar was killed before it could say so.
            self.leave_out_of_downlink(frames - counted);
        }
        if row != 0 && is_same_log && frames == counted + 1 {
            let bytes = self.book.get(place::APPENDING_BYTES);
            let of_row = |rule: &&Arc<DownRule>| rule.row.is_some_and(|found| found as u64 == row);
            let rules = self.down.read();
            let rules = rules.unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(rule) = rules.values().find(of_row) {
                rule.received.fetch_add(1, Relaxed);
                rule.handed_over.fetch_add(1, Relaxed);
                rule.bytes.fetch_add(bytes, Relaxed);
                self.settle_downlink(rule, frames);
            }
        }
        if !is_same_log {
            let rules = self.down.read();
            let rules = rules.unwrap_or_else(std::sync::PoisonError::into_inner);
            let handed_over = rules.values().map(|rule| rule.handed_over.load(Relaxed));
            let base = handed_over.sum::<u64>().wrapping_sub(frames);
            self.downlink_base.store(base, Relaxed);
        }
        self.book.set_all(&[
            (place::DOWNLINK_BASE, self.downlink_base.load(Relaxed)),
            (place::DOWNLINK_EPOCH, epoch),
            (place::DOWNLINK_FRAMES, frames),
            (place::APPENDING, 0),
        ]);
    }

    /// A dead letter was appended to the downlink log, which has so many frames now. It is no rule's: it was counted when it became one.
    pub(crate) fn replayed_down(&self, frames: u64) {
        self.leave_out_of_downlink(1);
        self.book.set_all(&[
            (place::DOWNLINK_BASE, self.downlink_base.load(Relaxed)),
            (place::DOWNLINK_FRAMES, frames),
        ]);
    }

    fn leave_out_of_downlink(&self, frames: u64) {
        let base = self.downlink_base.load(Relaxed).wrapping_sub(frames);
        self.downlink_base.store(base, Relaxed);
    }

    /// A message with so many bytes of payload is about to be appended to the downlink log for this rule.
    pub(crate) fn appending(&self, rule: &DownRule, bytes: u64) {
        self.book.set_all(&[
            (place::APPENDING, rule.row.unwrap_or(0) as u64),
            (place::APPENDING_BYTES, bytes),
        ]);
    }

    /// Keeps what was counted for this rule. `frames`: how many frames the downlink log has.
    pub(crate) fn settle_downlink(&self, rule: &DownRule, frames: u64) {
        let mut changes = vec![(place::DOWNLINK_FRAMES, frames), (place::APPENDING, 0)];
        changes.push((
            place::DOWNLINK_REPEATED,
            self.downlink_repeated.load(Relaxed),
        ));
        if let Some(row) = rule.row {
            add_row(&mut changes, row, rule.cells());
        }
        self.book.set_all(&changes);
    }
}

fn add_row<'a>(
    changes: &mut Vec<(usize, u64)>,
    row: usize,
    cells: impl IntoIterator<Item = &'a AtomicU64>,
) {
    let cells = cells.into_iter().enumerate();
    changes.extend(cells.map(|(at, cell)| (row + at, cell.load(Relaxed))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(metrics: &Metrics, rule: &str) -> Ending {
        Ending::Sent {
            rule: metrics.up_rule(rule),
            bytes: 10,
        }
    }

    #[test]
    fn what_was_counted_is_known_to_the_next_sidecar_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::open(dir.path()).unwrap();
        assert_eq!(metrics.begin_uplink(7, 0, 0), 0);
        let rule = metrics.up_rule("a A");
        rule.matched.fetch_add(5, Relaxed);
        let done = UplinkDone {
            position: 160,
            frames: 4,
            endings: vec![
                sent(&metrics, "a A"),
                Ending::Dead(Arc::clone(&rule)),
                sent(&metrics, "b B"),
                Ending::Unroutable,
            ],
        };
        // Five frames lie before the position: one of them was damaged.
        metrics.settle_uplink(&done, 5);
        drop(metrics);
        let next = Metrics::open(dir.path()).unwrap();
        assert_eq!(next.begin_uplink(7, 0, 0), 160);
        let snapshot = next.snapshot();
        let row = &snapshot.uplink[0];
        assert_eq!(
            (row.matched, row.sent, row.dead, row.bytes),
            (2, 1, 1, 10),
            "those under way come again"
        );
        assert_eq!(snapshot.uplink[1].sent, 1);
        assert_eq!((snapshot.unroutable, snapshot.uplink_done), (1, 4));
        assert_eq!((snapshot.uplink_damaged, snapshot.uplink_copies), (1, 4));
        assert_eq!(next.begin_uplink(8, 32, 2), 32, "another log");
    }

    #[test]
    fn a_frame_that_was_appended_and_not_counted_is_counted_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        for (frames, handed_over) in [(3, 1), (4, 2)] {
            let metrics = Metrics::open(dir.path()).unwrap();
            metrics.begin_downlink(7, 3);
            let rule = metrics.down_rule("A a");
            metrics.appending(&rule, 100);
            drop((rule, metrics));
            // Killed here: before the append, or behind it.
            let next = Metrics::open(dir.path()).unwrap();
            next.begin_downlink(7, frames);
            let rule = next.down_rule("A a");
            rule.received.fetch_add(1, Relaxed);
            rule.handed_over.fetch_add(1, Relaxed);
            next.settle_downlink(&rule, frames + 1);
            let row = &next.snapshot().downlink[0];
            assert_eq!((row.received, row.handed_over), (handed_over, handed_over));
            drop((rule, next));
            std::fs::remove_file(dir.path().join("sidecar.counters")).unwrap();
        }
    }
    #[test]
    fn what_goes_down_again_is_left_out_of_the_sums() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::open(dir.path()).unwrap();
        metrics.begin_downlink(7, 0);
        let rule = metrics.down_rule("A a");
        let hand_over = |frames| {
            metrics.appending(&rule, 1);
            rule.received.fetch_add(1, Relaxed);
            rule.handed_over.fetch_add(1, Relaxed);
            metrics.settle_downlink(&rule, frames);
        };
        let sum = |metrics: &Metrics, frames: i64| {
            let snapshot = metrics.snapshot();
            let handed_over: u64 = snapshot.downlink.iter().map(|rule| rule.handed_over).sum();
            assert_eq!(handed_over.cast_signed(), frames + snapshot.downlink_base);
        };
        hand_over(1);
        metrics.replayed_down(2);
        hand_over(3);
        sum(&metrics, 3);
        drop((rule, metrics));
        // One more was appended, and its sidecar killed.
        let next = Metrics::open(dir.path()).unwrap();
        next.begin_downlink(7, 4);
        sum(&next, 4);
    }
}
