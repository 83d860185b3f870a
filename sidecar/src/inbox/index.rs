//! For whom something lies in the inbox.

use std::collections::HashMap;

use rocketmq::Incoming;

use crate::mapping::{names, unescape};

/// Clients remembered. Of more, those whose messages are the oldest are looked for no more.
const CLIENTS_MAX: usize = 1_000_000;

/// What lies there for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// When the oldest of it was stored, Unix milliseconds.
    pub(super) oldest_ms: i64,
    /// When the newest was, and where.
    pub(super) newest_ms: i64,
    pub(super) last_offset: i64,
    /// How many messages.
    pub(super) count: u64,
}

/// What a message of the inbox says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Something is kept for this client.
    Kept(String),
    /// It was given to it, up to this offset.
    Taken(String, i64),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index(HashMap<Box<str>, Waiting>);

impl Word {
    /// Nothing for a message that is not ours.
    pub(super) fn of(incoming: &Incoming) -> Option<Word> {
        let value = |wanted: &str| {
            let mut properties = incoming.properties.iter();
            let found = properties.find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let client = unescape(value(names::TARGET_CLIENT)?).into_owned();
        match value(names::TAKEN) {
            Some(offset) => Some(Word::Taken(client, offset.parse().ok()?)),
            None => Some(Word::Kept(client)),
        }
    }
}

impl Index {
    /// Takes what the inbox says. Gives the client for which something is new.
    pub(super) fn follow(&mut self, incoming: &Incoming) -> Option<String> {
        match Word::of(incoming)? {
            Word::Kept(client) => {
                let (offset, stored_ms) = (incoming.offset, incoming.stored_at_ms);
                let waiting = self.0.entry(client.as_str().into()).or_insert(Waiting {
                    oldest_ms: stored_ms,
                    newest_ms: stored_ms,
                    last_offset: -1,
                    count: 0,
                });
                if offset <= waiting.last_offset {
                    return None;
                }
                waiting.newest_ms = stored_ms;
                waiting.last_offset = offset;
                waiting.count += 1;
                self.bound();
                Some(client)
            }
            Word::Taken(client, offset) => {
                if self
                    .0
                    .get(&*client)
                    .is_some_and(|waiting| waiting.last_offset <= offset)
                {
                    self.0.remove(&*client);
                }
                None
            }
        }
    }

    /// What lies there for this client.
    pub(super) fn waiting(&self, client: &str) -> Option<Waiting> {
        self.0.get(client).copied()
    }

    /// Messages that lie there, and for how many clients.
    pub(super) fn size(&self) -> (u64, u64) {
        let messages = self.0.values().map(|waiting| waiting.count).sum();
        (messages, self.0.len() as u64)
    }

    /// All for whom something lies there.
    pub(super) fn clients(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }

    /// Forgets those for whom nothing was stored since this time.
    pub(super) fn forget(&mut self, before_ms: i64) {
        self.0.retain(|_, waiting| waiting.newest_ms >= before_ms);
    }

    fn bound(&mut self) {
        if self.0.len() > CLIENTS_MAX {
            let mut times: Vec<i64> = self.0.values().map(|waiting| waiting.newest_ms).collect();
            let middle = times.len() / 2;
            let half = *times.select_nth_unstable(middle).1;
            self.forget(half);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(outgoing: rocketmq::Outgoing, offset: i64) -> Incoming {
        Incoming {
            offset,
            stored_at_ms: 1000 + offset,
            properties: outgoing.properties.to_pairs(),
            ..Incoming::default()
        }
    }

    #[test]
    fn what_was_taken_lies_there_no_more() {
        let mut index = Index::default();
        let kept = |client: &str, offset| message(super::super::kept(client, b"x"), offset);
        let taken = |client: &str, upto, offset| message(super::super::taken(client, upto), offset);
        assert_eq!(
            index.follow(&kept("a b\u{1}", 5)).as_deref(),
            Some("a b\u{1}")
        );
        index.follow(&kept("a b\u{1}", 7));
        index.follow(&kept("c", 8));
        assert_eq!(index.follow(&kept("c", 8)), None, "twice");
        let waiting = index.waiting("a b\u{1}").unwrap();
        assert_eq!(
            (waiting.oldest_ms, waiting.count, waiting.last_offset),
            (1005, 2, 7)
        );
        index.follow(&taken("a b\u{1}", 6, 9));
        assert!(
            index.waiting("a b\u{1}").is_some(),
            "something newer is there"
        );
        index.follow(&taken("a b\u{1}", 7, 10));
        assert_eq!(index.clients().collect::<Vec<_>>(), ["c"]);
        index.forget(1009);
        assert_eq!(index.clients().count(), 0);
        assert_eq!(Word::of(&Incoming::default()), None);
    }
}
