use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn interest(tags: &[&str]) -> Interest {
    Interest {
        tags: tags.iter().map(|tag| ((*tag).to_owned(), 0)).collect(),
        ..Interest::default()
    }
}

fn owed(tags: &[(&str, i64)]) -> ByTag<Owed> {
    let mut owed = ByTag::default();
    for (tag, from) in tags {
        let key = (*tag != "*").then(|| (*tag).to_owned());
        owed.insert(key, Owed::from(*from));
    }
    owed
}

fn message(offset: i64, tag: &str) -> Incoming {
    Incoming {
        offset,
        tag: Some(tag.to_owned()),
        stored_at_ms: 1_000 + offset,
        ..Incoming::default()
    }
}

/// Which of the messages [0, present) with this tag a lane is to give.
fn given_by_lane(wanted: &Wanted, at: usize, tag: &str, present: i64) -> Vec<i64> {
    let lane = wanted.lane(at);
    (0..present)
        .filter(|offset| wanted.owes(lane, &message(*offset, tag)))
        .collect()
}

fn started(expression: &str) -> Wanted {
    Wanted::new(ByTag::of_expression(expression, i64::MIN))
}

#[test]
fn what_is_new_is_read_back_alone_and_then_joins() {
    let mut wanted = started("a");
    let new = wanted.additions(&interest(&["a", "b", "c"]));
    assert_eq!(new.keys().collect::<Vec<_>>(), [Some("b"), Some("c")]);
    wanted.take_up(owed(&[("b", 5), ("c", 10)]), 0, 10);
    assert_eq!(
        wanted.selection.expression, "a||c",
        "c has nothing to be read back"
    );
    let at = wanted.nearest().expect("a lane");
    assert_eq!(wanted.lane(at).next, 5);
    assert_eq!(wanted.lane(at).selection.expression, "b");
    assert_eq!(given_by_lane(&wanted, at, "b", 10), [5, 6, 7, 8, 9]);
    assert!(
        given_by_lane(&wanted, at, "a", 10).is_empty(),
        "given by the main line"
    );
    wanted.advance(at, 8, 10);
    assert_eq!(given_by_lane(&wanted, at, "b", 10), [8, 9]);
    // The main line has gone on meanwhile, and the broker's answer reached beyond it.
    wanted.advance(at, 30, 12);
    assert!(wanted.is_read_back());
    assert_eq!(wanted.selection.expression, "a||b||c");
}

#[test]
fn a_tag_that_comes_again_is_not_given_twice() {
    let mut wanted = started("a||b");
    wanted.leave_off(&interest(&["a"]), 10);
    assert_eq!(wanted.selection.expression, "a");
    wanted.take_up(owed(&[("b", 4)]), 0, 12);
    let at = wanted.nearest().expect("a lane");
    assert_eq!(wanted.lane(at).next, 10, "what was given is not even read");
    assert_eq!(given_by_lane(&wanted, at, "b", 12), [10, 11]);
    // Left off in the midst of it, and there once more.
    wanted.advance(at, 11, 12);
    wanted.leave_off(&interest(&["a"]), 12);
    assert!(wanted.is_read_back());
    wanted.take_up(owed(&[("b", 0)]), 0, 12);
    assert_eq!(given_by_lane(&wanted, 0, "b", 12), [11]);
    wanted.leave_off(&interest(&[]), 12);
    assert_eq!(wanted.selection.expression, "%nothing%");
    assert!(!wanted.selection.filter.wants(Some("%nothing%")));
}

