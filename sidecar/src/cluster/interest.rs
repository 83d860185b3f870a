//! Which tags this node wants of the shared messages, and since when.
//!
//! A tag is wanted while some session has a filter that needs it, and for a while after: who subscribes again at once has missed
//! nothing, and when Mosquitto starts again, the subscriptions of its saved sessions come one by one.

use std::collections::{BTreeMap, HashMap};

use protocol::cluster::{Buckets, DIRECT_TAG, RETAINED_TAG, buckets_of_filter};
use rocketmq::Interest;

/// How long a tag stays wanted that no filter needs any more, by the events' time.
pub(super) const LINGER_MS: u64 = 10_000;
/// With more tags than this everything is read: the expression would cost RocketMQ more than it keeps away.
const TAGS_MAX: usize = 4_096;
/// The time of a filter that was kept: its tags have times of their own.
pub(super) const KNOWN: u64 = u64::MAX;
/// Characters of a tag.
const TAG_LEN: usize = 4;

/// A tag of a bucket.
pub(super) type Tag = [u8; TAG_LEN];

/// Why something is wanted, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Want {
    filters: u32,
    since_ms: u64,
    /// Until when it is wanted without a filter.
    until_ms: u64,
}

impl Want {
    fn more(&mut self, at_ms: u64) {
        let is_new = self.filters == 0 && self.until_ms < at_ms;
        self.filters += 1;
        if is_new || at_ms < self.since_ms {
            self.since_ms = at_ms;
        }
    }

    fn less(&mut self, at_ms: u64) {
        self.filters = self.filters.saturating_sub(1);
        if self.filters == 0 {
            self.until_ms = at_ms.saturating_add(LINGER_MS);
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.filters == 0 && self.until_ms < now_ms
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    tags: HashMap<Tag, Want>,
    /// By filters that can match anything.
    all: Want,
    /// Subscriptions may exist that were not told, since this time.
    pub(super) deaf: Option<Deaf>,
    /// Since when there have been too many tags.
    crowded_since_ms: Option<u64>,
    /// Retained messages, which every node wants.
    pub(super) retained_since_ms: u64,
    /// Messages for one client each, where those are shared.
    pub(super) direct_since_ms: Option<u64>,
    is_changed: bool,
}

/// See [`Wanted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deaf {
    pub(super) since_ms: u64,
    /// Until when it is still minded; nothing: Mosquitto has not started again.
    pub(super) until_ms: Option<u64>,
}

impl Wanted {
    /// A filter is new.
    pub(super) fn more(&mut self, filter: &str, at_ms: u64) {
        match buckets_of_filter(filter) {
            Buckets::All => {
                self.all.more(at_ms);
                self.is_changed = true;
            }
            Buckets::Some(tags) => {
                for tag in tags.iter().filter_map(|tag| tag_of(tag)) {
                    let known = self.tags.len();
                    let want = self.tags.entry(tag).or_default();
                    let before = want.since_ms;
                    want.more(at_ms);
                    self.is_changed |= want.since_ms != before || self.tags.len() != known;
                }
            }
        }
        if self.tags.len() > TAGS_MAX && self.crowded_since_ms.is_none() {
            self.crowded_since_ms = Some(at_ms);
        }
    }

    /// The last session that had this filter has it no more.
    pub(super) fn less(&mut self, filter: &str, at_ms: u64) {
        match buckets_of_filter(filter) {
            Buckets::All => self.all.less(at_ms),
            Buckets::Some(tags) => {
                for tag in tags.iter().filter_map(|tag| tag_of(tag)) {
                    if let Some(want) = self.tags.get_mut(&tag) {
                        want.less(at_ms);
                    }
                }
            }
        }
    }

    /// Anything may be subscribed to since then.
    pub(super) fn set_deaf(&mut self, since_ms: u64) {
        let before = self.deaf;
        let since_ms = before.map_or(since_ms, |deaf| deaf.since_ms.min(since_ms));
        self.deaf = Some(Deaf {
            since_ms,
            until_ms: None,
        });
        self.is_changed |= self.deaf != before;
    }

