//! Keeps what comes from outside from flooding Mosquitto's log. The counters have everything.

use std::time::{Duration, Instant};

/// Least time between two complaints about the same kind of thing.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one through each second.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    last: Option<Instant>,
}

impl Limit {
    /// Whether to complain now.
    pub(crate) fn allows(&mut self) -> bool {
        self.allows_at(Instant::now())
    }

    fn allows_at(&mut self, now: Instant) -> bool {
        let allowed = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if allowed {
            self.last = Some(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_a_second_is_enough() {
        let mut limit = Limit::default();
        let start = Instant::now();
        assert!(limit.allows_at(start));
        assert!(!limit.allows_at(start + EVERY / 2));
        assert!(limit.allows_at(start + EVERY));
        assert!(!limit.allows_at(start + EVERY));
    }
}