#[test]
fn all_leaves_out_what_was_wanted_already_and_stands_for_each_tag() {
    let mut wanted = started("a");
    wanted.take_up(owed(&[("*", 3)]), 0, 6);
    assert_eq!(wanted.lane(0).selection.expression, "*");
    assert_eq!(given_by_lane(&wanted, 0, "b", 6), [3, 4, 5]);
    assert!(given_by_lane(&wanted, 0, "a", 6).is_empty());
    wanted.advance(0, 6, 6);
    // A tag that is told beside it has nothing to be read back from there on.
    wanted.take_up(owed(&[("b", 4), ("c", 1)]), 0, 8);
    assert_eq!(given_by_lane(&wanted, 0, "c", 8), [1, 2]);
    // And when all is of interest no more, the tags are.
    wanted.advance(0, 8, 8);
    wanted.leave_off(&interest(&["a", "b", "c"]), 9);
    assert_eq!(wanted.selection.expression, "a||b||c");
    wanted.take_up(owed(&[("d", 2)]), 0, 11);
    assert_eq!(given_by_lane(&wanted, 0, "d", 11), [2, 9, 10]);
}

#[test]
fn the_shortest_way_goes_first_and_lanes_are_bounded() {
    let mut wanted = started("a");
    wanted.take_up(owed(&[("long", 0)]), 0, 100);
    wanted.take_up(owed(&[("short", 90)]), 0, 100);
    let at = wanted.nearest().expect("a lane");
    assert_eq!(wanted.lane(at).selection.expression, "short");
    wanted.advance(at, 100, 100);
    assert_eq!(wanted.selection.expression, "a||short");
    assert_eq!(wanted.lane(0).selection.expression, "long");
    for tag in 1..LANES_MAX {
        assert!(wanted.lacks(&interest(&["another"])));
        wanted.take_up(owed(&[(&tag.to_string(), 50)]), 0, 100);
    }
    assert!(!wanted.has_room() && !wanted.lacks(&interest(&["another"])));
}

#[test]
fn what_the_broker_was_asked_for_by_time_is_taken_by_time() {
    let mut wanted = started("a");
    let mut new = ByTag::default();
    for (tag, stored_since_ms) in [("b", 1_004), ("c", 1_006)] {
        let from = i64::MIN;
        new.insert(
            Some(tag.to_owned()),
            Owed {
                from,
                stored_since_ms,
            },
        );
    }
    wanted.take_up(new, 4, 8);
    assert_eq!(wanted.lane(0).next, 4);
    assert_eq!(given_by_lane(&wanted, 0, "b", 8), [4, 5, 6, 7]);
    assert_eq!(given_by_lane(&wanted, 0, "c", 8), [6, 7]);
}

#[test]
fn a_queue_made_anew_owes_nothing_and_the_old_one_owes_what_it_did() {
    let mut wanted = started("a");
    wanted.take_up(owed(&[("b", 5)]), 0, 10);
    wanted.advance(0, 7, 10);
    let anew = wanted.anew();
    assert!(anew.is_read_back());
    assert_eq!(anew.selection.expression, "a||b");
    let owes = |wanted: &Wanted, tag| -> Vec<i64> {
        let all = (0..10).filter(|offset| wanted.owes_still(&message(*offset, tag)));
        all.collect()
    };
    assert_eq!(owes(&wanted, "b"), [7, 8, 9]);
    assert!(owes(&wanted, "a").is_empty());
    wanted.owe([Some("c".to_owned()), Some("a".to_owned())].into_iter());
    assert_eq!(owes(&wanted, "c"), (0..10).collect::<Vec<_>>());
    assert!(owes(&wanted, "a").is_empty(), "it was given");
}

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }

    fn offset(&mut self, bound: i64) -> i64 {
        let bound = u64::try_from(bound).expect("not negative");
        i64::try_from(self.below(bound + 1)).expect("small")
    }
}

const TAGS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A queue with a fetcher whose interest changes all the time.
struct Queue {
    chance: Chance,
    tags: Vec<&'static str>,
    wanted: Wanted,
    present: i64,
    /// Of what is of interest: from which offset on.
    since: BTreeMap<&'static str, i64>,
    /// The same of what was, so that a tag's time never goes back.
    newest: BTreeMap<&'static str, i64>,
    given: BTreeMap<&'static str, Vec<i64>>,
}

