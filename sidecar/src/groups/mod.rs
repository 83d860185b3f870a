//! Shared subscriptions (`$share/<group>/<filter>`) over all nodes: each message of the cluster goes to one member.
//!
//! Mosquitto gives its own members nothing that the cluster shares (the plugin sees to that). Instead each node that has members reads the cluster's messages, as it does anyway,
//! and injects those once more, for a group alone, that are its own by [`timeline`]: also what its own clients have published. A message that
//! finds no member here any more goes through RocketMQ once more, for the other nodes.

mod pass_on;
mod timeline;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use protocol::trie::TopicTrie;
use rocketmq::Queue;
use tokio::sync::Notify;

pub(crate) use pass_on::{PassedOn, mark, outgoing, passed_on};
use timeline::Timeline;
pub(crate) use timeline::{At, GroupId, Left, Word, group_id};

/// So late a message is read at most: what a node that is gone had not done was stored no longer before its last words than this (one that is further behind does it itself when it is back).
const LATE_MS: i64 = 60_000;
/// Messages of a queue that are noted while the node has not heard itself yet. It hears itself within moments, or RocketMQ is in trouble.
const PASSED_MAX: usize = 100_000;
/// So far apart the clocks of this node and of RocketMQ's brokers may be.
const CLOCKS_APART_MS: i64 = 5_000;
/// So long ago what was over is forgotten.
const FORGET_AFTER_MS: i64 = 3_600_000;

/// A session here has become a member of a group that had none here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) at_ms: u64,
    /// What the downlink log has before this position was injected before.
    pub(crate) downlink_position: u64,
    /// What the uplink log has before this position was published before.
    pub(crate) uplink_position: u64,
}

/// What is to be read once more for a group.
#[derive(Debug, Clone)]
pub(crate) struct Reread {
    pub(crate) key: Arc<str>,
    pub(crate) why: Why,
    /// What had been judged in its turn by then, by queue.
    pub(crate) judged: Arc<Judged>,
    /// Nothing of it was stored before this time.
    pub(crate) since_ms: i64,
    /// While this is there, it is not done.
    _open: Option<Arc<Left>>,
}

/// Which offsets of each queue this process has judged in their turn.
pub(crate) type Judged = HashMap<Queue, Range<i64>>;

/// What is done of a queue, as heartbeats tell it: RocketMQ's broker, the queue's number, the offset behind it.
pub(crate) type DoneOf = (String, i32, i64);

/// Offsets of messages for a group that came before this node took part in it.
pub(crate) type Passed = HashMap<Queue, HashSet<i64>>;

/// Why something is read once more.
#[derive(Debug, Clone)]
pub(crate) enum Why {
    /// This node is the first one with a member: what was judged, and published since that one has subscribed; and what came before the node took part.
    First(Since, Arc<Passed>),
    /// What a node that is gone has left undone.
    Left(Left),
}

/// What becomes of a message of the cluster here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Share {
    /// One member here gets it.
    Give(Arc<str>),
    /// It is ours to give, and there is no member here any more.
    PassOn(Arc<str>),
}

#[derive(Debug)]
struct Local {
    key: Arc<str>,
    /// There are members here.
    has_members: bool,
    since: Since,
    /// What had been judged when the first member came.
    from: Arc<Judged>,
    passed: Passed,
    /// When the oldest of that was stored.
    passed_ms: i64,
}

#[derive(Debug, Default)]
struct Inner {
    timeline: Timeline,
    local: BTreeMap<GroupId, Local>,
    by_filter: TopicTrie<GroupId>,
    judged: Judged,
    done: BTreeMap<(String, i32), i64>,
    /// What is being read once more of what other nodes have left undone.
    open: Vec<Weak<Left>>,
    /// All of the cluster's messages that were stored before this time are judged, by this node's clock.
    judged_until_ms: i64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Groups {
    node: String,
    inner: Mutex<Inner>,
    /// The others are to be told at once.
    pub(crate) news: Notify,
}

/// What a message of the cluster tells of itself here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) at: At<'a>,
    /// It was passed on for this group by this node.
    pub(crate) passed_on: Option<PassedOn<'a>>,
    pub(crate) is_read_back: bool,
}

