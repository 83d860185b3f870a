//! Messages for single clients that were another node's to deliver or to keep, for as long as it may turn out that this node is dead.

use std::collections::VecDeque;
use std::time::Duration;

/// What is remembered, at most; the oldest go first.
const BYTES_MAX: usize = 16 << 20;
/// What an entry takes beside its text and its frame, about.
const ENTRY_BYTES: usize = 96;
/// So much longer than the time-out a node may be dead without being taken for it.
const LONGER: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Entry {
    number: u64,
    at_ms: u64,
    client: Box<str>,
    frame: Box<[u8]>,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.client.len() + self.frame.len()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
    next: u64,
    for_ms: u64,
}

/// A frame, its client, and by what it is forgotten.
pub(super) type Remembered = (u64, Box<str>, Box<[u8]>);

impl Recent {
    pub(super) fn new(node_timeout: Duration) -> Recent {
        Recent {
            entries: VecDeque::new(),
            bytes: 0,
            next: 0,
            for_ms: u64::try_from((node_timeout + LONGER).as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn note(&mut self, client: &str, frame: &[u8], now_ms: u64) {
        let entry = Entry {
            number: self.next,
            at_ms: now_ms,
            client: client.into(),
            frame: frame.into(),
        };
        self.next += 1;
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while let Some(first) = self.entries.front()
            && (self.bytes > BYTES_MAX || first.at_ms.saturating_add(self.for_ms) < now_ms)
        {
            self.bytes -= first.bytes();
            self.entries.pop_front();
        }
    }

    /// What was noted since then.
    pub(super) fn since(&self, since_ms: u64) -> Vec<Remembered> {
        let entries = self.entries.iter();
        let entries = entries.filter(|entry| entry.at_ms >= since_ms);
        entries
            .map(|entry| (entry.number, entry.client.clone(), entry.frame.clone()))
            .collect()
    }

    /// It is done.
    pub(super) fn forget(&mut self, number: u64) {
        let found = self
            .entries
            .binary_search_by_key(&number, |entry| entry.number);
        if let Some(entry) = found.ok().and_then(|at| self.entries.remove(at)) {
            self.bytes -= entry.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(recent: &Recent, since_ms: u64) -> Vec<String> {
        let found = recent.since(since_ms).into_iter();
        found.map(|(_, client, _)| client.into()).collect()
    }

    #[test]
    fn what_is_recent_is_remembered_until_it_is_done_or_old() {
        let mut recent = Recent::new(Duration::from_secs(5));
        for (client, at_ms) in [("a", 1_000), ("b", 5_000), ("c", 9_000)] {
            recent.note(client, b"frame", at_ms);
        }
        assert_eq!(clients(&recent, 5_000), ["b", "c"]);
        let (number, _, frame) = recent.since(5_000).remove(0);
        assert_eq!(&*frame, b"frame");
        recent.forget(number);
        recent.forget(number);
        assert_eq!(clients(&recent, 0), ["a", "c"]);
        recent.note("d", b"frame", 11_001);
        assert_eq!(clients(&recent, 0), ["c", "d"]);
        assert_eq!(recent.bytes, 2 * (ENTRY_BYTES + 1 + 5));
    }

    #[test]
    fn memory_is_bounded() {
        let mut recent = Recent::new(Duration::from_secs(5));
        let frame = vec![0; 1 << 20];
        for number in 0..40 {
            recent.note(&number.to_string(), &frame, 1_000);
        }
        assert!(recent.bytes <= BYTES_MAX);
        assert_eq!(clients(&recent, 0).len(), 15);
    }
}
