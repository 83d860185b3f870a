//! What a fetcher has read of its queue, by which it sees that the queue is another one now: a topic that is deleted and made anew
//! counts its offsets from 0 again, and whoever goes on at the old offset misses what is before it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ahead::Progress;
use super::pull;
use super::wanted::Wanted;
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
    before: Option<Before>,
    /// The broker has taken an offset of ours for one of the queue's.
    was_there: bool,
}

/// The queue as it was when it was found to be another one. If it is the old one after all, it has nothing newer up to the mark.
#[derive(Debug)]
struct Before {
    mark: Mark,
    /// What was wanted of it, and is owed still.
    wanted: Wanted,
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

    /// The queue has what we have asked for, or its end is there.
    pub(super) fn is_there(&mut self) {
        self.was_there = true;
    }

    /// Whether the broker has known this queue to be as long as it was read: if it is shorter now, it is another one.
    pub(super) fn was_there(&self) -> bool {
        self.was_there || !self.is_fresh()
    }

    /// The queue is another one: reading begins again at `offset`. False when nothing was read since it last did.
    pub(super) fn begin_again(
        &mut self,
        queue: &Queue,
        (progress, wanted): (&Progress, &mut Wanted),
        offset: i64,
    ) -> bool {
        let newest = self.newest.take();
        if newest.is_none() && !self.was_there {
            return false;
        }
        let next = progress.next.swap(offset, Ordering::Relaxed);
        log::warn!(
            "{}: was made anew, and had been read up to offset {next}; reading from {offset}",
            pull::name(queue)
        );
        let anew = wanted.anew();
        let old = std::mem::replace(wanted, anew);
        if let Some((mark, _)) = newest {
            self.before = Some(Before { mark, wanted: old });
        }
        self.was_there = false;
        true
    }

    /// Something is wanted anew from the present on. Should the queue be the old one after all, nothing of it was given there.
    pub(super) fn wants_more(&mut self, keys: impl Iterator<Item = Option<String>>, present: i64) {
        if let Some(before) = &mut self.before
            && present <= before.mark.offset
        {
            before.wanted.owe(keys);
        }
    }

    /// Leaves out what was read before the queue began again, and remembers the newest of the others.
    pub(super) fn take_note(&mut self, messages: &mut Vec<Incoming>) {
        if let Some(Before { mark, wanted }) = &self.before {
            messages.retain_mut(|message| {
                let is_new =
                    message.offset > mark.offset || message.stored_at_ms > mark.stored_at_ms;
                message.is_read_back = !is_new;
                is_new || wanted.owes_still(message)
            });
        }
        if let Some(last) = messages.last() {
            self.newest = Some((Mark::of(last), Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::by_tag::ByTag;
    use super::super::wanted::Owed;
    use super::*;

    fn wanted() -> Wanted {
        Wanted::new(ByTag::of_expression("*", i64::MIN))
    }

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
        let (progress, mut wanted) = (Progress::starting(12), wanted());
        let mut reading = Reading::default();
        assert!(reading.is_fresh());
        assert_eq!(read(&mut reading, &[(10, 500), (11, 501)]), [10, 11]);
        reading.begin_again(&queue(), (&progress, &mut wanted), 0);
        assert_eq!(progress.next.load(Ordering::Relaxed), 0);
        assert!(!reading.is_fresh() && reading.due().is_none());
        // The old one after all, and then the new one.
        assert_eq!(read(&mut reading, &[(0, 400), (11, 501), (12, 502)]), [12]);
        reading.begin_again(&queue(), (&progress, &mut wanted), 0);
        assert_eq!(read(&mut reading, &[(0, 600), (1, 601)]), [0, 1]);
    }

    #[test]
    fn beginning_again_twice_without_a_message_changes_nothing() {
        let (progress, mut wanted) = (Progress::starting(2), wanted());
        let mut reading = Reading::default();
        read(&mut reading, &[(1, 500)]);
        reading.begin_again(&queue(), (&progress, &mut wanted), 0);
        progress.next.store(7, Ordering::Relaxed);
        reading.begin_again(&queue(), (&progress, &mut wanted), 0);
        assert_eq!(progress.next.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn the_old_queue_after_all_gives_what_was_to_be_read_back_and_what_is_wanted_anew() {
        let progress = Progress::starting(10);
        let mut wanted = Wanted::new(ByTag::of_expression("a", i64::MIN));
        let mut reading = Reading::default();
        read(&mut reading, &[(9, 509)]);
        let mut new = ByTag::default();
        new.insert(Some("b".to_owned()), Owed::from(4));
        wanted.take_up(new, 0, 10);
        wanted.advance(0, 6, 10);
        assert!(reading.begin_again(&queue(), (&progress, &mut wanted), 0));
        assert!(wanted.is_read_back());
        reading.wants_more([Some("c".to_owned())].into_iter(), 3);
        let mut given = |tag: &str| -> Vec<i64> {
            let all = (0..12).map(|offset| Incoming {
                tag: Some(tag.to_owned()),
                ..message(offset, 500 + offset)
            });
            let mut all = all.collect();
            reading.take_note(&mut all);
            assert!(
                all.iter()
                    .all(|message| message.is_read_back == (message.offset < 10))
            );
            all.iter().map(|message| message.offset).collect()
        };
        assert_eq!(given("a"), [10, 11]);
        assert_eq!(given("b"), [6, 7, 8, 9, 10, 11]);
        assert_eq!(given("c"), (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn a_queue_of_which_no_message_was_wanted_is_begun_again_too() {
        let (progress, mut wanted) = (Progress::starting(12), wanted());
        let mut reading = Reading::default();
        assert!(!reading.begin_again(&queue(), (&progress, &mut wanted), 0));
        reading.is_there();
        assert!(reading.begin_again(&queue(), (&progress, &mut wanted), 0));
        assert_eq!(progress.next.load(Ordering::Relaxed), 0);
        assert!(!reading.begin_again(&queue(), (&progress, &mut wanted), 0));
    }
}
