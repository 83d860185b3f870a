//! Where a message stands in its sender's order.

use protocol::message::Identity;
use rocketmq::{Incoming, Queue};

use crate::mapping::names;
use crate::mapping::seal::{self, Seal};

/// Longer names of nodes are not ours.
const ORIGIN_BYTES_MAX: usize = 200;
/// And no longer names of layouts.
const LAYOUT_BYTES_MAX: usize = 16;

/// The place of a message in its sender's order, as its properties tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(super) key: Key,
    pub(super) order: Order,
    pub(super) offset: i64,
    pub(super) is_replayed: bool,
}

/// Where order holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) queue: Queue,
    /// The name in `mqtt_lane`.
    pub(super) lane: String,
    /// Node and epoch.
    pub(super) origin: String,
}

/// Position, and which of the messages that one publish became in this topic.
pub(super) type Order = (u64, u32);

/// A replayed message: topic, identity, copy.
pub(super) type ReplayKey = (String, String, u32);

impl Place {
    /// Nothing for a message that no lane of ours put into this queue.
    pub(crate) fn of(incoming: &Incoming) -> Option<Place> {
        let (mut id, mut lane, mut copy, mut is_replayed) = (None, "", 1, false);
        for (name, value) in &incoming.properties {
            match name.as_str() {
                names::ID => id = Some(value.as_str()),
                names::LANE => lane = value,
                names::COPY => copy = value.parse().ok()?,
                names::REPLAYED => is_replayed = true,
                _ => {}
            }
        }
        let id = Identity::parse(id?).ok()?;
        let is_word = |text: &str, max| {
            (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_word(id.node, ORIGIN_BYTES_MAX) {
            return None;
        }
        let layout = if is_replayed {
            "-"
        } else {
            let (layout, seal) = lane.split_at_checked(lane.len().checked_sub(seal::LEN)?)?;
            let is_ours = is_word(layout, LAYOUT_BYTES_MAX)
                && Seal::of(&incoming.queue).is_on(&incoming.body, seal);
            is_ours.then_some(layout)?
        };
        let key = Key {
            queue: incoming.queue.clone(),
            lane: layout.to_owned(),
            origin: format!("{}:{:x}", id.node, id.epoch),
        };
        Some(Place {
            key,
            order: (id.position, copy),
            offset: incoming.offset,
            is_replayed,
        })
    }

    pub(super) fn replay_key(&self) -> ReplayKey {
        (
            self.key.queue.topic.clone(),
            format!("{}:{}", self.key.origin, self.order.0),
            self.order.1,
        )
    }
}
