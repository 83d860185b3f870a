//! A lane: what is on its way to one queue of RocketMQ. One batch in flight, the next one fills meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rocketmq::{Outgoing, Queue};

use super::layout::{Layout, Stamp};
use super::rules::Rule;
use super::window::Ticket;

/// The pause before a batch is sent again, doubled with each failure in a row.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause before a batch is sent again that RocketMQ has stored, but not yet safely: each time is a repetition.
const PAUSE_RESERVED: Duration = Duration::from_secs(1);

/// A lane whose last batch had so many messages carries a stream ...
const STREAM: usize = 8;
/// ... and its next batch waits for more until so long after that one went: a request costs RocketMQ and us as much as some dozen messages.
const LINGER: Duration = Duration::from_millis(2);
/// With so many bytes it does not wait: then the bytes are what costs.
const ENOUGH_BYTES: usize = 64 << 10;

/// A message for RocketMQ, and what is to be done when it has arrived.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message: Outgoing,
    pub(super) note: Note,
}

/// What goes with a message without being sent.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) ticket: Ticket,
    /// Which of the messages for this topic that the frame became, from 1.
    pub(super) copy: usize,
    pub(super) rule: Arc<Rule>,
    /// Of the ordering key.
    pub(super) hash: u64,
    pub(super) payload_bytes: u64,
}

/// How large a batch may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// Messages that are sent in one request. `messages` and `notes` run in step.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Outgoing>,
    pub(super) notes: Vec<Note>,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: Queue,
    stamp: Stamp,
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    in_flight: bool,
    /// When the last batch went, and how many messages it had.
    last: Option<(Instant, usize)>,
    failures: u32,
    not_before: Option<Instant>,
    /// At most so many messages in the next batch: halved when a batch was refused, until the culprit is alone.
    narrowed: usize,
}

impl Lane {
    /// A lane to this queue, which is one of the layout's.
    pub(super) fn new(layout: &Layout, queue: Queue) -> Lane {
        Lane {
            stamp: layout.stamp(&queue),
            queue,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: false,
            last: None,
            failures: 0,
            not_before: None,
            narrowed: usize::MAX,
        }
    }

