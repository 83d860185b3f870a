//! Which offsets may go back to RocketMQ.
//!
//! Frames leave the hand-off log in the order in which they were written, so one queue of (position, offset) serves all
//! RocketMQ queues: when the plugin has released everything before a position, all that was handed over before it is done.

use std::collections::{BTreeMap, VecDeque};

use rocketmq::Queue;

/// With so many entries, those of one queue become one: its offset is committed later then.
const ENTRIES_MAX: usize = 4_096;

/// What was handed over and not yet committed. Grows by one entry per RocketMQ queue and batch, not per message, and not beyond
/// [`ENTRIES_MAX`] or one for each queue.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    entries: VecDeque<Entry>,
    done: BTreeMap<Queue, i64>,
}

#[derive(Debug)]
struct Entry {
    /// The log's end when this was handed over.
    position: u64,
    queue: Queue,
    next_offset: i64,
}

impl InFlight {
    /// Everything of `queue` below `next_offset` is dealt with as soon as the plugin has released `position`.
    pub(crate) fn push(&mut self, queue: &Queue, next_offset: i64, position: u64) {
        debug_assert!(
            self.entries
                .back()
                .is_none_or(|last| last.position <= position)
        );
        if self.entries.len() >= ENTRIES_MAX
            && let Some(newest) = self.entries.iter().rposition(|entry| entry.queue == *queue)
        {
            self.entries.remove(newest);
        }
        self.entries.push_back(Entry {
            position,
            queue: queue.clone(),
            next_offset,
        });
    }

    /// The plugin has released everything before `released`.
    pub(crate) fn release(&mut self, released: u64) {
        while let Some(entry) = self
            .entries
            .pop_front_if(|entry| entry.position <= released)
        {
            self.done.insert(entry.queue, entry.next_offset);
        }
    }

    /// Offsets to commit, since the last call. Those that could not be committed go back by [`InFlight::put_back`].
    pub(crate) fn take_done(&mut self) -> Vec<(Queue, i64)> {
        std::mem::take(&mut self.done).into_iter().collect()
    }

    /// A commit failed: they are offered again, unless newer ones have come.
    pub(crate) fn put_back(&mut self, offsets: Vec<(Queue, i64)>) {
        for (queue, next_offset) in offsets {
            self.done.entry(queue).or_insert(next_offset);
        }
    }

    /// Nothing waits for the plugin.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> Queue {
        Queue {
            topic: "T".into(),
            broker: "b".into(),
            id,
        }
    }

    #[test]
    fn an_offset_waits_for_the_release_of_its_position() {
        let mut table = InFlight::default();
        table.push(&queue(0), 5, 100);
        table.push(&queue(1), 9, 200);
        table.release(99);
        assert!(table.take_done().is_empty());
        table.release(100);
        assert_eq!(table.take_done(), [(queue(0), 5)]);
        assert!(!table.is_empty());
        table.release(1000);
        assert_eq!(table.take_done(), [(queue(1), 9)]);
        assert!(table.is_empty());
    }

    #[test]
    fn however_many_batches_wait_memory_is_bounded_and_nothing_is_committed_early() {
        let mut table = InFlight::default();
        let last = 3 * ENTRIES_MAX as i64;
        for offset in 0..last {
            table.push(&queue(offset as i32 % 3), offset, 10 * offset as u64);
        }
        assert_eq!(table.entries.len(), ENTRIES_MAX);
        table.release(10 * (last - 3) as u64 - 1);
        for (_, offset) in table.take_done() {
            assert!(offset < last - 3, "{offset}");
        }
        table.release(10 * last as u64);
        let done: Vec<_> = table
            .take_done()
            .into_iter()
            .map(|(_, offset)| offset)
            .collect();
        assert_eq!(done, [last - 3, last - 2, last - 1]);
        assert!(table.is_empty());
    }

    #[test]
    fn the_newest_offset_of_a_queue_is_committed_once() {
        let mut table = InFlight::default();
        table.push(&queue(0), 5, 100);
        table.push(&queue(0), 8, 300);
        table.release(300);
        assert_eq!(table.take_done(), [(queue(0), 8)]);
        assert!(table.take_done().is_empty());
    }

    #[test]
    fn a_failed_commit_does_not_overwrite_a_newer_offset() {
        let mut table = InFlight::default();
        table.push(&queue(0), 5, 100);
        table.release(100);
        let failed = table.take_done();
        table.push(&queue(0), 8, 200);
        table.release(200);
        table.put_back(failed);
        assert_eq!(table.take_done(), [(queue(0), 8)]);
    }

    #[test]
    fn a_message_without_a_frame_does_not_overtake_those_before_it() {
        let mut table = InFlight::default();
        table.push(&queue(0), 5, 100);
        table.push(&queue(0), 6, 100);
        table.release(50);
        assert!(
            table.take_done().is_empty(),
            "the frame before the skipped message is not injected yet"
        );
        table.release(100);
        assert_eq!(table.take_done(), [(queue(0), 6)]);
    }
}
