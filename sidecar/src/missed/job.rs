//! Which message a client has missed: pure decisions.

use protocol::cluster::{Buckets, RETAINED_TAG, buckets_of_filter};
use protocol::message::Identity;
use protocol::topic::filter_matches;
use protocol::trie::TopicTrie;
use rocketmq::Incoming;
use serde::{Deserialize, Serialize};

use super::handed::Handed;
use crate::groups::passed_on;
use crate::mapping::{names, unescape};
use crate::retained::refresh::is_refreshed;

/// How far before its absence a client's messages are given again: they may have been on their way to it.
pub(super) const OVERLAP_MS: u64 = 1000;

/// A subscription of a client that was away from the whole cluster and came here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Want {
    /// Who.
    pub(crate) client_id: String,
    /// The topic filter.
    pub(crate) filter: String,
    /// What the client has subscribed to before that since it came: by these it has got what matches them, and gets it only once.
    pub(crate) earlier: Vec<Box<str>>,
    /// Since when it was away, Unix milliseconds.
    pub(crate) since_ms: u64,
    /// What the downlink log has before this position was injected before the subscription, and has not reached it.
    pub(crate) downlink_position: u64,
    /// The same of what this node's own clients published: places in the uplink log.
    pub(crate) uplink_position: u64,
}

/// What is known of whether a subscription brings a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It did or will.
    Comes,
    /// It did not and will not.
    Missed,
    /// It was not handed over, and may yet be.
    Open,
}

/// The wants that one reading serves.
pub(super) struct Job {
    wants: Vec<Want>,
    by_filter: TopicTrie<usize>,
    node_id: String,
}

impl Job {
    /// Wants with a filter that is none are left out: Mosquitto has refused it.
    pub(super) fn new(wants: Vec<Want>, node_id: &str) -> Job {
        let mut by_filter = TopicTrie::new();
        for (index, want) in wants.iter().enumerate() {
            // Mosquitto knows better which it takes.
            let _ = by_filter.insert(&want.filter, index);
        }
        Job {
            wants,
            by_filter,
            node_id: node_id.to_owned(),
        }
    }

    /// The tags to read, with the time since when.
    pub(super) fn buckets(&self) -> (Buckets, u64) {
        let mut buckets = Buckets::default();
        buckets.extend(&Buckets::Some([RETAINED_TAG.to_owned()].into()));
        for want in &self.wants {
            buckets.extend(&buckets_of_filter(&want.filter));
        }
        let since_ms = self.wants.iter().map(|want| want.since_ms).min();
        (buckets, since_ms.unwrap_or(0).saturating_sub(OVERLAP_MS))
    }

    /// Which subscriptions want the message, of clients that were away when it was published.
    pub(super) fn wanted_by(&self, message: &Facts<'_>) -> Vec<&Want> {
        let mut wants = Vec::new();
        self.by_filter.matches(&message.topic, |index| {
            let want = self.wants.get(*index);
            let is_first = |want: &Want| {
                let mut earlier = want.earlier.iter();
                !earlier.any(|filter| filter_matches(filter, &message.topic))
            };
            let was_away =
                |want: &Want| message.published_ms.saturating_add(OVERLAP_MS) >= want.since_ms;
            wants.extend(want.filter(|want| was_away(want) && is_first(want)));
        });
        wants
    }

    /// Whether the message reaches the client by its subscription.
    pub(super) fn fate(&self, want: &Want, message: &Facts<'_>, handed: &Handed) -> Fate {
        if message.identity.node == self.node_id {
            // Mosquitto gave it to its own subscribers when it was published.
            return match message.identity.position >= want.uplink_position {
                true => Fate::Comes,
                false => Fate::Missed,
            };
        }
        let incoming = message.incoming;
        match handed.position(&incoming.queue, incoming.offset) {
            Some(position) if position >= want.downlink_position => Fate::Comes,
            Some(_) => Fate::Missed,
            None => Fate::Open,
        }
    }
}

/// What a message of the cluster's topic tells of itself.
pub(super) struct Facts<'a> {
    pub(super) incoming: &'a Incoming,
    pub(super) topic: std::borrow::Cow<'a, str>,
    identity: Identity<'a>,
    published_ms: u64,
}

