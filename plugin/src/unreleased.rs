//! What was injected and is not yet given back to the sidecar.
//!
//! `mosquitto_broker_publish` only queues, so nothing goes back in the tick that injected it. And Mosquitto keeps its sessions in
//! memory until it saves them: with `downlink_release_delay` what it has taken goes back only when it is so old, and comes again
//! when Mosquitto was killed before.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use handoff::Position;

/// What ticks within this time have injected goes back together.
const TOGETHER: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Injected {
    first: Instant,
    last: Instant,
    /// Everything before it.
    upto: Position,
}

/// The positions that are to be released, oldest first.
#[derive(Debug)]
pub(crate) struct Unreleased {
    delay: Duration,
    waiting: VecDeque<Injected>,
}

impl Unreleased {
    pub(crate) fn new(delay: Duration) -> Unreleased {
        Unreleased {
            delay,
            waiting: VecDeque::new(),
        }
    }

    /// A tick has injected everything before `upto`.
    pub(crate) fn injected(&mut self, upto: Position, now: Instant) {
        match self.waiting.back_mut() {
            Some(last) if now.saturating_duration_since(last.first) < TOGETHER.min(self.delay) => {
                last.last = now;
                last.upto = upto;
            }
            _ => self.waiting.push_back(Injected {
                first: now,
                last: now,
                upto,
            }),
        }
    }

    /// Up to where can be released, in a tick that has not injected anything yet.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Position> {
        let mut due = None;
        while let Some(oldest) = self
            .waiting
            .pop_front_if(|oldest| now.saturating_duration_since(oldest.last) >= self.delay)
        {
            due = Some(oldest.upto);
        }
        due
    }

    /// Up to where can be released when Mosquitto ends in order: it has saved its sessions. What the last ticks injected may be
    /// in its queue still.
    pub(crate) fn due_at_end(&mut self) -> Option<Position> {
        self.waiting.pop_back();
        self.waiting.pop_back().map(|injected| injected.upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_delay_the_next_tick_releases() {
        let mut unreleased = Unreleased::new(Duration::ZERO);
        let now = Instant::now();
        assert_eq!(unreleased.due(now), None);
        unreleased.injected(16, now);
        assert_eq!(unreleased.due(now), Some(16));
        assert_eq!(unreleased.due(now), None);
        unreleased.injected(32, now);
        assert_eq!(unreleased.due_at_end(), None);
    }

    #[test]
    fn nothing_is_released_before_its_time_however_often_something_is_injected() {
        let delay = Duration::from_secs(3);
        let mut unreleased = Unreleased::new(delay);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut released = 0;
        for ms in 0..20_000_u64 {
            if let Some(upto) = unreleased.due(at(ms)) {
                // Position n was injected at millisecond n.
                assert!(upto + 3_000 <= ms, "{upto} at {ms}");
                released = upto;
            }
            unreleased.injected(ms, at(ms));
            assert!(unreleased.waiting.len() < 200);
        }
        assert!(released > 16_900, "{released}");
        assert!(unreleased.due_at_end().is_some_and(|upto| upto < 20_000));
    }
}
