//! Which node gives a message of the cluster to a shared subscription: pure judgement.
//!
//! All nodes that have members take part, and share the queues out between them, one after the other. They have to come to the same judgement of a message, however late each of them
//! hears of a change and reads the message. So a change counts by what RocketMQ says of the message:
//! - A node that joins has its share of what is stored [`SETTLE_MS`] after it said so; by then all others have heard it.
//! - A node whose last member has left has its share until [`SETTLE_MS`] after it said so, and passes on what it can't give to anybody.
//! - Of a node that is gone the others take what it had not done yet, as its heartbeats told it, queue by queue.
//! - Before the first node has joined for so long, the first one has all.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use rocketmq::Queue;

/// How long after it was stored all nodes have heard what a node says.
pub(super) const SETTLE_MS: i64 = 3_000;
/// What a node did so shortly before it was heard last may be in the hands of devices that its end cut off: it is done again.
const IN_HAND_MS: i64 = 1_000;
/// So much older than the first node's word may be what it was the first for.
const FIRST_MS: i64 = 60_000;
/// Heartbeats of a node that are remembered.
const BEATS: usize = 8;
/// Changes of a group that are remembered.
const PARTS_MAX: usize = 64;

/// Stands for a group among the nodes: the hash of its key.
pub(crate) type GroupId = u64;

/// What a node has done of each queue: the offset behind it.
pub(crate) type Done = Arc<BTreeMap<(String, i32), i64>>;

/// The group with this key (`<group>/<filter>`).
pub(crate) fn group_id(key: &str) -> GroupId {
    fnv(&[key.as_bytes()])
}

/// A time in which a node takes part.
#[derive(Debug, Clone)]
struct Part {
    node: Arc<str>,
    joined_ms: i64,
    left_ms: Option<i64>,
    /// It is gone, and had done this.
    done: Option<Done>,
}

impl Part {
    fn is_open(&self) -> bool {
        self.left_ms.is_none() && self.done.is_none()
    }

    /// It may have the message as far as its end is concerned.
    fn is_there(&self, message: &At<'_>) -> bool {
        let done = |done: &Done| {
            let queue = (message.queue.broker.clone(), message.queue.id);
            done.get(&queue).is_some_and(|next| message.offset < *next)
        };
        self.left_ms.is_none_or(|left| message.stored_ms < left)
            && self.done.as_ref().is_none_or(done)
    }
}

/// Where a message stands, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) queue: &'a Queue,
    pub(crate) offset: i64,
    pub(crate) stored_ms: i64,
}

/// A heartbeat, as far as groups are concerned.
#[derive(Debug, Clone)]
pub(crate) struct Word<'a> {
    pub(crate) node: &'a str,
    /// Another one begins when the node has started again, or was taken for dead.
    pub(crate) life: (&'a str, u64),
    /// The groups that it has members of, and since when it takes part; 0: since this.
    pub(crate) groups: &'a [(GroupId, i64)],
    pub(crate) done: Done,
    pub(crate) stored_ms: i64,
}

/// What is known of a node.
#[derive(Debug)]
struct Node {
    name: Arc<str>,
    life: (String, u64),
    beats: VecDeque<(i64, Done)>,
    is_gone: bool,
}

/// What a node has left undone.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) node: Arc<str>,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) done: Done,
    /// When that was said.
    pub(crate) stored_ms: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    groups: HashMap<GroupId, Vec<Part>>,
    nodes: HashMap<String, Node>,
}

