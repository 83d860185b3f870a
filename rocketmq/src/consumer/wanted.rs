//! What a fetcher wants of its queue, tag by tag, and what of that it has given already.
//!
//! ```text
//!             from          next            present
//!  lane  ──────┼── given ────┼── owed ─────────┼ ─ ─ ▶   tags that are read back; they join the main line where it is
//!  main  ──── given, or not wanted ────────────┼ ─ ─ ▶   tags that are read as the queue grows
//! ```
//! So the messages of a tag stay in order, and neither waits for the other: while a lane is read, so is the main line, without the
//! lane's tags.

use std::ops::Range;
use std::sync::Arc;

use super::by_tag::ByTag;
use super::decode::TagFilter;
use crate::{Incoming, Interest};

/// So many tags that are wanted no more are remembered with what was given of them.
const ENDED_MAX: usize = 8192;
/// And of each, so many stretches.
const STRETCHES_MAX: usize = 16;
/// While there are so many lanes, nothing new is taken up.
const LANES_MAX: usize = 8;

/// What to ask of the broker, and what to take of its answer.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) expression: String,
    pub(super) filter: TagFilter,
}

impl Selection {
    fn of<V>(wanted: &ByTag<V>) -> Arc<Selection> {
        let filter = match wanted.all {
            Some(_) => TagFilter::all(),
            None => TagFilter::of(wanted.tags.keys().cloned()),
        };
        Arc::new(Selection {
            expression: wanted.expression(),
            filter,
        })
    }
}

/// What is to be read back of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) from: i64,
    /// By the broker's clock.
    pub(super) stored_since_ms: i64,
}

impl Owed {
    pub(super) fn from(offset: i64) -> Owed {
        Owed {
            from: offset,
            stored_since_ms: i64::MIN,
        }
    }
}

/// Tags that are read back together.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) next: i64,
    pub(super) selection: Arc<Selection>,
    owed: ByTag<Owed>,
}

/// See the module. `present` is the next offset of the main line.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) selection: Arc<Selection>,
    /// From which offset on.
    main: ByTag<i64>,
    lanes: Vec<Lane>,
    ended: ByTag<Vec<Range<i64>>>,
}

impl Wanted {
    /// What is before the present of these was given, or is not to be.
    pub(super) fn new(main: ByTag<i64>) -> Wanted {
        Wanted {
            selection: Selection::of(&main),
            main,
            lanes: Vec::new(),
            ended: ByTag::default(),
        }
    }

    /// The same in a queue that is another one now.
    pub(super) fn anew(&self) -> Wanted {
        let mut main = ByTag::default();
        for key in self.keys() {
            main.insert(key.map(str::to_owned), i64::MIN);
        }
        Wanted::new(main)
    }

    fn keys(&self) -> impl Iterator<Item = Option<&str>> {
        let lanes = self.lanes.iter().flat_map(|lane| lane.owed.keys());
        self.main.keys().chain(lanes)
    }

    fn has(&self, key: Option<&str>) -> bool {
        self.main.get(key).is_some() || self.lanes.iter().any(|lane| lane.owed.get(key).is_some())
    }

    /// Whether something is of interest that is not wanted yet, and could be taken up.
    pub(super) fn lacks(&self, interest: &Interest) -> bool {
        let has_room = self.lanes.len() < LANES_MAX;
        has_room
            && (interest.all_since_ms.is_some() && !self.has(None)
                || interest.tags.keys().any(|tag| !self.has(Some(tag))))
    }

    pub(super) fn is_read_back(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.lanes.len() < LANES_MAX
    }

    /// What of the interest is not wanted yet, with the time since which it is.
    pub(super) fn additions(&self, interest: &Interest) -> ByTag<i64> {
        let mut new = ByTag::since(interest);
        new.all = new.all.filter(|_| !self.has(None));
        new.tags.retain(|tag, _| !self.has(Some(tag)));
        new
    }

    /// Leaves off what is of interest no more.
    pub(super) fn leave_off(&mut self, interest: &Interest, present: i64) {
        let gone: Vec<Option<String>> = self
            .keys()
            .filter(|key| match key {
                Some(tag) => !interest.tags.contains_key(*tag),
                None => interest.all_since_ms.is_none(),
            })
            .map(|key| key.map(str::to_owned))
            .collect();
        if gone.is_empty() {
            return;
        }
        for key in gone {
            if let Some(start) = self.main.remove(key.as_deref()) {
                self.end(key.clone(), start..present);
            }
            for at in 0..self.lanes.len() {
                if let Some(owed) = self.lanes[at].owed.remove(key.as_deref()) {
                    self.end(key.clone(), owed.from..self.lanes[at].next);
                }
            }
        }
        self.lanes.retain(|lane| !lane.owed.is_empty());
        for lane in &mut self.lanes {
            lane.selection = Selection::of(&lane.owed);
        }
        self.selection = Selection::of(&self.main);
    }