impl Queue {
    fn give(&mut self, offset: i64) {
        let tag = self.tags[usize::try_from(offset).expect("an offset")];
        self.given.entry(tag).or_default().push(offset);
    }

    fn message(&self, offset: i64) -> Incoming {
        message(
            offset,
            self.tags[usize::try_from(offset).expect("an offset")],
        )
    }

    fn change(&mut self) {
        let tag = TAGS[usize::try_from(self.chance.below(6)).expect("small")];
        if self.since.remove(tag).is_none() && self.wanted.has_room() {
            let least = self.newest.get(tag).copied().unwrap_or(0);
            let from = (self.present - self.chance.offset(40)).max(least);
            self.since.insert(tag, from);
            self.newest.insert(tag, from);
        }
        let tags: Vec<&str> = self.since.keys().copied().collect();
        let interest = interest(&tags);
        self.wanted.leave_off(&interest, self.present);
        let new = self.wanted.additions(&interest);
        let new: Vec<_> = new
            .keys()
            .flatten()
            .map(|tag| (tag, self.since[tag]))
            .collect();
        let new = owed(&new);
        self.wanted.take_up(new, 0, self.present);
    }

    fn read_back(&mut self) {
        let Some(at) = self.wanted.nearest() else {
            return;
        };
        let lane = self.wanted.lane(at);
        // As a broker answers: it knows nothing of the main line.
        let end = i64::try_from(self.tags.len()).expect("small");
        let next = (lane.next + self.chance.offset(12)).min(end);
        let offsets: Vec<i64> = (lane.next..next.min(self.present))
            .filter(|offset| self.wanted.owes(lane, &self.message(*offset)))
            .collect();
        offsets.into_iter().for_each(|offset| self.give(offset));
        self.wanted.advance(at, next, self.present);
    }

    fn read_on(&mut self) {
        let end = i64::try_from(self.tags.len()).expect("small");
        let next = (self.present + self.chance.offset(12)).min(end);
        for offset in self.present..next {
            if self
                .wanted
                .selection
                .filter
                .wants(self.message(offset).tag.as_deref())
            {
                self.give(offset);
            }
        }
        self.present = next;
    }
}

#[test]
fn whatever_happens_each_message_is_given_once_and_in_order() {
    for seed in 0..300 {
        let mut queue = Queue {
            chance: Chance(seed),
            tags: Vec::new(),
            wanted: started("none"),
            present: 0,
            since: BTreeMap::new(),
            newest: BTreeMap::new(),
            given: BTreeMap::new(),
        };
        for _ in 0..400 {
            for _ in 0..queue.chance.below(12) {
                let tag = TAGS[usize::try_from(queue.chance.below(6)).expect("small")];
                queue.tags.push(tag);
            }
            match queue.chance.below(4) {
                0 => queue.change(),
                1 => queue.read_back(),
                _ => queue.read_on(),
            }
        }
        let end = i64::try_from(queue.tags.len()).expect("small");
        while queue.present < end || !queue.wanted.is_read_back() {
            queue.read_back();
            queue.read_on();
        }
        for (tag, given) in &queue.given {
            let is_in_order = given.is_sorted_by(|one, next| one < next);
            assert!(is_in_order, "seed {seed}, {tag}: {given:?}");
        }
        for (tag, since) in &queue.since {
            let there =
                (*since..end).filter(|offset| queue.message(*offset).tag.as_deref() == Some(tag));
            let given: BTreeSet<i64> = queue
                .given
                .get(tag)
                .into_iter()
                .flatten()
                .copied()
                .collect();
            let missing: Vec<i64> = there.filter(|offset| !given.contains(offset)).collect();
            assert!(
                missing.is_empty(),
                "seed {seed}, {tag} since {since}: {missing:?}"
            );
        }
    }
}