impl Timeline {
    /// A node has said what it takes part in. Gives the groups that it has joined by that, and what its life before has left.
    pub(crate) fn heard(&mut self, word: &Word<'_>) -> (Vec<GroupId>, Option<Left>) {
        let (instance, epoch) = word.life;
        let known = self.nodes.get(word.node);
        let last_ms = known.and_then(|node| node.beats.back()).map(|beat| beat.0);
        if last_ms.is_some_and(|last_ms| word.stored_ms < last_ms) {
            // Another queue gave it late.
            return (Vec::new(), None);
        }
        let is_new_life =
            known.is_some_and(|node| (node.life.0.as_str(), node.life.1) != word.life);
        let left = match is_new_life {
            true => self.gone(word.node),
            false => None,
        };
        let node = self
            .nodes
            .entry(word.node.to_owned())
            .or_insert_with(|| Node {
                name: word.node.into(),
                life: (instance.to_owned(), epoch),
                beats: VecDeque::new(),
                is_gone: false,
            });
        // What it took part in before it was gone it does not take part in again by an old word.
        let not_before = match node.is_gone || is_new_life {
            true => word.stored_ms,
            false => 0,
        };
        node.life = (instance.to_owned(), epoch);
        node.is_gone = false;
        node.beats
            .push_back((word.stored_ms, Arc::clone(&word.done)));
        if node.beats.len() > BEATS {
            node.beats.pop_front();
        }
        let name = Arc::clone(&node.name);
        (self.follow(word, &name, not_before), left)
    }

    fn follow(&mut self, word: &Word<'_>, name: &Arc<str>, not_before: i64) -> Vec<GroupId> {
        let mut joined = Vec::new();
        for (group, since_ms) in word.groups {
            let parts = self.groups.entry(*group).or_default();
            if parts
                .iter()
                .any(|part| part.node == *name && part.is_open())
            {
                continue;
            }
            if not_before > 0
                && parts
                    .iter()
                    .all(|part| part.node == *name || !part.is_open())
            {
                // Nobody has taken its place meanwhile: it goes on where it was.
                let last = parts.iter_mut().rev().find(|part| part.node == *name);
                if let Some(part) = last.filter(|part| part.left_ms.is_none()) {
                    part.done = None;
                    continue;
                }
            }
            let since_ms = match *since_ms {
                0 => word.stored_ms,
                since_ms => since_ms,
            };
            if parts.len() >= PARTS_MAX {
                parts.remove(0);
            }
            parts.push(Part {
                node: Arc::clone(name),
                joined_ms: since_ms.max(not_before),
                left_ms: None,
                done: None,
            });
            joined.push(*group);
        }
        for (group, parts) in &mut self.groups {
            if word.groups.iter().any(|(named, _)| named == group) {
                continue;
            }
            for part in parts {
                if part.node == *name && part.is_open() {
                    part.left_ms = Some(word.stored_ms.saturating_add(SETTLE_MS));
                }
            }
        }
        joined
    }

    /// All nodes that were heard of.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// A node is gone. Gives what it has left undone, if it took part in anything.
    pub(crate) fn gone(&mut self, name: &str) -> Option<Left> {
        let node = self.nodes.get_mut(name)?;
        node.is_gone = true;
        let last_ms = node.beats.back()?.0;
        let mut beats = node.beats.iter().rev();
        let (stored_ms, done) = beats
            .find(|(stored_ms, _)| *stored_ms <= last_ms.saturating_sub(IN_HAND_MS))
            .or(node.beats.front())?;
        let left = Left {
            node: Arc::clone(&node.name),
            groups: Vec::new(),
            done: Arc::clone(done),
            stored_ms: *stored_ms,
        };
        let mut groups = Vec::new();
        for (group, parts) in &mut self.groups {
            for part in parts {
                if part.node == left.node && part.done.is_none() {
                    part.done = Some(Arc::clone(&left.done));
                    groups.push(*group);
                }
            }
        }
        (!groups.is_empty()).then_some(Left { groups, ..left })
    }

    /// The node that gives the message to the group. `except`: one that had it and could not.
    pub(crate) fn owner(&self, group: GroupId, at: &At<'_>, except: Option<&str>) -> Option<&str> {
        let parts = self.groups.get(&group)?;
        let is_meant = |part: &&Part| except.is_none_or(|node| *part.node != *node);
        let there = parts.iter().filter(|part| part.is_there(at));
        let owner = choose(there.filter(is_meant), group, at)?;
        Some(&owner.node)
    }

