//! Which lane a message takes, and the name of the layout in which it takes it.
//!
//! Nodes that read drop repetitions by order: within one queue, the positions of one sender only fall when it repeats. That
//! holds for as long as a topic's queues stay the same. With other queues, a message that waited for a slow lane may come
//! behind a newer one in another queue, and is no repetition. So each message carries the name of the layout
//! (`mqtt_lane`), which is made of the queues alone: a sender that was restarted goes on under the same name.
//!
//! Applications copy properties from a message into another one. That is not ours then, and no repetition, however much it looks
//! like one. So behind the name stands a seal: the CRC-32C of the queue that we put the message into, and of its body. Who reads
//! it in another queue, or with another body, knows that somebody else has written it.
//!
//! The hashes are part of what other nodes rely on. They must never depend on the compiler's version, as the standard
//! library's do: a key that changed its lane under an unchanged name would be taken for a repetition.

use rocketmq::{Outgoing, Queue};

use crate::mapping::names;
use crate::mapping::seal::Seal;

/// The name of a layout: eight hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout(String);

/// What is written on the messages of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    layout: Layout,
    seal: Seal,
}

impl Layout {
    pub(super) fn of(queues: &[Queue]) -> Layout {
        // The first word stands for the rule by which a key finds its lane: to be changed with it.
        let mut text = String::from("fnv1a");
        for queue in queues {
            text.push_str(&format!("\n{} {}", queue.broker, queue.id));
        }
        let hash = hash(&text);
        Layout(format!("{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff))
    }

    /// For the messages of the lane to this queue.
    pub(super) fn stamp(&self, queue: &Queue) -> Stamp {
        Stamp {
            layout: self.clone(),
            seal: Seal::of(queue),
        }
    }
}

impl Stamp {
    /// Writes name and seal on the message, over those of an earlier lane.
    pub(super) fn put_on(&self, message: &mut Outgoing) {
        unstamp(message);
        let (layout, seal) = (&self.layout.0, self.seal.on(&message.body));
        let text = format_args!("{layout}{seal:08x}");
        message.properties.push_display(names::LANE, text);
    }
}

/// Takes the name off a message that leaves its lane for good.
pub(super) fn unstamp(message: &mut Outgoing) {
    message.properties.pop_if_named(names::LANE);
}

/// FNV-1a with 64 bits, its bits mixed once more (the finaliser of SplitMix64): lanes are chosen by the remainder.
pub(super) fn hash(key: &str) -> u64 {
    let fnv = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: i32) -> Vec<Queue> {
        (0..count)
            .map(|id| Queue {
                topic: "T".into(),
                broker: "b".into(),
                id,
            })
            .collect()
    }

    #[test]
    fn the_hashes_are_the_same_in_every_build() {
        assert_eq!(hash(""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash("device-1"), 0x9a42_5baa_2e7d_7b35);
        assert_eq!(Layout::of(&queues(4)).0, "347b05de");
    }

    #[test]
    fn a_layout_is_named_by_its_queues() {
        assert_eq!(Layout::of(&queues(4)), Layout::of(&queues(4)));
        assert_ne!(Layout::of(&queues(4)), Layout::of(&queues(3)));
        let mut other = queues(4);
        other[0].broker = "c".into();
        assert_ne!(Layout::of(&queues(4)), Layout::of(&other));
    }

    #[test]
    fn keys_are_spread_over_the_lanes() {
        for lanes in [2, 3, 4, 8, 16] {
            let mut counts = vec![0; lanes];
            for key in 0..1000 * lanes {
                counts[usize::try_from(hash(&format!("device-{key}")) % lanes as u64).unwrap()] +=
                    1;
            }
            assert!(
                counts.iter().all(|count| (850..1150).contains(count)),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_message_has_one_name_and_can_lose_it() {
        let mut message = Outgoing::default();
        let queue = &queues(1)[0];
        Layout::of(&queues(4)).stamp(queue).put_on(&mut message);
        Layout::of(&queues(2)).stamp(queue).put_on(&mut message);
        assert_eq!(message.properties.iter().count(), 1);
        let value = message.properties.get(names::LANE).unwrap();
        let seal = value.strip_prefix(&Layout::of(&queues(2)).0).unwrap();
        assert!(Seal::of(queue).is_on(&message.body, seal));
        unstamp(&mut message);
        unstamp(&mut message);
        assert_eq!(message.properties.as_str(), "");
    }
}
