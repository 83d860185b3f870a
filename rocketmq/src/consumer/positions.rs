//! Where a fetcher was in its queue, and when: of the last minute.
//!
//! By the clock that only goes forward, so that one that is set right does not disturb it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back they are kept, at least.
const KEPT: Duration = Duration::from_secs(60);
/// They are no closer than this.
const STEP: Duration = Duration::from_millis(50);

/// See the module. All that is before such an offset was stored by then. Never empty; the first has no time when the queue was read
/// from its beginning, so that it holds for all times.
#[derive(Debug, Clone)]
pub(super) struct Positions(VecDeque<(Option<Instant>, i64)>);

impl Positions {
    pub(super) fn starting(at: Option<Instant>, offset: i64) -> Positions {
        Positions(VecDeque::from([(at, offset)]))
    }

    /// The next offset to read was this, when the broker had answered.
    pub(super) fn note(&mut self, at: Instant, next: i64) {
        match self.0.back() {
            Some((_, last)) if *last == next => return,
            Some((_, last)) if *last > next => self.0.clear(),
            Some((Some(time), _)) if at.saturating_duration_since(*time) < STEP => return,
            _ => {}
        }
        self.0.push_back((Some(at), next));
        // The one before the last minute is what tells of that minute's beginning.
        while let Some((Some(second), _)) = self.0.get(1)
            && at.saturating_duration_since(*second) > KEPT
        {
            self.0.pop_front();
        }
    }

    /// The newest that was reached at that time or before.
    pub(super) fn at(&self, time: Option<Instant>) -> Option<i64> {
        let found = self.0.iter().rev().find(|(at, _)| *at <= time);
        found.map(|(_, offset)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_newest_that_was_reached_by_then_is_found() {
        let start = Instant::now();
        let mut positions = Positions::starting(Some(start), 10);
        positions.note(after(start, 1000), 20);
        // Nothing new for a while, and then much at once: at 2.5 s it may have been anywhere between.
        positions.note(after(start, 2000), 20);
        positions.note(after(start, 3000), 99);
        let at = |ms| positions.at(Some(after(start, ms)));
        assert_eq!(at(0), Some(10));
        assert_eq!(at(999), Some(10));
        assert_eq!(at(1000), Some(20));
        assert_eq!(at(2999), Some(20));
        assert_eq!(at(60_000), Some(99));
        assert_eq!(positions.at(start.checked_sub(STEP)), None);
        assert_eq!(positions.at(None), None);
    }

    #[test]
    fn a_queue_that_was_read_from_its_beginning_is_known_at_all_times() {
        let start = Instant::now();
        let mut positions = Positions::starting(None, 0);
        positions.note(start, 5);
        assert_eq!(positions.at(None), Some(0));
        assert_eq!(positions.at(start.checked_sub(STEP)), Some(0));
        assert_eq!(positions.at(Some(start)), Some(5));
    }

    #[test]
    fn they_are_bounded_and_reach_back_a_minute() {
        let start = Instant::now();
        let mut positions = Positions::starting(Some(start), 0);
        for ms in 0..200_000 {
            positions.note(after(start, ms), i64::try_from(ms).expect("small").max(1));
        }
        assert!(positions.0.len() <= 1202, "{}", positions.0.len());
        let found = positions.at(Some(after(start, 139_999)));
        assert!(found.is_some_and(|offset| (139_900..=139_999).contains(&offset)));
        assert_eq!(positions.at(Some(after(start, 100_000))), None);
    }

    #[test]
    fn a_quiet_queue_is_known_for_as_long_as_it_was_quiet() {
        let start = Instant::now();
        let mut positions = Positions::starting(Some(start), 7);
        for second in 1..500 {
            positions.note(after(start, second * 1000), 7);
        }
        assert_eq!(positions.at(Some(after(start, 100_000))), Some(7));
    }

    #[test]
    fn going_back_forgets_what_was_further() {
        let start = Instant::now();
        let mut positions = Positions::starting(Some(start), 70);
        positions.note(after(start, 10), 5);
        assert_eq!(positions.at(Some(start)), None);
        assert_eq!(positions.at(Some(after(start, 10))), Some(5));
    }
}