impl<'a> Facts<'a> {
    /// Nothing for a message that no node has put there, or that is for a shared subscription alone.
    pub(super) fn of(incoming: &'a Incoming) -> Option<Facts<'a>> {
        match passed_on(incoming) {
            Some(_) => None,
            None => Facts::of_any(incoming),
        }
    }

    /// Where in this node's uplink log the message stood, if it was published there.
    pub(super) fn position_at(&self, node_id: &str) -> Option<u64> {
        (self.identity.node == node_id).then_some(self.identity.position)
    }

    /// The same, whoever it is for. Nothing for what a node has stored once more either.
    pub(super) fn of_any(incoming: &'a Incoming) -> Option<Facts<'a>> {
        if is_refreshed(incoming) {
            return None;
        }
        let value = |wanted: &str| {
            let mut properties = incoming.properties.iter();
            properties
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
        };
        let stored_ms = u64::try_from(incoming.stored_at_ms).unwrap_or(0);
        let received_ms: u64 = value(names::RECEIVED_AT)?.parse().ok()?;
        Some(Facts {
            incoming,
            topic: unescape(value(names::TOPIC)?),
            identity: Identity::parse(value(names::ID)?).ok()?,
            // What waited in a spool is missed by those who were away when it came out of it.
            published_ms: received_ms.max(stored_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(client_id: &str, filter: &str, since_ms: u64) -> Want {
        Want {
            client_id: client_id.into(),
            filter: filter.into(),
            earlier: Vec::new(),
            since_ms,
            downlink_position: 1000,
            uplink_position: 500,
        }
    }

    fn message(topic: &str, id: &str, received_ms: u64) -> Incoming {
        let received = received_ms.to_string();
        let properties = [
            (names::TOPIC, topic),
            (names::ID, id),
            (names::RECEIVED_AT, received.as_str()),
        ];
        Incoming {
            offset: 7,
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Incoming::default()
        }
    }

    #[test]
    fn those_want_a_message_whose_filters_match_it() {
        let job = Job::new(
            vec![
                want("a", "t/#", 0),
                want("a", "t/+", 0),
                want("b", "t/x", 0),
                want("c", "u", 0),
            ],
            "here",
        );
        let incoming = message("t/x", "there:1:16", 1);
        let facts = Facts::of(&incoming).unwrap();
        let mut clients: Vec<_> = job
            .wanted_by(&facts)
            .iter()
            .map(|want| want.client_id.as_str())
            .collect();
        clients.sort_unstable();
        assert_eq!(clients, ["a", "a", "b"]);
        let again = Want {
            earlier: vec!["t/#".into()],
            ..want("a", "t/+", 0)
        };
        let job = Job::new(vec![again], "here");
        assert!(job.wanted_by(&facts).is_empty(), "it has had that");
        let (buckets, since_ms) = job.buckets();
        assert!(buckets.contains(&protocol::cluster::bucket_of("t/x")));
        assert!(buckets.contains(RETAINED_TAG));
        assert_eq!(since_ms, 0);
    }

    #[test]
    fn what_was_published_before_the_absence_was_not_missed() {
        let job = Job::new(vec![want("a", "t", 10_000)], "here");
        let count = |received_ms, stored_at_ms| {
            let incoming = Incoming {
                stored_at_ms,
                ..message("t", "there:1:16", received_ms)
            };
            job.wanted_by(&Facts::of(&incoming).unwrap()).len()
        };
        assert_eq!(count(8_999, 8_999), 0);
        assert_eq!(count(9_001, 9_001), 1, "it may have been on its way");
        assert_eq!(count(5_000, 20_000), 1, "it waited in a spool");
    }

    #[test]
    fn what_the_subscription_brings_is_told_by_the_logs() {
        let job = Job::new(Vec::new(), "here");
        let want = want("a", "t", 0);
        let handed = Handed::default();
        let fate = |id: &str, handed: &Handed| {
            let incoming = message("t", id, 1);
            job.fate(&want, &Facts::of(&incoming).unwrap(), handed)
        };
        assert_eq!(fate("here:1:499", &handed), Fate::Missed);
        assert_eq!(fate("here:1:500", &handed), Fate::Comes);
        assert_eq!(fate("there:1:9", &handed), Fate::Open);
        handed.note(&rocketmq::Queue::default(), 7, 999);
        assert_eq!(fate("there:1:9", &handed), Fate::Missed);
        let handed = Handed::default();
        handed.note(&rocketmq::Queue::default(), 7, 1000);
        assert_eq!(fate("there:1:9", &handed), Fate::Comes);
    }
}
