//! How much may be injected now, so that no client's queue overflows.
//!
//! Past a client's `max_queued_messages` Mosquitto drops what comes, with a line in its log and no more. So the queues
//! of the clients that get downlink messages are watched (`ffi::client_queue` reads them), and while one of them is full
//! nothing is injected: RocketMQ keeps it. The log is one after the other, so a client that takes nothing would stop
//! all others: after `downlink_hold` without progress the bridge goes on without it, and what Mosquitto then drops is
//! counted.
//!
//! Only clients that have got something from RocketMQ are waited for: a queue that is full of what comes from elsewhere is
//! none of our business. A client that comes back with a full queue may be one of them, and has `downlink_hold` to show it.
//! What is left is the very first delivery to a client whose queue others have filled meanwhile: Mosquitto drops up to
//! one tick's messages for it, and they are counted.
//!
//! Which client a message goes to is not known before it is injected. But a client is not watched only while its queue
//! has room for three quarters of the limit, and a tick injects at most a quarter: it is watched in time.
//!
//! Only clients that are connected are watched, from an event of theirs up to the one that tells of their end: between
//! these the broker does not free their record. This is *not* for sessions whose client is away: their queue fills,
//! whatever we do, and what is dropped of it is counted as it happens.

mod room;
mod watched;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use handoff::Counters;
use protocol::config::mosquitto_conf::QueueLimits;
use protocol::counters as count;
use protocol::message::Message;

use crate::limit::Limit;

use room::Limits;
pub(crate) use room::QueueState;
use watched::Watched;

/// Bytes injected in one tick, at most (and the rest of the last message).
const TICK_BYTES: u64 = 4 << 20;

/// Reads the queues of clients by the addresses of their records.
pub(crate) trait Queues {
    /// The queue of a client that is there.
    fn of(&self, client: usize) -> Option<QueueState>;
    /// Its id.
    fn id(&self, client: usize) -> Option<String>;
}

/// A message is about to be queued for a client.
pub(crate) struct Delivery<'a> {
    pub(crate) client: usize,
    pub(crate) state: QueueState,
    pub(crate) qos: u8,
    pub(crate) id: &'a dyn Fn() -> String,
}

/// What may be injected in this tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

impl Allowance {
    const NONE: Allowance = Allowance {
        messages: 0,
        bytes: 0,
    };
}

/// See the module.
pub(crate) struct Pressure {
    limits: Limits,
    hold: Duration,
    per_tick: u32,
    /// There may be downlink messages.
    wanted: bool,
    counters: Rc<Counters>,
    watched: HashMap<usize, Watched>,
    /// Connected clients that have got something from RocketMQ.
    takers: HashSet<usize>,
    /// To be looked at in the next tick.
    fresh: HashSet<usize>,
    clients: HashMap<usize, Box<str>>,
    by_id: HashMap<Box<str>, usize>,
    /// Since the last tick. On 2.1 their will may still be delivered to themselves.
    left: Vec<usize>,
    /// Topics of the last tick's messages, hashed, and how many messages those were.
    injected: HashSet<u64>,
    injected_count: u32,
    holding: bool,
    complaints: Limit,
}

fn hash(topic: &str) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(topic)
}

impl Pressure {
    pub(crate) fn new(
        config: &protocol::config::Config,
        limits: QueueLimits,
        counters: Rc<Counters>,
    ) -> Pressure {
        Pressure {
            limits: Limits::new(limits, config.downlink_bytes_max),
            hold: config.downlink_hold,
            per_tick: config.downlink_per_tick,
            wanted: !config.downlink.is_empty()
                || config.cluster.is_some()
                || config.rules_file.is_some(),
            counters,
            watched: HashMap::new(),
            takers: HashSet::new(),
            fresh: HashSet::new(),
            clients: HashMap::new(),
            by_id: HashMap::new(),
            left: Vec::new(),
            injected: HashSet::new(),
            injected_count: 0,
            holding: false,
            complaints: Limit::default(),
        }
    }

    /// Whether there is anything to watch for.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Mosquitto's limits may have changed.
    pub(crate) fn set_limits(&mut self, limits: QueueLimits) {
        self.limits.set(limits);
    }

    /// A client that is there, or will be, or will be told of as gone.
    pub(crate) fn joined(&mut self, client: usize) {
        if self.wanted {
            self.left.retain(|left| *left != client);
            self.fresh.insert(client);
        }
    }

    /// Its record may be freed from now on.
    pub(crate) fn gone(&mut self, client: usize) {
        if !self.wanted {
            return;
        }
        self.watched.remove(&client);
        self.takers.remove(&client);
        self.fresh.remove(&client);
        if let Some(id) = self.clients.remove(&client)
            && self.by_id.get(&id) == Some(&client)
        {
            self.by_id.remove(&id);
        }
        self.left.push(client);
    }