impl Groups {
    pub(crate) fn new(node: &str) -> Groups {
        Groups {
            node: node.to_owned(),
            inner: Mutex::default(),
            news: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group has its first member here.
    pub(crate) fn joined(&self, key: &str, since: Since) {
        let mut inner = self.lock();
        let from = Arc::new(inner.judged.clone());
        let local = Local {
            key: key.into(),
            has_members: true,
            since,
            from,
            passed: Passed::new(),
            passed_ms: i64::MAX,
        };
        let group = group_id(key);
        if inner.local.insert(group, local).is_none() {
            inner.index();
        }
        self.news.notify_one();
    }

    /// The last member of a group here is gone.
    pub(crate) fn left(&self, key: &str) {
        if let Some(local) = self.lock().local.get_mut(&group_id(key)) {
            local.has_members = false;
        }
        self.news.notify_one();
    }

    /// Whether this node has no member of the group any more, and a share of its messages yet: those have to be read, to be passed on.
    pub(crate) fn passes_on(&self, key: &str) -> bool {
        let inner = self.lock();
        let local = inner.local.get(&group_id(key));
        local.is_some_and(|local| !local.has_members)
    }

    /// All of the cluster's messages that are of interest here and were stored before this time have been judged, by this node's clock.
    pub(crate) fn judged_until(&self, ms: i64) {
        self.lock().judged_until_ms = ms;
    }

    /// How many groups have members here.
    pub(crate) fn len(&self) -> usize {
        let inner = self.lock();
        inner
            .local
            .values()
            .filter(|local| local.has_members)
            .count()
    }

    /// What this node says of itself: the groups with members here, since when it takes part, and what it has done of each queue.
    pub(crate) fn own_word(&self) -> (Vec<(GroupId, i64)>, Vec<DoneOf>) {
        let inner = self.lock();
        let groups = inner.local.iter().filter(|(_, local)| local.has_members);
        let groups = groups
            .map(|(group, _)| (*group, inner.timeline.joined_ms(&self.node, *group)))
            .collect();
        let done = inner.done.iter().filter_map(|(queue, next)| {
            let next = inner.done_with_left(queue, *next)?;
            Some((queue.0.clone(), queue.1, next))
        });
        (groups, done.collect())
    }

    /// A node has said what it takes part in. Gives what is to be read once more for that.
    pub(crate) fn heard(&self, word: &Word<'_>) -> Vec<Reread> {
        let mut inner = self.lock();
        let (joined, left) = inner.timeline.heard(word);
        let mut rereads = Vec::new();
        if word.node == self.node {
            for group in joined {
                rereads.extend(inner.first(&self.node, group));
            }
            inner.tidy(&self.node, word.stored_ms);
        } else if let Some(left) = left {
            rereads = inner.take_up(&left);
        }
        rereads
    }

    /// The nodes that were heard of.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.lock().timeline.nodes().map(str::to_owned).collect()
    }

    /// A node is gone. Gives what is to be read once more for that.
    pub(crate) fn gone(&self, node: &str) -> Vec<Reread> {
        let mut inner = self.lock();
        match inner.timeline.gone(node) {
            Some(left) if node != self.node => inner.take_up(&left),
            _ => Vec::new(),
        }
    }

    /// What becomes of a message that the downlink has read.
    pub(crate) fn share_out(&self, message: &Message<'_>) -> Vec<Share> {
        let mut inner = self.lock();
        let At { queue, offset, .. } = message.at;
        if !message.is_read_back {
            match inner.judged.get_mut(queue) {
                Some(judged) => judged.end = judged.end.max(offset + 1),
                None => drop(inner.judged.insert(queue.clone(), offset..offset + 1)),
            }
        }
        if inner.local.is_empty() {
            return Vec::new();
        }
        let mut shares = Vec::new();
        for group in inner.wanting(message) {
            let is_joined = inner.timeline.joined_ms(&self.node, group) != 0;
            let except = message.passed_on.map(|passed_on| passed_on.from);
            let owner = inner.timeline.owner(group, &message.at, except);
            let is_ours = owner == Some(self.node.as_str());
            let Some(local) = inner.local.get_mut(&group) else {
                continue;
            };
            // Its turn was before there was a member.
            let is_old = |from: &Range<i64>| offset < from.end;
            if message.is_read_back && local.from.get(queue).is_some_and(is_old) {
                continue;
            }
            match (is_ours, local.has_members) {
                // Also what is ours from a time before, while this one has not begun.
                (true, true) => shares.push(Share::Give(Arc::clone(&local.key))),
                (true, false) => shares.push(Share::PassOn(Arc::clone(&local.key))),
                (false, true) if !is_joined => local.pass(&message.at),
                (false, _) => {}
            }
        }
        shares
    }

    /// Whether a message that is read once more for this reason is ours to give. `handed_position`: where it stands in the downlink log, if it
    /// was handed over to be delivered to all; `own_position`: where in the uplink log, if this node has published it.
    pub(crate) fn is_due(
        &self,
        reread: &Reread,
        message: &Message<'_>,
        handed_position: Option<u64>,
        own_position: Option<u64>,
    ) -> bool {
        let At { queue, offset, .. } = message.at;
        let judged = reread.judged.get(queue);
        let inner = self.lock();
        let group = group_id(&reread.key);
        if !inner.wanting(message).contains(&group) {
            return false;
        }
        let except = message.passed_on.map(|passed_on| passed_on.from);
        if inner.timeline.owner(group, &message.at, except) != Some(self.node.as_str()) {
            return false;
        }
        match &reread.why {
            // Also what a process of ours before this one has judged. What is behind that comes in its turn.
            Why::Left(left) => {
                judged.is_some_and(|judged| offset < judged.end)
                    && inner.timeline.was_of(left, group, &message.at)
            }
            Why::First(since, passed) => {
                let is_since = match (own_position, handed_position) {
                    (Some(position), _) => position >= since.uplink_position,
                    (None, Some(position)) => position >= since.downlink_position,
                    (None, None) => {
                        let since_ms = i64::try_from(since.at_ms).unwrap_or(i64::MAX);
                        message.at.stored_ms >= since_ms
                    }
                };
                let is_judged = judged.is_some_and(|judged| judged.contains(&offset));
                let has_passed = passed
                    .get(queue)
                    .is_some_and(|passed| passed.contains(&offset));
                has_passed || is_judged && is_since
            }
        }
    }

    /// Everything of this queue before this offset is with Mosquitto.
    pub(crate) fn done(&self, queue: &Queue, next_offset: i64) {
        let key = (queue.broker.clone(), queue.id);
        self.lock().done.insert(key, next_offset);
    }
}

impl Local {
    /// A message came before this node takes part.
    fn pass(&mut self, at: &At<'_>) {
        if !self.passed.contains_key(at.queue) {
            self.passed.insert(at.queue.clone(), HashSet::new());
        }
        if let Some(offsets) = self.passed.get_mut(at.queue)
            && offsets.len() < PASSED_MAX
        {
            offsets.insert(at.offset);
            self.passed_ms = self.passed_ms.min(at.stored_ms);
        }
    }
}

impl Inner {
    fn index(&mut self) {
        self.by_filter = TopicTrie::new();
        for (group, local) in &self.local {
            let filter = local.key.split_once('/').map_or("", |(_, filter)| filter);
            // Mosquitto has taken it, or refused it, and then nothing comes by it.
            let _ = self.by_filter.insert(filter, *group);
        }
    }