    /// Mosquitto has started again: what is subscribed to is told from here on.
    pub(super) fn set_hearing(&mut self, at_ms: u64) {
        if let Some(deaf) = &mut self.deaf {
            deaf.until_ms.get_or_insert(at_ms.saturating_add(LINGER_MS));
        }
    }

    /// Gives up what no filter has needed for a while.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        let before = self.tags.len();
        self.tags.retain(|_, want| !want.is_over(now_ms));
        let is_heard = |deaf: &Deaf| deaf.until_ms.is_some_and(|until| until < now_ms);
        let is_all_over = self.all.since_ms != 0 && self.all.is_over(now_ms);
        if is_all_over {
            self.all = Want::default();
        }
        let was_deaf = self.deaf.take_if(|deaf| is_heard(deaf)).is_some();
        let was_crowded = self.tags.len() <= TAGS_MAX && self.crowded_since_ms.take().is_some();
        self.is_changed |= before != self.tags.len() || is_all_over || was_deaf || was_crowded;
    }

    /// Whether it is another than when this was asked last.
    pub(super) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// As RocketMQ is asked for it.
    pub(super) fn interest(&self) -> Interest {
        let ms = |since: u64| i64::try_from(since).unwrap_or(i64::MAX);
        let all = (self.all.since_ms != 0).then_some(self.all.since_ms);
        let deaf = self.deaf.map(|deaf| deaf.since_ms);
        let all_since = [all, deaf, self.crowded_since_ms]
            .into_iter()
            .flatten()
            .min();
        let mut tags: BTreeMap<String, i64> = match self.crowded_since_ms {
            Some(_) => BTreeMap::new(),
            None => self
                .tags
                .iter()
                .map(|(tag, want)| (text_of(tag).to_owned(), ms(want.since_ms)))
                .collect(),
        };
        tags.insert(RETAINED_TAG.to_owned(), ms(self.retained_since_ms));
        if let Some(since_ms) = self.direct_since_ms {
            tags.insert(DIRECT_TAG.to_owned(), ms(since_ms));
        }
        Interest {
            all_since_ms: all_since.map(ms),
            tags,
            // The reader knows.
            settled_ms: 0,
        }
    }

    /// Everything with a time: all (if it is wanted), and each tag.
    pub(super) fn times(&self) -> (u64, impl Iterator<Item = (&str, u64)>) {
        let tags = self.tags.iter();
        (
            self.all.since_ms,
            tags.map(|(tag, want)| (text_of(tag), want.since_ms)),
        )
    }

    /// A time that was kept (of a tag, or of all): as of something that is no more wanted by any filter, until one comes with
    /// [`KNOWN`] as its time. [`Wanted::restored`] ends that.
    pub(super) fn restore(&mut self, tag: Option<&str>, since_ms: u64) {
        let want = Want {
            filters: 0,
            since_ms,
            until_ms: KNOWN,
        };
        match tag.map(tag_of) {
            None => self.all = want,
            Some(Some(tag)) => drop(self.tags.insert(tag, want)),
            Some(None) => {}
        }
    }

    /// Everything that was kept is there.
    pub(super) fn restored(&mut self, now_ms: u64) {
        let all = (self.all.since_ms != 0).then_some(&mut self.all);
        for want in self.tags.values_mut().chain(all) {
            if want.filters == 0 {
                // Also what a start of Mosquitto has just ended: what it had saved is yet to be read.
                want.until_ms = now_ms.saturating_add(LINGER_MS);
            }
            if want.since_ms == KNOWN {
                want.since_ms = now_ms;
            }
        }
        if self.tags.len() > TAGS_MAX {
            self.crowded_since_ms.get_or_insert(now_ms);
        }
        self.is_changed = true;
    }
}

fn tag_of(tag: &str) -> Option<Tag> {
    tag.as_bytes().try_into().ok()
}

