//! Topic filters, each kept once: most clients of a broker subscribe to what many others do.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::mem::size_of;

/// Stands for "none" in the chains.
const NONE: u32 = u32::MAX;
/// What the allocator adds to a piece of memory, about, and the least that it gives.
const ALLOCATION: usize = 8;
const ALLOCATION_MIN: usize = 32;

/// Stands for a filter while a session has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FilterId(u32);

/// All filters that some session has.
#[derive(Debug, Default)]
pub(super) struct Filters {
    entries: Vec<Entry>,
    /// Hash of the text → the first entry with it. Not the text itself, which would be kept twice then.
    index: HashMap<u32, u32>,
    hasher: RandomState,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    uses: u32,
    /// The next entry with the same hash.
    next: u32,
}

impl Filters {
    /// One more use of the filter, and whether it is the first.
    pub(super) fn acquire(&mut self, text: &str) -> (FilterId, bool) {
        if let Some(id) = self.find(text) {
            if let Some(entry) = self.entries.get_mut(id.0 as usize) {
                entry.uses += 1;
            }
            return (id, false);
        }
        let hash = self.hash(text);
        let entry = Entry {
            text: text.into(),
            uses: 1,
            next: self.index.get(&hash).copied().unwrap_or(NONE),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                // By a quarter and not by the double: there may be many.
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact((self.entries.len() / 4).max(64));
                }
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.index.insert(hash, at);
        (FilterId(at), true)
    }

    /// One use less. The text when it was the last.
    pub(super) fn release(&mut self, id: FilterId) -> Option<Box<str>> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses > 0 {
            return None;
        }
        let (text, next) = (std::mem::take(&mut entry.text), entry.next);
        let hash = self.hash(&text);
        self.unlink(hash, id.0, next);
        self.free.push(id.0);
        Some(text)
    }

    fn unlink(&mut self, hash: u32, at: u32, next: u32) {
        let first = self.index.get(&hash).copied().unwrap_or(NONE);
        if first == at {
            match next {
                NONE => self.index.remove(&hash),
                next => self.index.insert(hash, next),
            };
            return;
        }
        let mut before = first;
        while let Some(entry) = self.entries.get_mut(before as usize) {
            if entry.next == at {
                entry.next = next;
                return;
            }
            before = entry.next;
        }
    }

    /// The filter, if some session has it.
    pub(super) fn find(&self, text: &str) -> Option<FilterId> {
        let mut at = *self.index.get(&self.hash(text))?;
        while let Some(entry) = self.entries.get(at as usize) {
            if &*entry.text == text {
                return Some(FilterId(at));
            }
            at = entry.next;
        }
        None
    }

    pub(super) fn text(&self, id: FilterId) -> &str {
        self.entries
            .get(id.0 as usize)
            .map_or("", |entry| &entry.text)
    }

    /// How many different ones there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// About the memory that they take.
    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self
            .entries
            .iter()
            .map(|entry| heap(entry.text.len()))
            .sum();
        self.entries.capacity() * size_of::<Entry>()
            + table(self.index.capacity(), size_of::<(u32, u32)>())
            + self.free.capacity() * size_of::<u32>()
            + texts
    }

    fn hash(&self, text: &str) -> u32 {
        self.hasher.hash_one(text) as u32
    }
}

/// About what an allocation of so many bytes takes.
pub(super) fn heap(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        bytes => (bytes + ALLOCATION)
            .next_multiple_of(16)
            .max(ALLOCATION_MIN),
    }
}

/// About what a hash table takes that has this capacity: it is a power of two and at most 7/8 full, with a byte beside each entry.
pub(super) fn table(capacity: usize, entry_bytes: usize) -> usize {
    match capacity {
        0 => 0,
        capacity => (capacity * 8 / 7).next_power_of_two() * (entry_bytes + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_there_as_long_as_somebody_has_it() {
        let mut filters = Filters::default();
        let (a, first) = filters.acquire("a/#");
        assert!(first);
        assert_eq!(filters.acquire("a/#"), (a, false));
        assert_eq!(filters.release(a), None);
        assert_eq!(filters.find("a/#"), Some(a));
        assert_eq!(filters.release(a).as_deref(), Some("a/#"));
        assert_eq!((filters.find("a/#"), filters.len()), (None, 0));
        let (b, first) = filters.acquire("b");
        assert!(first);
        assert_eq!(filters.text(b), "b");
        assert_eq!(filters.entries.len(), 1, "the place is used again");
    }

    #[test]
    fn filters_with_the_same_hash_are_told_apart() {
        let mut filters = Filters::default();
        let ids: Vec<_> = ["a", "b", "c"].map(|text| filters.acquire(text).0).into();
        // As if all had one hash.
        let hashes = ["a", "b", "c"].map(|text| filters.hash(text));
        filters.index.clear();
        filters.index.insert(hashes[1], ids[0].0);
        filters.entries[ids[0].0 as usize].next = ids[1].0;
        filters.entries[ids[1].0 as usize].next = ids[2].0;
        assert_eq!(filters.find("b"), Some(ids[1]));
        filters.release(ids[1]);
        assert_eq!(filters.find("b"), None);
        assert_eq!(filters.entries[ids[0].0 as usize].next, ids[2].0);
    }
}
