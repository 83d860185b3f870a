//! A position that is kept three times, so that a damaged copy is outvoted.

use crate::primitive::{AtomicU64, Ordering, spin_loop};

/// The third copy of a position is kept under this mask: no line of equal bytes, whatever they are, looks like three copies.
const MASK: u64 = 0x5BD1_E995_A3C5_9AC3;
/// How often the copies are looked at before none of them is believed: two agree whenever the other side is not in the middle of storing them.
const LOOKS: u32 = if cfg!(loom) { 2 } else { 100 };

/// A position in memory that two processes share: one stores it, both load it.
pub(crate) trait Shared {
    /// What was stored last, and with it what the other side did before it stored that.
    fn load(&self) -> u64;
    fn store(&self, position: u64);
}

/// A position, three times. Between two stores of a living (or dead) owner two of the three agree as well.
#[repr(C)]
pub(crate) struct Threefold {
    position: AtomicU64,
    inverted: AtomicU64,
    masked: AtomicU64,
}

/// The position that two of the three copies agree on; else all of them, the least one first.
pub(crate) fn choose(position: u64, inverted: u64, masked: u64) -> Result<u64, [u64; 3]> {
    let mut copies = [position, !inverted, masked ^ MASK];
    let [first, second, third] = copies;
    if first == second || first == third {
        return Ok(first);
    }
    if second == third {
        return Ok(second);
    }
    copies.sort_unstable();
    Err(copies)
}

impl Threefold {
    /// Position 0, outside any mapping.
    #[cfg(loom)]
    pub(crate) fn new() -> Threefold {
        Threefold {
            position: AtomicU64::new(0),
            inverted: AtomicU64::new(!0),
            masked: AtomicU64::new(MASK),
        }
    }

    /// The position, if two of its copies agree; else all of them, the least one first.
    #[cold]
    pub(crate) fn vote(&self) -> Result<u64, [u64; 3]> {
        let mut found = Ok(0);
        for _ in 0..LOOKS {
            // Acquire: each copy may be the one that is taken.
            found = choose(
                self.position.load(Ordering::Acquire),
                self.inverted.load(Ordering::Acquire),
                self.masked.load(Ordering::Acquire),
            );
            if found.is_ok() {
                break;
            }
            spin_loop();
        }
        found
    }

    /// Whether one of the copies differs although nobody is at work: it is damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        let position = self.position.load(Ordering::Acquire);
        !self.inverted.load(Ordering::Acquire) != position
            || self.masked.load(Ordering::Acquire) ^ MASK != position
    }

    /// Changes one copy, as a disk would.
    #[cfg(loom)]
    pub(crate) fn damage(&self, copy: usize) {
        let copy = [&self.position, &self.inverted, &self.masked][copy];
        copy.fetch_xor(1 << 40, Ordering::Relaxed);
    }
}

impl Shared for Threefold {
    /// When no two copies agree, the least of them: to read less, and to deliver twice, is better than to lose.
    fn load(&self) -> u64 {
        // Acquire: SYNC POINT with the Release in `store`.
        let position = self.position.load(Ordering::Acquire);
        if !self.inverted.load(Ordering::Acquire) == position {
            return position;
        }
        self.vote().unwrap_or_else(|copies| copies[0])
    }

    fn store(&self, position: u64) {
        // Release: SYNC POINT with the Acquire in `load`: the frame's bytes (or the reader's last look at them) come before.
        self.position.store(position, Ordering::Release);
        self.inverted.store(!position, Ordering::Release);
        self.masked.store(position ^ MASK, Ordering::Release);
    }
}

/// One copy alone: what `loom` gets through where three would have more interleavings than anyone can wait for.
#[cfg(loom)]
impl Shared for AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    fn store(&self, position: u64) {
        AtomicU64::store(self, position, Ordering::Release);
    }
}

#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Threefold>() == 24
        && std::mem::offset_of!(Threefold, position) == 0
        && std::mem::offset_of!(Threefold, inverted) == 8
        && std::mem::offset_of!(Threefold, masked) == 16
);
