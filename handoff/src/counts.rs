//! How many frames lie before a position of the cursor page.
//!
//! ```text
//!  0              8                        14       16
//!  +--------------+------------------------+--------+
//!  | position u64 | frames, 48 bits        | seal   |   twice
//!  +--------------+------------------------+--------+
//! ```
//! The position and its count can't be stored as one. So the count of the position to come is written into the pair that is not the
//! present position's, before the position itself moves: whenever the process dies, one pair is that of the position.
//!
//! The seal is the lower half of a CRC32C over the 14 bytes before it. A pair that is damaged says nothing, and the next writer counts the frames.

use crate::checksum;
use crate::primitive::{AtomicU64, Ordering, fence};

const FRAMES_BITS: u32 = 48;
const FRAMES_MASK: u64 = (1 << FRAMES_BITS) - 1;
/// No position.
const UNSET: u64 = u64::MAX;

/// The two pairs.
#[repr(C)]
pub(crate) struct Counts([Count; 2]);

#[repr(C)]
struct Count {
    position: AtomicU64,
    sealed: AtomicU64,
}

const _: () = assert!(size_of::<Counts>() == 32);

impl Counts {
    /// Says that there are `frames` frames before `position`, and keeps what is said of `present`.
    pub(crate) fn set(&self, present: u64, position: u64, frames: u64) {
        let [first, second] = &self.0;
        if first.position.load(Ordering::Relaxed) == present {
            second.set(position, frames);
        } else {
            first.set(position, frames);
        }
        if present == position {
            // Another count of the same position.
            first.set(position, frames);
            second.set(position, frames);
        }
    }

    /// How many frames there are before `position`, if that is known.
    pub(crate) fn get(&self, position: u64) -> Option<u64> {
        let mut counts = self.0.iter().filter_map(Count::get);
        counts.find_map(|(of, frames)| (of == position).then_some(frames))
    }

    /// The larger count of the two: of a position that is not far from the present one.
    pub(crate) fn latest(&self) -> Option<u64> {
        let counts = self.0.iter().filter_map(Count::get);
        counts.map(|(_, frames)| frames).max()
    }
}

impl Count {
    /// The position and its count, unless the pair is damaged or changes right now.
    fn get(&self) -> Option<(u64, u64)> {
        let position = self.position.load(Ordering::Acquire);
        let sealed = self.sealed.load(Ordering::Relaxed);
        // Acquire: SYNC POINT with the fence in `set`: who has seen a newer count sees here that the position is another.
        fence(Ordering::Acquire);
        let frames = sealed & FRAMES_MASK;
        (position != UNSET
            && self.position.load(Ordering::Relaxed) == position
            && seal(position, frames) == sealed)
            .then_some((position, frames))
    }

    fn set(&self, position: u64, frames: u64) {
        let sealed = seal(position, frames & FRAMES_MASK);
        // A look at the pair while it changes must not find the old position with the new count: Release, and SYNC POINT with the
        // fence in `Count::get`.
        self.position.store(UNSET, Ordering::Relaxed);
        fence(Ordering::Release);
        self.sealed.store(sealed, Ordering::Relaxed);
        self.position.store(position, Ordering::Release);
    }
}

/// The count with its seal in the upper bits. Any one byte of the pair that is changed makes another seal: tried below.
fn seal(position: u64, frames: u64) -> u64 {
    let mut pair = [0; 14];
    pair[..8].copy_from_slice(&position.to_le_bytes());
    pair[8..].copy_from_slice(&frames.to_le_bytes()[..6]);
    frames | u64::from(checksum::crc32c(&pair)) << FRAMES_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRCs are linear: what holds of one pair holds of all.
    #[test]
    fn no_byte_of_a_pair_can_be_changed_without_being_noticed() {
        let (position, frames) = (0x0123_4567_89AB_CDE0, 0x1234_5678_9ABC);
        let sealed = seal(position, frames);
        assert_eq!(sealed & FRAMES_MASK, frames);
        for byte in 0..8 {
            for change in 1..=255u64 {
                let change = change << (8 * byte);
                let (other, changed) = (position ^ change, sealed ^ change);
                assert_ne!(seal(other, frames), sealed);
                assert_ne!(seal(position, changed & FRAMES_MASK), changed);
            }
        }
    }

    #[test]
    fn a_page_of_zeros_counts_nothing() {
        let zero = || Count {
            position: AtomicU64::new(0),
            sealed: AtomicU64::new(0),
        };
        let counts = Counts([zero(), zero()]);
        assert_eq!(counts.get(0), None);
        counts.set(0, 0, 0);
        assert_eq!(counts.get(0), Some(0));
        counts.set(0, 16, 1);
        assert_eq!(
            [0, 16, 32].map(|at| counts.get(at)),
            [Some(0), Some(1), None]
        );
    }
}