    /// Whether the message was this node's before it was gone.
    pub(crate) fn was_of(&self, left: &Left, group: GroupId, at: &At<'_>) -> bool {
        let Some(parts) = self.groups.get(&group) else {
            return false;
        };
        let is_it = |part: &Part| {
            let done = part.done.as_ref();
            done.is_some_and(|done| Arc::ptr_eq(done, &left.done))
        };
        let there = |part: &&Part| match is_it(part) {
            true => part.left_ms.is_none_or(|left| at.stored_ms < left),
            false => part.is_there(at),
        };
        let owner = choose(parts.iter().filter(there), group, at);
        owner.is_some_and(is_it)
    }

    /// Since when a node takes part in a group; 0 when it does not, as far as was heard.
    pub(crate) fn joined_ms(&self, node: &str, group: GroupId) -> i64 {
        let parts = self.groups.get(&group).map_or(&[][..], Vec::as_slice);
        let open = parts
            .iter()
            .find(|part| *part.node == *node && part.is_open());
        open.map_or(0, |part| part.joined_ms)
    }

    /// Whether a node has a share of the group's messages yet, or still.
    pub(crate) fn takes_part(&self, node: &str, group: GroupId, now_ms: i64) -> bool {
        let parts = self.groups.get(&group).map_or(&[][..], Vec::as_slice);
        parts.iter().any(|part| {
            let is_over = part.left_ms.is_some_and(|left_ms| left_ms < now_ms);
            *part.node == *node && part.done.is_none() && !is_over
        })
    }

    /// Whether any other node takes part in the group.
    pub(crate) fn has_others(&self, node: &str, group: GroupId) -> bool {
        let parts = self.groups.get(&group).map_or(&[][..], Vec::as_slice);
        parts
            .iter()
            .any(|part| *part.node != *node && part.done.is_none() && part.left_ms.is_none())
    }

    /// Forgets what was over before this time.
    pub(crate) fn forget(&mut self, before_ms: i64) {
        for parts in self.groups.values_mut() {
            parts.retain(|part| {
                let gone_ms = part.done.as_ref().map(|_| part.joined_ms);
                part.is_open() || part.left_ms.or(gone_ms).is_some_and(|ms| ms >= before_ms)
            });
        }
        self.groups.retain(|_, parts| !parts.is_empty());
    }
}

/// Who of those that are there has the message.
fn choose<'a>(
    there: impl Iterator<Item = &'a Part> + Clone,
    group: GroupId,
    at: &At<'_>,
) -> Option<&'a Part> {
    let is_settled = |part: &&Part| part.joined_ms.saturating_add(SETTLE_MS) <= at.stored_ms;
    let mut settled: Vec<&Part> = there.clone().filter(is_settled).collect();
    settled.sort_unstable_by(|one, other| one.node.cmp(&other.node));
    settled.dedup_by(|one, other| one.node == other.node);
    let turn = place(group, at.queue).checked_rem(settled.len() as u64);
    let by_queue = turn.and_then(|turn| settled.get(turn as usize).copied());
    let first = || {
        there
            .filter(|part| part.joined_ms.saturating_sub(FIRST_MS) <= at.stored_ms)
            .min_by_key(|part| (part.joined_ms, &part.node))
    };
    by_queue.or_else(first)
}

/// Whose turn a queue is: the queues of a broker go to one node after the other, and those of different groups begin with different nodes.
fn place(group: GroupId, queue: &Queue) -> u64 {
    let first = fnv(&[&group.to_le_bytes(), queue.broker.as_bytes()]);
    first.wrapping_add(u64::from(queue.id.unsigned_abs()))
}

/// FNV-1a, and mixed once more: all nodes have to come to the same number, on whatever machine and by whatever version.
fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&[0xFF]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
