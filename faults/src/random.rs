//! Random numbers that can be had again.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::load::now_ms;
use crate::run::log;

/// A xorshift generator.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded by `FAULTS_SEED`, else by the time; says so.
    pub fn seeded(fault: &str) -> Random {
        let given = std::env::var("FAULTS_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| now_ms().unsigned_abs());
        log(fault, &format!("FAULTS_SEED={seed}"));
        // Another sequence for each fault of one ledger. DefaultHasher::new() has no secret.
        let mut hasher = DefaultHasher::new();
        (fault, seed).hash(&mut hasher);
        Random(hasher.finish().max(1))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The high bits are the better ones.
        (self.0 >> 16) % bound
    }

    /// Puts a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for index in (1..list.len()).rev() {
            let other = self.below(index as u64 + 1);
            list.swap(index, usize::try_from(other).expect("an index"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Random;

    #[test]
    fn numbers_stay_below_their_bound_and_differ() {
        let mut random = Random(7);
        let numbers: BTreeSet<u64> = (0..1_000).map(|_| random.below(50)).collect();
        assert!(numbers.iter().all(|number| *number < 50), "{numbers:?}");
        assert!(numbers.len() > 40, "{numbers:?}");
    }

    #[test]
    fn a_shuffled_list_has_the_same_members() {
        let mut list: Vec<u32> = (0..100).collect();
        Random(9).shuffle(&mut list);
        assert_ne!(list, (0..100).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..100).collect::<Vec<_>>());
    }
}