    fn end(&mut self, key: Option<String>, given: Range<i64>) {
        if given.is_empty() {
            return;
        }
        let mut stretches = self.ended.remove(key.as_deref()).unwrap_or_default();
        stretches.push(given);
        stretches.sort_by_key(|stretch| stretch.start);
        stretches.dedup_by(|later, earlier| {
            let is_one = later.start <= earlier.end;
            if is_one {
                earlier.end = earlier.end.max(later.end);
            }
            is_one
        });
        if stretches.len() > STRETCHES_MAX {
            stretches.remove(0);
        }
        self.ended.insert(key, stretches);
        if self.ended.tags.len() > ENDED_MAX {
            let end = |stretches: &[Range<i64>]| stretches.last().map(|stretch| stretch.end);
            let oldest = self.ended.tags.iter().min_by_key(|(_, given)| end(given));
            let oldest = oldest.map(|(tag, _)| tag.clone());
            self.ended.remove(oldest.as_deref());
        }
    }

    /// Takes up what is new, and reads it back from there where that is before the present. `first` is before all of it, too.
    pub(super) fn take_up(&mut self, new: ByTag<Owed>, first: i64, present: i64) {
        let mut owed = ByTag::default();
        let mut next = present;
        for (key, one) in new.into_entries() {
            let from = self.not_given_from(key.as_deref(), one.from.max(first));
            if from >= present {
                self.main.insert(key, present);
            } else {
                next = next.min(from);
                owed.insert(key, Owed { from, ..one });
            }
        }
        self.selection = Selection::of(&self.main);
        if !owed.is_empty() {
            self.lanes.push(Lane {
                next,
                selection: Selection::of(&owed),
                owed,
            });
        }
    }

    /// The first offset from there on of which nothing was given to this key.
    fn not_given_from(&self, key: Option<&str>, mut from: i64) -> i64 {
        if self.main.of(key).any(|start| *start <= from) {
            return i64::MAX;
        }
        while let Some(end) = self
            .stretches(key)
            .find_map(|stretch| stretch.contains(&from).then_some(stretch.end))
        {
            from = end;
        }
        from
    }

    /// What was given to this tag other than by the main line.
    fn stretches(&self, tag: Option<&str>) -> impl Iterator<Item = Range<i64>> {
        let lanes = self.lanes.iter().flat_map(move |lane| {
            let owed = lane.owed.of(tag);
            owed.map(|owed| owed.from..lane.next)
        });
        lanes.chain(self.ended.of(tag).flatten().cloned())
    }

    /// Whether a message before the present was given already.
    fn is_given(&self, offset: i64, tag: Option<&str>) -> bool {
        self.main.of(tag).any(|start| *start <= offset)
            || self.stretches(tag).any(|stretch| stretch.contains(&offset))
    }

    /// The lane that has the shortest way to go, so that none waits for a long one.
    pub(super) fn nearest(&self) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        lanes.max_by_key(|(_, lane)| lane.next).map(|(at, _)| at)
    }

    pub(super) fn lane(&self, at: usize) -> &Lane {
        &self.lanes[at]
    }

    /// Whether this lane is to give a message.
    pub(super) fn owes(&self, lane: &Lane, message: &Incoming) -> bool {
        if message.problem.is_some() && message.stored_at_ms == 0 {
            // It could not be decoded: the broker took it for one of the lane's.
            return message.offset >= lane.next;
        }
        let tag = message.tag.as_deref();
        let is_owed = |owed: &Owed| {
            owed.from <= message.offset && owed.stored_since_ms <= message.stored_at_ms
        };
        message.offset >= lane.next
            && lane.owed.of(tag).any(is_owed)
            && !self.is_given(message.offset, tag)
    }

    /// Whether any lane is.
    pub(super) fn owes_still(&self, message: &Incoming) -> bool {
        self.lanes.iter().any(|lane| self.owes(lane, message))
    }

    /// What was taken up while an older state stands for what had been given: all of it is owed there.
    pub(super) fn owe(&mut self, keys: impl Iterator<Item = Option<String>>) {
        let mut owed = ByTag::default();
        for key in keys {
            owed.insert(key, Owed::from(i64::MIN));
        }
        if !owed.is_empty() {
            self.lanes.push(Lane {
                next: i64::MIN,
                selection: Selection::of(&ByTag::<i64>::default()),
                owed,
            });
        }
    }

    /// A lane was read up to there. At the present it becomes part of the main line.
    pub(super) fn advance(&mut self, at: usize, next: i64, present: i64) {
        let lane = &mut self.lanes[at];
        lane.next = lane.next.max(next).min(present);
        if lane.next < present {
            return;
        }
        let lane = self.lanes.swap_remove(at);
        for (key, owed) in lane.owed.into_entries() {
            self.main.insert(key, owed.from);
        }
        self.selection = Selection::of(&self.main);
    }
}

#[cfg(test)]
mod tests;
