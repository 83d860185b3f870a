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
    in_flight: bool,
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
            in_flight: false,
            failures: 0,
            not_before: None,
            narrowed: usize::MAX,
        }
    }

    pub(super) fn push(&mut self, mut item: Item) {
        self.stamp.put_on(&mut item.message);
        self.waiting.push_back(item);
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// When the lane wants to be looked at again; none while it has nothing to send or something in flight.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.not_before
            .filter(|_| !self.in_flight && !self.waiting.is_empty())
    }

    /// The next batch, which counts as in flight from now on. None while there is nothing to send, or not yet.
    pub(super) fn next_batch(&mut self, limits: BatchLimits, now: Instant) -> Option<Batch> {
        if self.in_flight
            || self.waiting.is_empty()
            || self.not_before.is_some_and(|when| when > now)
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
            bytes += item.message.weight();
            if bytes > limits.bytes && !batch.messages.is_empty() {
                break;
            }
            let Some(item) = self.waiting.pop_front() else {
                break;
            };
            batch.messages.push(item.message);
            batch.notes.push(item.note);
        }
        self.in_flight = true;
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
            self.waiting.push_front(Item { message, note });
        }
    }

    /// Everything that is not sent, in its order.
    pub(super) fn into_waiting(self) -> VecDeque<Item> {
        self.waiting
    }
}
