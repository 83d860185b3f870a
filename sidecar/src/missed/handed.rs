//! Which of the cluster's messages were handed over to this node's broker lately, and where they stand in the downlink log.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rocketmq::Queue;

/// Messages remembered of a queue: 16 bytes each, taken as they come.
const IN_TURN_MAX: usize = 65_536;
/// The same of those that were read back.
const READ_BACK_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Handed(Mutex<HashMap<Queue, Places>>);

/// Offsets in the queue, with positions in the log.
#[derive(Debug, Default)]
struct Places {
    in_turn: VecDeque<(i64, u64)>,
    read_back: BTreeMap<i64, u64>,
}

impl Handed {
    fn lock(&self) -> MutexGuard<'_, HashMap<Queue, Places>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The message with this offset begins at this position of the log.
    pub(crate) fn note(&self, queue: &Queue, offset: i64, position: u64) {
        let mut queues = self.lock();
        if !queues.contains_key(queue) {
            queues.insert(queue.clone(), Places::default());
        }
        let Some(places) = queues.get_mut(queue) else {
            return;
        };
        if places.in_turn.back().is_none_or(|(last, _)| *last < offset) {
            places.in_turn.push_back((offset, position));
            if places.in_turn.len() > IN_TURN_MAX {
                places.in_turn.pop_front();
            }
        } else {
            places.read_back.insert(offset, position);
            if places.read_back.len() > READ_BACK_MAX {
                places.read_back.pop_first();
            }
        }
    }

    /// Where the message stands in the log, if it was handed over and that is remembered.
    pub(super) fn position(&self, queue: &Queue, offset: i64) -> Option<u64> {
        let queues = self.lock();
        let places = queues.get(queue)?;
        let in_turn = places
            .in_turn
            .binary_search_by_key(&offset, |(offset, _)| *offset);
        in_turn
            .ok()
            .and_then(|at| places.in_turn.get(at))
            .map(|(_, position)| *position)
            .or_else(|| places.read_back.get(&offset).copied())
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
    fn places_are_found_whatever_order_they_came_in() {
        let handed = Handed::default();
        for (offset, position) in [(10, 100), (12, 200), (11, 300), (20, 400), (3, 500)] {
            handed.note(&queue(0), offset, position);
        }
        let found: Vec<_> = (0..21)
            .filter_map(|offset| Some((offset, handed.position(&queue(0), offset)?)))
            .collect();
        assert_eq!(
            found,
            [(3, 500), (10, 100), (11, 300), (12, 200), (20, 400)]
        );
        assert_eq!(handed.position(&queue(1), 10), None);
    }

    #[test]
    fn memory_is_bounded() {
        let handed = Handed::default();
        for offset in 0..2 * IN_TURN_MAX as i64 {
            handed.note(&queue(0), offset, offset as u64);
        }
        for offset in (0..3 * READ_BACK_MAX as i64).rev() {
            handed.note(&queue(0), offset, 7);
        }
        let queues = handed.lock();
        let places = &queues[&queue(0)];
        assert_eq!(places.in_turn.len(), IN_TURN_MAX);
        assert_eq!(places.read_back.len(), READ_BACK_MAX);
    }
}
