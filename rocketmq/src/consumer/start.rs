//! Where to start in a queue.
//!
//! Where the group has an offset, there. In a queue without one, it depends on whether the group has read the topic before (it has an
//! offset in another queue, before we gave it one): then the queue was added since, and is read from its beginning. Else the
//! subscription says. The ends of all queues are taken before any of them is committed: a group that has some offsets only counts as
//! one that has read before.

use std::collections::HashMap;

use super::{Shared, offsets};
use crate::client::unix_ms;
use crate::{Error, Queue, StartAt};

/// How far before the first answer a queue that shows later is read: brokers' clocks are not ours.
const CLOCKS_APART_MS: i64 = 10 * 60 * 1000;

/// What is known of a topic since RocketMQ first answered about it.
pub(super) struct Asked {
    /// When that was, Unix milliseconds.
    since_ms: i64,
    /// It said that there is no such topic: what is in it later was stored since, or its broker was away.
    was_missing: bool,
    /// Nothing while no queue was seen.
    first: Option<First>,
}

/// What was found in the first queues.
struct First {
    /// The group had read the topic before.
    is_group_known: bool,
    /// If not, their ends at that time, unless the topic was missing before.
    ends: HashMap<Queue, i64>,
}

/// Where reading a queue begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) offset: i64,
    /// The group has committed that one before: what is before it was read, as far as it was of interest then.
    pub(super) is_known: bool,
}

/// Where a queue is read from.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    At(i64),
    /// At an end that is to be committed at once, if anything is: after a crash it must not count as a queue that nobody has looked at.
    AtEnd(i64),
    /// At what was stored since the topic was first asked for.
    Since,
}

impl Asked {
    pub(super) fn now(was_missing: bool) -> Asked {
        Asked {
            since_ms: unix_ms(),
            was_missing,
            first: None,
        }
    }

    /// Where to start in the new queues. All of them or none, so that a later look decides by the same knowledge.
    pub(super) async fn places(
        &mut self,
        shared: &Shared,
        new: Vec<Queue>,
    ) -> Result<Vec<(Queue, Begin)>, Error> {
        let mut known = Vec::with_capacity(new.len());
        for queue in new {
            let committed = match shared.start {
                StartAt::Present => None,
                StartAt::Latest | StartAt::Earliest => offsets::committed(shared, &queue).await?,
            };
            known.push((queue, committed));
        }
        let first = match self.first.take() {
            Some(first) => first,
            None => First::look(shared, &known, self.was_missing).await?,
        };
        let first = self.first.insert(first);
        let is_kept = shared.start != StartAt::Present;
        let mut places = Vec::with_capacity(known.len());
        for (queue, committed) in known {
            let offset = match first.place(&queue, committed, shared.start) {
                Place::At(offset) => offset,
                Place::AtEnd(end) => {
                    if is_kept {
                        offsets::commit(shared, &queue, end).await?;
                    }
                    end
                }
                Place::Since => {
                    let time_ms = self.since_ms - CLOCKS_APART_MS;
                    let offset = offsets::since(shared, &queue, time_ms).await?;
                    if is_kept {
                        offsets::commit(shared, &queue, offset).await?;
                    }
                    offset
                }
            };
            let is_known = committed.is_some();
            places.push((queue, Begin { offset, is_known }));
        }
        Ok(places)
    }
}

impl First {
    async fn look(
        shared: &Shared,
        known: &[(Queue, Option<i64>)],
        was_missing: bool,
    ) -> Result<First, Error> {
        let is_group_known = known.iter().any(|(_, committed)| committed.is_some());
        let mut ends = HashMap::new();
        if !is_group_known && !was_missing && shared.start != StartAt::Earliest {
            for (queue, _) in known {
                ends.insert(queue.clone(), offsets::end(shared, queue).await?);
            }
        }
        Ok(First {
            is_group_known,
            ends,
        })
    }

    fn place(&self, queue: &Queue, committed: Option<i64>, start: StartAt) -> Place {
        match (committed, self.ends.get(queue)) {
            (Some(offset), _) => Place::At(offset),
            (None, _) if self.is_group_known || start == StartAt::Earliest => Place::At(0),
            (None, Some(end)) => Place::AtEnd(*end),
            (None, None) => Place::Since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(broker: &str) -> Queue {
        Queue {
            topic: "T".to_owned(),
            broker: broker.to_owned(),
            id: 0,
        }
    }

    fn first(is_group_known: bool) -> First {
        let ends = [(queue("a"), 70)];
        First {
            is_group_known,
            ends: ends.into_iter().filter(|_| !is_group_known).collect(),
        }
    }

    #[test]
    fn a_group_goes_on_where_it_was_and_reads_added_queues_from_their_beginning() {
        let place =
            |broker, committed| first(true).place(&queue(broker), committed, StartAt::Latest);
        assert_eq!(place("a", Some(5)), Place::At(5));
        assert_eq!(place("b", None), Place::At(0));
    }

    #[test]
    fn a_broker_that_was_away_at_the_first_start_is_not_read_from_its_beginning() {
        let place = |broker, start| first(false).place(&queue(broker), None, start);
        assert_eq!(place("a", StartAt::Latest), Place::AtEnd(70));
        assert_eq!(place("b", StartAt::Latest), Place::Since);
        assert_eq!(place("b", StartAt::Earliest), Place::At(0));
        // The commit of the end was answered, and another's was not.
        let again = first(false).place(&queue("a"), Some(70), StartAt::Latest);
        assert_eq!(again, Place::At(70));
    }
}
