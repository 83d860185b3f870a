//! How long to wait before the next start.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// A sidecar that ran this long had begun its work: it did not die of being started, and messages wait. One that dies each time
/// after this is started at most once in that time, which nobody notices.
const FINE: Duration = Duration::from_secs(2);

/// None after a run that began well; else it doubles from 250 ms to 10 s with each death in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// The sidecar ended after `ran`: the wait before the next start.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= FINE {
            self.next = FIRST;
            return Duration::ZERO;
        }
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_a_good_run() {
        let mut backoff = Backoff::new();
        let mut waits = || -> Vec<u128> {
            (0..8)
                .map(|_| backoff.after(Duration::ZERO).as_millis())
                .collect()
        };
        let expected = [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000];
        assert_eq!(waits(), expected);
        assert_eq!(backoff.after(FINE), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO), FIRST);
    }

    #[test]
    fn one_that_is_killed_every_few_seconds_is_started_at_once_each_time() {
        let mut backoff = Backoff::new();
        assert!((0..100).all(|_| backoff.after(Duration::from_secs(3)).is_zero()));
    }
}
