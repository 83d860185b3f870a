//! Messages per second over the last minute.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How often the counters are looked at.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const SAMPLES: usize = 13;

/// Counters at several moments of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    samples: VecDeque<(Instant, HashMap<String, u64>)>,
}

impl Rates {
    /// Keeps what the counters say now.
    pub(crate) fn sample(&mut self, now: Instant, counters: HashMap<String, u64>) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, counters));
    }

    /// Growth per second of a counter that stands at `value` now, since the oldest sample. A counter that was not there then
    /// began at 0.
    pub(crate) fn per_second(&self, now: Instant, name: &str, value: u64) -> f64 {
        let Some((since, counters)) = self.samples.front() else {
            return 0.0;
        };
        let elapsed = now.saturating_duration_since(*since).as_secs_f64();
        if elapsed < 0.001 {
            return 0.0;
        }
        let before = counters.get(name).copied().unwrap_or(0);
        let rate = value.saturating_sub(before) as f64 / elapsed;
        (rate * 10.0).round() / 10.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(value: u64) -> HashMap<String, u64> {
        HashMap::from([("a".to_owned(), value)])
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let start = Instant::now();
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(start, "a", 5), 0.0);
        for i in 0..100 {
            rates.sample(start + SAMPLE_EVERY * i, counters(u64::from(i) * 50));
        }
        let now = start + SAMPLE_EVERY * 99;
        assert_eq!(rates.per_second(now, "a", 99 * 50), 10.0);
        assert_eq!(rates.per_second(now, "new", 600), 10.0);
    }

    #[test]
    fn a_counter_that_began_again_is_no_negative_rate() {
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.sample(start, counters(100));
        assert_eq!(rates.per_second(start + SAMPLE_EVERY, "a", 3), 0.0);
    }
}
