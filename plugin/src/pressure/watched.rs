//! A client whose queue is looked at in each tick: what it takes, and whether it is worth waiting for.

use std::time::{Duration, Instant};

use super::QueueState;
use super::room::{Limits, Room};

/// A client that takes less than this part of its queue in `downlink_hold` is taken for hung.
const PROGRESS_PART: u32 = 100;
/// After so long without a look at a client, that its queue has moved at all is taken for progress.
const UNSEEN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) id: String,
    /// It has got messages from RocketMQ. If not, its queue may be full of what is none of our business …
    taker: bool,
    /// … and it is waited for, but no longer than `downlink_hold` from this on.
    doubted: Option<Instant>,
    last: QueueState,
    /// The same with what this tick injects for it alone: the broker asks nobody about that.
    expected: QueueState,
    /// Since when it has not taken a part of its queue …
    since: Instant,
    /// … of which it has taken so many.
    taken: u32,
    /// When it was looked at last.
    seen: Instant,
    hung: bool,
    told: bool,
    /// Deliveries to it of what the last tick injected: several for each message if its subscriptions overlap.
    deliveries: u32,
    copies: u32,
}

impl Watched {
    pub(super) fn new(id: String, taker: bool, state: QueueState, now: Instant) -> Watched {
        Watched {
            id,
            taker,
            doubted: None,
            last: state,
            expected: state,
            since: now,
            taken: 0,
            seen: now,
            hung: false,
            told: false,
            deliveries: 0,
            copies: 1,
        }
    }

    /// A message from RocketMQ is about to be queued for it.
    pub(super) fn delivered(&mut self) {
        self.taker = true;
        self.deliveries += 1;
    }

    /// One for it alone was injected. Whether Mosquitto will drop it, as far as can be told before it is handed out.
    pub(super) fn sent(&mut self, limits: &Limits, qos: u8, bytes: u64) -> bool {
        self.taker = true;
        let dropped = limits.will_drop(&self.expected, qos);
        if !dropped {
            self.expected.add(qos, bytes);
        }
        dropped
    }

    /// Whether the others should wait for it at all, if it takes its messages.
    pub(super) fn is_worth_waiting(&mut self, now: Instant, hold: Duration) -> bool {
        self.taker || now.saturating_duration_since(*self.doubted.get_or_insert(now)) < hold
    }

    pub(super) fn is_hung(&self) -> bool {
        self.hung
    }

    /// Of a message to all, how many copies it gets. `injected`: how many messages the last tick injected.
    pub(super) fn copies(&mut self, injected: u32) -> u32 {
        if injected > 0 {
            self.copies = self.copies.max(self.deliveries.div_ceil(injected));
            self.deliveries = 0;
        }
        self.copies
    }

    /// What it has taken since the last tick, and whether it is hung.
    pub(super) fn progress(
        &mut self,
        limits: &Limits,
        hold: Duration,
        state: QueueState,
        room: Room,
        now: Instant,
    ) {
        let before = std::mem::replace(&mut self.last, state);
        self.expected = state;
        let fewer = before.waiting.saturating_sub(state.waiting);
        let flushed = before.out_packets.saturating_sub(state.out_packets);
        let part = (limits.messages() / PROGRESS_PART).max(1);
        // Others may have filled it again. Whoever was not looked at for long has its chance.
        let unseen = now.saturating_duration_since(std::mem::replace(&mut self.seen, now));
        let others = match before.heads != state.heads {
            true if unseen >= UNSEEN => part,
            changed => u32::from(changed),
        };
        self.taken = self.taken.saturating_add(fewer.max(flushed).max(others));
        if self.taken >= part {
            self.taken = 0;
            self.since = now;
            if std::mem::take(&mut self.hung) && self.told {
                self.told = false;
                log::info!("client `{}` takes messages again", self.id);
            }
        } else if now.saturating_duration_since(self.since) >= hold {
            self.hung = true;
        }
        let loses = self.hung && self.taker && room.messages == 0;
        if loses && !std::mem::replace(&mut self.told, true) {
            log::warn!(
                "client `{}` has taken next to nothing for {:?} and its queue is full (max_queued_messages {}): Mosquitto \
                 drops what comes for it (counted as downlink_queue_dropped), and the other clients go on",
                self.id,
                now.saturating_duration_since(self.since),
                limits.messages()
            );
        }
    }
}