    /// The groups here that a message is for.
    fn wanting(&self, message: &Message<'_>) -> Vec<GroupId> {
        if let Some(passed_on) = message.passed_on {
            return vec![passed_on.group];
        }
        let mut groups = Vec::new();
        self.by_filter
            .matches(message.topic, |group| groups.push(*group));
        groups
    }

    /// What may be said to be done of a queue: if this node dies before it has read what another one left undone, that is its own, too. Nothing: nothing of it.
    fn done_with_left(&self, queue: &(String, i32), next: i64) -> Option<i64> {
        let open = self.open.iter().filter_map(Weak::upgrade);
        let mut of_left = open.map(|left| left.done.get(queue).copied());
        of_left.try_fold(next, |least, of_left| Some(least.min(of_left?)))
    }

    /// This node has joined a group: what is to be read once more, if it is the first.
    fn first(&mut self, node: &str, group: GroupId) -> Option<Reread> {
        let has_others = self.timeline.has_others(node, group);
        let local = self.local.get_mut(&group)?;
        let passed = std::mem::take(&mut local.passed);
        // Of before this process nothing is known, and nothing was judged.
        let since_ms = match local.since.at_ms {
            0 => i64::MAX,
            at_ms => i64::try_from(at_ms).unwrap_or(i64::MAX),
        };
        let since_ms = since_ms.min(local.passed_ms);
        let is_needed = local.has_members && !has_others && since_ms < i64::MAX;
        is_needed.then(|| Reread {
            key: Arc::clone(&local.key),
            why: Why::First(local.since, Arc::new(passed)),
            judged: Arc::clone(&local.from),
            since_ms,
            _open: None,
        })
    }

    /// A node has left something undone: what is to be read once more.
    fn take_up(&mut self, left: &Left) -> Vec<Reread> {
        let judged = Arc::new(self.judged.clone());
        let open = Arc::new(left.clone());
        self.open.retain(|left| left.strong_count() > 0);
        self.open.push(Arc::downgrade(&open));
        let ours = left.groups.iter().filter_map(|group| self.local.get(group));
        ours.filter(|local| local.has_members)
            .map(|local| Reread {
                key: Arc::clone(&local.key),
                why: Why::Left(left.clone()),
                judged: Arc::clone(&judged),
                since_ms: left.stored_ms.saturating_sub(LATE_MS),
                _open: Some(Arc::clone(&open)),
            })
            .collect()
    }

    /// Forgets groups that this node has no share of any more, which counts by what it has read: that may be late.
    fn tidy(&mut self, node: &str, now_ms: i64) {
        let before = self.local.len();
        let until_ms = self.judged_until_ms.saturating_sub(CLOCKS_APART_MS);
        let timeline = &self.timeline;
        self.local.retain(|group, local| {
            local.has_members || timeline.takes_part(node, *group, until_ms)
        });
        if self.local.len() != before {
            self.index();
        }
        let forget_ms = now_ms.saturating_sub(FORGET_AFTER_MS);
        self.timeline.forget(forget_ms.min(until_ms));
    }
}

#[cfg(test)]
mod tests;
