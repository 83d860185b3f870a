//! What a fetcher has read of its queue, by which it sees that the queue is another one now: a topic that is deleted and made anew
//! counts its offsets from 0 again, and whoever goes on at the old offset misses what is before it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Progress;
use super::fetch;
use crate::{Incoming, Queue};

/// While messages follow each other this closely, the queue is taken for the same one.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A message's place and time in a queue, which no other message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: i64,
    pub(super) stored_at_ms: i64,
}

impl Mark {
    pub(super) fn of(message: &Incoming) -> Mark {
        Mark {
            offset: message.offset,
            stored_at_ms: message.stored_at_ms,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The newest message that was read, and when.
    newest: Option<(Mark, Instant)>,
    /// The same of the queue before. A queue that is the old one after all has nothing newer up to there.
    before: Option<Mark>,
}

impl Reading {
    /// Nothing was read yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.newest.is_none() && self.before.is_none()
    }

    /// The message by which to find out whether the queue is still the same, when it is time for that.
    pub(super) fn due(&self) -> Option<Mark> {
        let (mark, at) = self.newest?;
        (at.elapsed() > TRUSTED_FOR).then_some(mark)
    }

    /// The queue is another one: reading begins again at `offset`.
    pub(super) fn begin_again(&mut self, queue: &Queue, progress: &Progress, offset: i64) {
        let Some((newest, _)) = self.newest.take() else {
            return;
        };
        log::warn!(
            "{}: was made anew after offset {}; reading from {offset}",
            fetch::name(queue),
            newest.offset
        );
        self.before = Some(newest);
        progress.next.store(offset, Ordering::Relaxed);
    }

    /// Leaves out what was read before the queue began again, and remembers the newest of the others.
    pub(super) fn take_note(&mut self, messages: &mut Vec<Incoming>) {
        if let Some(before) = self.before {
            messages.retain(|message| {
                message.offset > before.offset || message.stored_at_ms > before.stored_at_ms
            });
        }
        if let Some(last) = messages.last() {
            self.newest = Some((Mark::of(last), Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    fn queue() -> Queue {
        Queue {
            topic: "T".to_owned(),
            broker: "b".to_owned(),
            id: 0,
        }
    }

    fn message(offset: i64, stored_at_ms: i64) -> Incoming {
        Incoming {
            queue: queue(),
            offset,
            stored_at_ms,
            ..Incoming::default()
        }
    }

    fn read(reading: &mut Reading, messages: &[(i64, i64)]) -> Vec<i64> {
        let mut messages: Vec<Incoming> = messages
            .iter()
            .map(|(offset, stored)| message(*offset, *stored))
            .collect();
        reading.take_note(&mut messages);
        messages.iter().map(|message| message.offset).collect()
    }

    #[test]
    fn a_queue_made_anew_is_read_from_its_beginning_and_the_same_one_is_not_read_twice() {
        let progress = Progress {
            next: AtomicI64::new(12),
            max: AtomicI64::new(12),
        };
        let mut reading = Reading::default();
        assert!(reading.is_fresh());
        assert_eq!(read(&mut reading, &[(10, 500), (11, 501)]), [10, 11]);
        reading.begin_again(&queue(), &progress, 0);
        assert_eq!(progress.next.load(Ordering::Relaxed), 0);
        assert!(!reading.is_fresh() && reading.due().is_none());
        // The old one after all, and then the new one.
        assert_eq!(read(&mut reading, &[(0, 400), (11, 501), (12, 502)]), [12]);
        reading.begin_again(&queue(), &progress, 0);
        assert_eq!(read(&mut reading, &[(0, 600), (1, 601)]), [0, 1]);
    }

    #[test]
    fn beginning_again_twice_without_a_message_changes_nothing() {
        let progress = Progress {
            next: AtomicI64::new(2),
            max: AtomicI64::new(2),
        };
        let mut reading = Reading::default();
        read(&mut reading, &[(1, 500)]);
        reading.begin_again(&queue(), &progress, 0);
        progress.next.store(7, Ordering::Relaxed);
        reading.begin_again(&queue(), &progress, 0);
        assert_eq!(progress.next.load(Ordering::Relaxed), 7);
    }
}