    /// The broker delivers a message on `topic`.
    pub(crate) fn delivers(&mut self, topic: &str, delivery: &Delivery<'_>) {
        let Delivery { client, state, .. } = *delivery;
        let is_ours = !self.injected.is_empty() && self.injected.contains(&hash(topic));
        if state.connected && self.is_taker(client, is_ours) {
            if let Some(watched) = self.watched.get_mut(&client) {
                if is_ours {
                    watched.delivered();
                }
            } else if self.limits.is_tight(self.limits.room(&state)) {
                let watched = Watched::new((delivery.id)(), true, state, Instant::now());
                self.watched.insert(client, watched);
            }
        }
        let qos = self.limits.delivered_at(&state, delivery.qos);
        if is_ours && self.limits.will_drop(&state, qos) {
            self.counters.add(count::DOWNLINK_QUEUE_DROPPED, 1);
            if !state.connected && self.complaints.allows() {
                log::warn!(
                    "the queue of `{}`, which is not connected, is full (max_queued_messages {}): Mosquitto drops what \
                     comes for it (counted as downlink_queue_dropped)",
                    (delivery.id)(),
                    self.limits.messages()
                );
            }
        }
    }

    /// Whether a connected client has got something from RocketMQ, or (`is_ours`) gets it now. Not one that has left: its
    /// record may be freed.
    fn is_taker(&mut self, client: usize, is_ours: bool) -> bool {
        self.takers.contains(&client)
            || (is_ours && !self.left.contains(&client) && self.takers.insert(client))
    }

    /// A message was injected.
    pub(crate) fn injected(&mut self, message: &Message<'_>) {
        if !self.wanted {
            return;
        }
        self.injected.insert(hash(message.topic));
        self.injected_count += 1;
        if message.client_id.is_empty() {
            return;
        }
        // The broker asks nobody about a message for one client, so no event will tell of its queue.
        let Some(client) = self.by_id.get(message.client_id) else {
            return;
        };
        self.takers.insert(*client);
        let Some(watched) = self.watched.get_mut(client) else {
            self.fresh.insert(*client);
            return;
        };
        let bytes = message.payload.len() as u64;
        if watched.sent(&self.limits, message.qos.as_u8(), bytes) {
            self.counters.add(count::DOWNLINK_QUEUE_DROPPED, 1);
        }
    }

    /// Begins a tick: how much may be injected in it. `pending`: there is something to inject. Else nothing is looked at,
    /// and nothing may be injected: what comes meanwhile has the next tick.
    pub(crate) fn allowance(
        &mut self,
        queues: &impl Queues,
        now: Instant,
        pending: bool,
    ) -> Allowance {
        self.look_at_fresh(queues, now);
        let allowed = if pending {
            self.look_at_watched(queues, now)
        } else {
            self.holding = false;
            Allowance::NONE
        };
        self.left.clear();
        self.injected.clear();
        self.injected_count = 0;
        allowed
    }

    fn look_at_watched(&mut self, queues: &impl Queues, now: Instant) -> Allowance {
        let part = self.limits.part_of_tick();
        let mut allowed = Allowance {
            messages: self.per_tick.min(part.messages),
            bytes: TICK_BYTES.min(part.bytes),
        };
        let (was_holding, mut waits_for) = (self.holding, None);
        self.holding = false;
        let mut watched = std::mem::take(&mut self.watched);
        watched.retain(|client, watched| {
            let Some(state) = queues.of(*client).filter(|state| state.connected) else {
                return false;
            };
            let copies = watched.copies(self.injected_count);
            let room = self.limits.room(&state);
            if !self.limits.is_tight(room) {
                return false;
            }
            watched.progress(&self.limits, self.hold, state, room, now);
            if watched.is_hung() || !watched.is_worth_waiting(now, self.hold) {
                return true;
            }
            allowed.messages = allowed.messages.min(room.messages / copies);
            allowed.bytes = allowed.bytes.min(room.bytes / u64::from(copies));
            if room.messages < copies || room.bytes < u64::from(copies) {
                self.holding = true;
                if !was_holding && waits_for.is_none() {
                    waits_for = Some(watched.id.clone());
                }
            }
            true
        });
        self.watched = watched;
        if let Some(id) = waits_for {
            self.counters.add(count::DOWNLINK_HOLDS, 1);
            log::debug!("messages from RocketMQ wait for `{id}`, whose queue is full");
        }
        allowed
    }

    /// Whether a client with a full queue is waited for.
    pub(crate) fn is_holding(&self) -> bool {
        self.holding
    }

    fn look_at_fresh(&mut self, queues: &impl Queues, now: Instant) {
        for client in std::mem::take(&mut self.fresh) {
            // Sessions without a connection (2.0 checks their login too, at a reload) are nobody's business.
            let Some(state) = queues.of(client).filter(|state| state.connected) else {
                continue;
            };
            let Some(id) = queues.id(client) else {
                continue;
            };
            if self.limits.is_tight(self.limits.room(&state)) {
                let taker = self.takers.contains(&client);
                self.watched
                    .entry(client)
                    .or_insert_with(|| Watched::new(id.clone(), taker, state, now));
            }
            self.by_id.insert(id.clone().into_boxed_str(), client);
            self.clients.insert(client, id.into_boxed_str());
        }
    }
}

#[cfg(test)]
mod tests;