    pub(super) fn push(&mut self, mut item: Item) {
        self.stamp.put_on(&mut item.message);
        self.waiting_bytes += item.message.weight();
        self.waiting.push_back(item);
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// When the lane wants to be looked at again; none while it has nothing to send or something in flight.
    pub(super) fn wakes_at(&self, limits: BatchLimits) -> Option<Instant> {
        if self.in_flight || self.waiting.is_empty() {
            return None;
        }
        self.not_before.max(self.lingers_until(limits))
    }

    /// Until when a batch waits for more messages.
    fn lingers_until(&self, limits: BatchLimits) -> Option<Instant> {
        let (went, messages) = self.last?;
        let is_worth_it = messages >= STREAM
            && self.waiting.len() < limits.messages
            && self.waiting_bytes < ENOUGH_BYTES.min(limits.bytes);
        is_worth_it.then(|| went + LINGER)
    }

    /// The next batch, which counts as in flight from now on. None while there is nothing to send, or not yet.
    pub(super) fn next_batch(&mut self, limits: BatchLimits, now: Instant) -> Option<Batch> {
        if self.in_flight
            || self.waiting.is_empty()
            || self.wakes_at(limits).is_some_and(|when| when > now)
        {
            return None;
        }
        let count_max = limits.messages.min(self.narrowed).max(1);
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.messages.len() < count_max {
            let Some(item) = self.waiting.front() else {
                break;
            };
            let weight = item.message.weight();
            if bytes + weight > limits.bytes && !batch.messages.is_empty() {
                break;
            }
            bytes += weight;
            let Some(item) = self.waiting.pop_front() else {
                break;
            };
            batch.messages.push(item.message);
            batch.notes.push(item.note);
        }
        self.waiting_bytes -= bytes;
        self.in_flight = true;
        self.last = Some((now, batch.messages.len()));
        Some(batch)
    }

    /// The batch is done with: stored, or dead.
    pub(super) fn done(&mut self) {
        self.in_flight = false;
        self.failures = 0;
        self.not_before = None;
        self.narrowed = self.narrowed.saturating_mul(2);
    }

    /// The batch failed as a whole and is sent again, first of all, after a pause.
    pub(super) fn failed(&mut self, batch: Batch, now: Instant) {
        let pause = PAUSE_MIN
            .saturating_mul(1 << self.failures.min(10))
            .min(PAUSE_MAX);
        self.failures += 1;
        self.not_before = Some(now + pause);
        self.put_back(batch);
    }

    /// The batch is stored, but not yet safely, and is sent again, first of all, after a pause.
    pub(super) fn reserved(&mut self, batch: Batch, now: Instant) {
        self.not_before = Some(now + PAUSE_RESERVED);
        self.put_back(batch);
    }

    /// The batch was refused for good, and is sent again in halves.
    pub(super) fn split(&mut self, batch: Batch) {
        self.narrowed = (batch.messages.len() / 2).max(1);
        self.put_back(batch);
    }

    fn put_back(&mut self, batch: Batch) {
        self.in_flight = false;
        for (message, note) in batch.messages.into_iter().zip(batch.notes).rev() {
            self.waiting_bytes += message.weight();
            self.waiting.push_front(Item { message, note });
        }
    }

    /// Everything that is not sent, in its order.
    pub(super) fn into_waiting(self) -> VecDeque<Item> {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const LIMITS: BatchLimits = BatchLimits {
        messages: 64,
        bytes: 1 << 20,
    };

    fn lane() -> Lane {
        let queue = Queue {
            topic: "T".into(),
            broker: "b".into(),
            id: 0,
        };
        let queues = [queue];
        let layout = Layout::of(&queues);
        let [queue] = queues;
        Lane::new(&layout, queue)
    }

    fn push(lane: &mut Lane, count: usize, bytes: usize) {
        let rule = "# T";
        for _ in 0..count {
            let rule = Arc::new(Rule {
                rule: protocol::rules::UplinkRule::parse(rule).unwrap(),
                counters: Metrics::default().up_rule(rule),
            });
            lane.push(Item {
                message: Outgoing {
                    body: vec![b'x'; bytes].into(),
                    ..Outgoing::default()
                },
                note: Note {
                    ticket: 0,
                    copy: 1,
                    rule,
                    hash: 0,
                    payload_bytes: 1,
                },
            });
        }
    }

    fn next(lane: &mut Lane, now: Instant) -> Option<usize> {
        let batch = lane.next_batch(LIMITS, now)?;
        lane.done();
        Some(batch.messages.len())
    }

    #[test]
    fn single_messages_go_at_once() {
        let (mut lane, now) = (lane(), Instant::now());
        for _ in 0..3 {
            push(&mut lane, 1, 10);
            assert_eq!(next(&mut lane, now), Some(1));
        }
    }

    #[test]
    fn a_stream_waits_for_a_batch_that_is_worth_a_request_but_not_for_long() {
        let (mut lane, now) = (lane(), Instant::now());
        push(&mut lane, STREAM, 10);
        assert_eq!(next(&mut lane, now), Some(STREAM));
        push(&mut lane, 5, 10);
        assert_eq!(next(&mut lane, now + LINGER / 2), None);
        assert_eq!(lane.wakes_at(LIMITS), Some(now + LINGER));
        assert_eq!(next(&mut lane, now + LINGER), Some(5));
        // Five are no stream.
        push(&mut lane, 1, 10);
        assert_eq!(next(&mut lane, now + LINGER), Some(1));
    }

    #[test]
    fn a_full_batch_and_a_heavy_one_do_not_wait() {
        let now = Instant::now();
        for (count, bytes) in [(64, 10), (5, 16 << 10)] {
            let mut lane = lane();
            push(&mut lane, STREAM, 10);
            assert_eq!(next(&mut lane, now - LINGER), Some(STREAM));
            push(&mut lane, count, bytes);
            assert_eq!(next(&mut lane, now - LINGER / 2), Some(count), "{bytes}");
        }
    }

    #[test]
    fn the_bytes_that_wait_are_those_of_the_messages_that_wait() {
        let (mut lane, now) = (lane(), Instant::now());
        push(&mut lane, 100, 10);
        let weight =
            |lane: &Lane| -> usize { lane.waiting.iter().map(|item| item.message.weight()).sum() };
        let batch = lane.next_batch(LIMITS, now).unwrap();
        assert_eq!(lane.waiting_bytes, weight(&lane));
        lane.failed(batch, now);
        assert_eq!(lane.waiting_bytes, weight(&lane));
        assert_eq!(lane.waiting.len(), 100);
    }
}