fn text_of(tag: &Tag) -> &str {
    // They were made of text.
    std::str::from_utf8(tag).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(wanted: &Wanted, filter: &str) -> Option<i64> {
        let Buckets::Some(tags) = buckets_of_filter(filter) else {
            panic!("{filter} needs all")
        };
        wanted.interest().tags.get(tags.first()?).copied()
    }

    #[test]
    fn nothing_but_retained_messages_is_wanted_at_first() {
        let interest = Wanted::default().interest();
        assert_eq!(interest.all_since_ms, None);
        assert_eq!(interest.tags, [("R".to_owned(), 0)].into());
    }

    #[test]
    fn a_tag_is_wanted_since_its_first_filter_and_a_while_longer_than_its_last() {
        let mut wanted = Wanted::default();
        wanted.more("a/b", 5_000);
        wanted.more("a/b/c", 6_000);
        assert!(wanted.take_change());
        assert_eq!(since(&wanted, "a/b"), Some(5_000));
        wanted.less("a/b", 7_000);
        wanted.less("a/b/c", 8_000);
        wanted.sweep(8_000 + LINGER_MS);
        assert!(!wanted.take_change());
        // Who comes back meanwhile has missed nothing.
        wanted.more("a/b", 17_000);
        assert_eq!(since(&wanted, "a/b"), Some(5_000));
        wanted.less("a/b", 18_000);
        wanted.sweep(18_001 + LINGER_MS);
        assert!(wanted.take_change());
        assert_eq!(since(&wanted, "a/b"), None);
        wanted.more("a/b", 50_000);
        assert_eq!(since(&wanted, "a/b"), Some(50_000));
    }

    #[test]
    fn whoever_wants_all_gets_all_until_it_goes() {
        let mut wanted = Wanted::default();
        wanted.more("#", 5_000);
        assert_eq!(wanted.interest().all_since_ms, Some(5_000));

        wanted.less("#", 6_000);
        wanted.sweep(6_001 + LINGER_MS);
        assert!(wanted.take_change());
        let interest = wanted.interest();
        assert_eq!((interest.all_since_ms, interest.tags.len()), (None, 1));
    }

    #[test]
    fn deaf_is_all_until_mosquitto_has_started_and_told_what_it_had_saved() {
        let mut wanted = Wanted::default();
        wanted.set_deaf(7_000);
        wanted.set_deaf(9_000);
        assert_eq!(wanted.interest().all_since_ms, Some(7_000));
        wanted.set_hearing(20_000);
        wanted.sweep(20_000 + LINGER_MS);
        assert_eq!(wanted.interest().all_since_ms, Some(7_000));
        wanted.sweep(20_001 + LINGER_MS);
        assert_eq!(wanted.interest().all_since_ms, None);
    }

    #[test]
    fn too_many_tags_are_all_and_few_again_are_not() {
        let mut wanted = Wanted::default();
        for level in 0..17 {
            wanted.more(&format!("{level}/#"), 1_000 + level);
        }
        let interest = wanted.interest();
        assert_eq!(interest.all_since_ms, Some(1_015), "{}", wanted.tags.len());
        assert_eq!(interest.tags.len(), 1);
        wanted.less("16/#", 2_000);
        wanted.less("15/#", 2_000);
        assert!(wanted.take_change());
        wanted.sweep(2_001 + LINGER_MS);
        assert_eq!(wanted.interest().all_since_ms, None);
        assert_eq!(wanted.interest().tags.len(), 15 * 257 + 1);
    }

    #[test]
    fn an_earlier_time_counts_and_a_restored_one_is_taken_up() {
        let mut wanted = Wanted::default();
        wanted.restore(Some("250b"), 3_000);
        wanted.restore(Some("4g64"), 3_500);
        wanted.restore(None, 4_000);
        wanted.more("sensors/7", KNOWN);
        wanted.restored(90_000);
        assert_eq!(since(&wanted, "sensors/7"), Some(3_000));
        wanted.sweep(90_001 + LINGER_MS);
        assert_eq!(since(&wanted, "sensors/7"), Some(3_000));
        assert_eq!(wanted.interest().all_since_ms, None);
        assert_eq!(wanted.interest().tags.get("4g64"), None);
        wanted.more("sensors/7/x", 2_000);
        assert_eq!(since(&wanted, "sensors/7"), Some(2_000));
    }
}
