//! How much may be injected now, so that no client's queue overflows.
//!
//! Past a client's `max_queued_messages` Mosquitto drops what comes, with a line in its log and no more. So the queues
//! of the clients that get downlink messages are watched (`ffi::client_queue` reads them), and while one of them is full
//! nothing is injected: RocketMQ keeps it. The log is one after the other, so a client that takes nothing would stop
//! all others: after `downlink_hold` without progress the bridge goes on without it, and what Mosquitto then drops is
//! counted.
//!
//! Which client a message goes to is not known before it is injected. But a client is not watched only while its queue
//! has room for three quarters of the limit, and a tick injects at most a quarter: it is watched in time.
//!
//! Only clients that are connected are watched, from an event of theirs up to the one that tells of their end: between
//! these the broker does not free their record. This is *not* for sessions whose client is away: their queue fills,
//! whatever we do, and what is dropped of it is counted as it happens.

mod room;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use handoff::Counters;
use protocol::config::mosquitto_conf::QueueLimits;
use protocol::counters as count;
use protocol::message::Message;

use crate::limit::Limit;

pub(crate) use room::QueueState;
use room::{Limits, Room};

/// Bytes injected in one tick, at most (and the rest of the last message).
const TICK_BYTES: u64 = 4 << 20;
/// A client that takes less than this part of its queue in `downlink_hold` is taken for hung.
const PROGRESS_PART: u32 = 100;
/// After so long without a look at a client, that its queue has moved at all is taken for progress.
const UNSEEN: Duration = Duration::from_secs(1);

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

#[derive(Debug)]
struct Watched {
    id: String,
    last: QueueState,
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

/// See the module.
pub(crate) struct Pressure {
    limits: Limits,
    hold: Duration,
    per_tick: u32,
    /// There may be downlink messages.
    wanted: bool,
    counters: Rc<Counters>,
    watched: HashMap<usize, Watched>,
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
            wanted: !config.downlink.is_empty() || config.rules_file.is_some(),
            counters,
            watched: HashMap::new(),
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
        if state.connected {
            let room = self.limits.room(&state);
            if let Some(watched) = self.watched.get_mut(&client) {
                if self.injected.contains(&hash(topic)) {
                    watched.deliveries += 1;
                }
            } else if self.limits.is_tight(room) && !self.left.contains(&client) {
                self.watch(client, state, (delivery.id)());
            }
        }
        if self.limits.will_drop(&state, delivery.qos) && self.injected.contains(&hash(topic)) {
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
        match self.watched.get(client) {
            None => {
                self.fresh.insert(*client);
            }
            Some(watched) if watched.hung && self.limits.room(&watched.last).messages == 0 => {
                self.counters.add(count::DOWNLINK_QUEUE_DROPPED, 1);
            }
            Some(_) => {}
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
        let mut blocking = None;
        let mut watched = std::mem::take(&mut self.watched);
        watched.retain(|client, watched| {
            let Some(state) = queues.of(*client).filter(|state| state.connected) else {
                return false;
            };
            if self.injected_count > 0 {
                let copies = watched.deliveries.div_ceil(self.injected_count).max(1);
                watched.copies = watched.copies.max(copies);
                watched.deliveries = 0;
            }
            let room = self.limits.room(&state);
            if !self.limits.is_tight(room) {
                return false;
            }
            self.progress(watched, state, room, now);
            if !watched.hung {
                allowed.messages = allowed.messages.min(room.messages / watched.copies);
                allowed.bytes = allowed.bytes.min(room.bytes / u64::from(watched.copies));
                if allowed.messages == 0 || allowed.bytes == 0 {
                    blocking = Some(watched.id.clone());
                }
            }
            true
        });
        self.watched = watched;
        let was = std::mem::replace(&mut self.holding, blocking.is_some());
        if let (false, Some(id)) = (was, blocking) {
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
            if self.limits.is_tight(self.limits.room(&state)) && !self.watched.contains_key(&client)
            {
                self.watch(client, state, id.clone());
                if let Some(watched) = self.watched.get_mut(&client) {
                    watched.since = now;
                }
            }
            self.by_id.insert(id.clone().into_boxed_str(), client);
            self.clients.insert(client, id.into_boxed_str());
        }
    }

    fn watch(&mut self, client: usize, state: QueueState, id: String) {
        if let Entry::Vacant(place) = self.watched.entry(client) {
            place.insert(Watched {
                id,
                last: state,
                since: Instant::now(),
                seen: Instant::now(),
                taken: 0,
                hung: false,
                told: false,
                deliveries: 0,
                copies: 1,
            });
        }
    }

    /// What a client has taken since the last tick, and whether it is hung.
    fn progress(&self, watched: &mut Watched, state: QueueState, room: Room, now: Instant) {
        let before = std::mem::replace(&mut watched.last, state);
        let fewer = before.waiting.saturating_sub(state.waiting);
        let flushed = before.out_packets.saturating_sub(state.out_packets);
        let part = (self.limits.messages() / PROGRESS_PART).max(1);
        // Others may have filled it again. Whoever was not looked at for long has its chance.
        let unseen = now.saturating_duration_since(std::mem::replace(&mut watched.seen, now));
        let others = match before.heads != state.heads {
            true if unseen >= UNSEEN => part,
            changed => u32::from(changed),
        };
        watched.taken = watched.taken.saturating_add(fewer.max(flushed).max(others));
        if watched.taken >= part {
            watched.taken = 0;
            watched.since = now;
            if std::mem::take(&mut watched.hung) && watched.told {
                watched.told = false;
                log::info!("client `{}` takes messages again", watched.id);
            }
        } else if now.saturating_duration_since(watched.since) >= self.hold {
            watched.hung = true;
        }
        if watched.hung && room.messages == 0 && !std::mem::replace(&mut watched.told, true) {
            log::warn!(
                "client `{}` has taken next to nothing for {:?} and its queue is full (max_queued_messages {}): Mosquitto \
                 drops what comes for it (counted as downlink_queue_dropped), and the other clients go on",
                watched.id,
                now.saturating_duration_since(watched.since),
                self.limits.messages()
            );
        }
    }
}

#[cfg(test)]
mod tests;
