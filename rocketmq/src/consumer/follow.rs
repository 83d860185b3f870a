//! How a fetcher follows an interest that changes: what is new is taken up at once, and read back from its time on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::by_tag::ByTag;
use super::positions::Positions;
use super::wanted::{Owed, Wanted};
use crate::Interest;

/// So much earlier than the time of a tag is read back, by where reading was.
const MARGIN_MS: i64 = 1000;
/// And so much by the time at which a broker has stored messages: its clock is not ours.
const CLOCKS_APART_MS: i64 = 5000;
/// A pull is not given up for what is new before this has passed since the last change, so that a broker has few of them to hold.
const CHANGES_APART: Duration = Duration::from_millis(50);

/// The interest, and what of it was taken up.
pub(super) struct Following {
    interest: watch::Receiver<Arc<Interest>>,
    pub(super) taken_up: Option<Arc<Interest>>,
    /// Our reader was told that all of that has been read back.
    pub(super) is_told: bool,
    not_before: Instant,
}

impl Following {
    pub(super) fn new(interest: watch::Receiver<Arc<Interest>>) -> Following {
        Following {
            interest,
            taken_up: None,
            is_told: false,
            not_before: Instant::now(),
        }
    }

    /// The interest, when it has changed since it was taken up.
    pub(super) fn changed(&mut self) -> Option<Arc<Interest>> {
        let now = Arc::clone(&self.interest.borrow_and_update());
        let is_same = self
            .taken_up
            .as_ref()
            .is_some_and(|old| Arc::ptr_eq(old, &now));
        (!is_same).then_some(now)
    }

    pub(super) fn take_up(&mut self, interest: Arc<Interest>) {
        self.taken_up = Some(interest);
        self.is_told = false;
        self.not_before = Instant::now() + CHANGES_APART;
    }
}

/// Ends when there is something of interest that isn't wanted yet.
pub(super) async fn until_more_is_wanted(following: Option<&mut Following>, wanted: &Wanted) {
    let Some(following) = following else {
        return std::future::pending().await;
    };
    loop {
        if following.interest.changed().await.is_err() {
            // It changes no more.
            return std::future::pending().await;
        }
        let lacks = wanted.lacks(&following.interest.borrow());
        if lacks {
            tokio::time::sleep_until(following.not_before.into()).await;
            return;
        }
    }
}

/// Where what is new is to be read from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// What was read up to the present.
    pub(super) settled: ByTag<Owed>,
    /// By where reading was at the time.
    pub(super) reached: ByTag<Owed>,
    /// From the queue's first message on.
    pub(super) whole: ByTag<Owed>,
    /// From where the broker says that messages of that time begin.
    pub(super) asked: (ByTag<Owed>, i64),
}

impl Plan {
    /// Up to `settled_ms` everything was read up to the present. `now` by both clocks.
    pub(super) fn of(
        new: ByTag<i64>,
        settled_ms: Option<i64>,
        positions: &Positions,
        (now, now_ms): (Instant, i64),
    ) -> Plan {
        let mut plan = Plan {
            asked: (ByTag::default(), i64::MAX),
            ..Plan::default()
        };
        for (key, since_ms) in new.into_entries() {
            if settled_ms.is_some_and(|settled_ms| since_ms <= settled_ms) {
                plan.settled.insert(key, Owed::from(i64::MAX));
                continue;
            }
            let ago = now_ms.saturating_sub(since_ms).saturating_add(MARGIN_MS);
            let ago = Duration::from_millis(u64::try_from(ago).unwrap_or(0));
            if let Some(offset) = positions.at(now.checked_sub(ago)) {
                plan.reached.insert(key, Owed::from(offset));
            } else if since_ms <= 0 {
                plan.whole.insert(key, Owed::from(0));
            } else {
                let stored_since_ms = since_ms.saturating_sub(CLOCKS_APART_MS);
                let owed = Owed {
                    from: 0,
                    stored_since_ms,
                };
                plan.asked.0.insert(key, owed);
                plan.asked.1 = plan.asked.1.min(stored_since_ms);
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_000_000;

    fn new(tags: &[(&str, i64)]) -> ByTag<i64> {
        let tags = tags.iter().map(|(tag, since)| ((*tag).to_owned(), *since));
        ByTag {
            all: None,
            tags: tags.collect(),
        }
    }

    fn offsets(group: &ByTag<Owed>) -> Vec<(Option<&str>, i64)> {
        let offset = |key| (key, group.get(key).map_or(-1, |owed| owed.from));
        group.keys().map(offset).collect()
    }

    #[test]
    fn where_reading_was_a_second_before_the_time_is_remembered_or_asked_for() {
        let start = Instant::now();
        let now = start + Duration::from_secs(40);
        let mut positions = Positions::starting(Some(start), 5);
        for second in 1..40 {
            positions.note(
                start + Duration::from_secs(second),
                5 + i64::try_from(second).expect("small"),
            );
        }
        let tags = [
            ("just now", NOW_MS),
            ("later than now", NOW_MS + 500_000),
            ("a while ago", NOW_MS - 10_500),
            ("at the start", NOW_MS - 39_000),
            ("before it", NOW_MS - 39_001),
            ("long before it", 10_000),
            ("always", 0),
        ];
        let plan = Plan::of(new(&tags), None, &positions, (now, NOW_MS));
        assert_eq!(
            offsets(&plan.reached),
            [
                (Some("a while ago"), 5 + 28),
                (Some("at the start"), 5),
                (Some("just now"), 5 + 39),
                (Some("later than now"), 5 + 39),
            ]
        );
        assert_eq!(offsets(&plan.whole), [(Some("always"), 0)]);
        let (asked, since_ms) = plan.asked;
        assert_eq!(since_ms, 5_000);
        let stored_since = |tag| asked.get(Some(tag)).map(|owed| owed.stored_since_ms);
        assert_eq!(stored_since("long before it"), Some(5_000));
        assert_eq!(stored_since("before it"), Some(NOW_MS - 44_001));
    }

    #[test]
    fn what_is_settled_is_not_read_back() {
        let now = Instant::now();
        let positions = Positions::starting(Some(now), 70);
        let tags = [("old", NOW_MS - 90_000), ("new", NOW_MS - 80_000)];
        let settled = Some(NOW_MS - 90_000);
        let plan = Plan::of(new(&tags), settled, &positions, (now, NOW_MS));
        assert_eq!(offsets(&plan.settled), [(Some("old"), i64::MAX)]);
        assert_eq!(offsets(&plan.asked.0), [(Some("new"), 0)]);
        // And a queue that was never read has nothing that is.
        let plan = Plan::of(new(&tags), None, &positions, (now, NOW_MS));
        assert_eq!(plan.asked.0.tags.len(), 2);
    }

    #[test]
    fn in_a_queue_that_is_read_from_its_beginning_nothing_is_asked_for() {
        let now = Instant::now();
        let positions = Positions::starting(None, 0);
        let mut new = new(&[("a", 0)]);
        new.all = Some(NOW_MS - 1);
        let plan = Plan::of(new, None, &positions, (now, NOW_MS));
        assert_eq!(offsets(&plan.reached), [(None, 0), (Some("a"), 0)]);
        assert_eq!(plan.asked.1, i64::MAX);
    }
}
