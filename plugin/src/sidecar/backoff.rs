//! How long to wait before the next start.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// A sidecar that ran this long was fine: the next start is quick again.
const FINE: Duration = Duration::from_secs(30);

/// Doubles from 250 ms to 10 s.
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
        let waits: Vec<u128> = (0..8)
            .map(|_| backoff.after(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(backoff.after(FINE).as_millis(), 250);
    }
}
