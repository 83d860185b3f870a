//! The protocol of positions and wake-ups: one side advances a position, the other one waits for it.
//!
//! A log has two gates. The writer advances `end`, the reader waits for it; the reader advances `released`, the writer waits for it. Advancing is a store,
//! a fence and a load: no system call while nobody sleeps.

use std::time::{Duration, Instant};

use crate::futex::Futex;
use crate::primitive::{AtomicBool, AtomicU64, Ordering, fence, spin_loop};

/// Bit 0 of the word: somebody sleeps, or is about to. The bits above count the wake-ups: with the flag alone a second sleeper could set it again between a wake-up
/// and the first one's call into the kernel, which would then sleep over it.
const SLEEPING: u32 = 1;

/// The third copy of a position is kept under this mask: no line of equal bytes, whatever they are, looks like three copies.
const MASK: u64 = 0x5BD1_E995_A3C5_9AC3;
/// How often the copies are looked at before none of them is believed: two agree whenever the other side is not in the middle of storing them.
const LOOKS: u32 = if cfg!(loom) { 2 } else { 100 };

/// A position that only one side moves, and the word that the other side sleeps on. All lies in one cache line, so that advancing touches one line.
///
/// The position is kept three times, so that a damaged copy is outvoted: between two stores of a living (or dead) owner, two of the three agree as well.
#[repr(C)]
pub(crate) struct Gate {
    position: AtomicU64,
    sleepers: Futex,
    #[cfg(not(loom))]
    _zeros: u32,
    inverted: AtomicU64,
    masked: AtomicU64,
}

/// Makes a wait return although nothing moved; kept until a wait has taken it.
pub(crate) struct Permit(AtomicBool);

impl Permit {
    pub(crate) fn new() -> Permit {
        Permit(AtomicBool::new(false))
    }

    fn take(&self) -> bool {
        // Acquire: SYNC POINT with the Release of `Gate::wake`, so that what the waker did before it waked is seen.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Acquire)
    }
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

impl Gate {
    /// A gate at position 0, outside any mapping.
    #[cfg(loom)]
    pub(crate) fn new() -> Gate {
        Gate {
            position: AtomicU64::new(0),
            sleepers: Futex::new(),
            inverted: AtomicU64::new(!0),
            masked: AtomicU64::new(MASK),
        }
    }

    /// Where the gate is. What the other side did before it advanced to there is seen. When no two copies agree, the least of them: to read less, and to
    /// deliver twice, is better than to lose.
    pub(crate) fn position(&self) -> u64 {
        // Acquire: SYNC POINT with the Release in `advance`.
        let position = self.position.load(Ordering::Acquire);
        if !self.inverted.load(Ordering::Acquire) == position {
            return position;
        }
        self.vote().unwrap_or_else(|copies| copies[0])
    }

    /// The position, if two of its copies agree; else all of them, the least one first.
    pub(crate) fn agreed(&self) -> Result<u64, [u64; 3]> {
        self.vote()
    }

    #[cold]
    fn vote(&self) -> Result<u64, [u64; 3]> {
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

    /// Moves the gate to `to` and wakes who waits for it. Only the one side that owns the gate may call this.
    pub(crate) fn advance(&self, to: u64) {
        // Release: SYNC POINT with the Acquire in `position`: the frame's bytes (or the reader's last look at them) come before.
        self.position.store(to, Ordering::Release);
        self.inverted.store(!to, Ordering::Release);
        self.masked.store(to ^ MASK, Ordering::Release);
        self.wake_sleepers();
    }

    /// Makes one wait that uses `permit` return, now or when it comes.
    pub(crate) fn wake(&self, permit: &Permit) {
        permit.0.store(true, Ordering::Release);
        self.wake_sleepers();
    }

    fn wake_sleepers(&self) {
        // SeqCst: SYNC POINT with the fence in `wait_beyond`. Of two fences one is first: either the load below sees the sleeper's word, or the sleeper's
        // second look sees the position (or permit) stored before this fence. Release and Acquire alone would let both miss each other.
        fence(Ordering::SeqCst);
        let word = self.sleepers.load(Ordering::Relaxed);
        // When the word has changed meanwhile, another thread is waking the same sleepers.
        if word & SLEEPING != 0
            && self
                .sleepers
                .replace(word, word.wrapping_add(1), Ordering::Relaxed)
        {
            self.sleepers.wake_all();
        }
    }

    /// Sleeps until the gate is beyond `seen`, `permit` is given, or `timeout` has passed (`None`: for ever). Returns where the gate is.
    pub(crate) fn wait_beyond(&self, seen: u64, timeout: Option<Duration>, permit: &Permit) -> u64 {
        let mut deadline: Option<Instant> = None;
        loop {
            let now = self.position();
            if now > seen || permit.take() {
                return now;
            }
            let left = match timeout {
                None => None,
                Some(timeout) => {
                    let clock = Instant::now();
                    // A deadline beyond the clock's range is no deadline within anyone's life: an hour, and look again.
                    let deadline = *deadline.get_or_insert_with(|| {
                        clock
                            .checked_add(timeout)
                            .unwrap_or(clock + Duration::from_secs(3600))
                    });
                    let left = deadline.saturating_duration_since(clock);
                    if left.is_zero() {
                        return now;
                    }
                    Some(left)
                }
            };
            let expected = self.sleepers.fetch_or(SLEEPING, Ordering::Relaxed) | SLEEPING;
            // SeqCst: SYNC POINT with the fence in `wake_sleepers`.
            fence(Ordering::SeqCst);
            if self.position() > seen || permit.0.load(Ordering::Relaxed) {
                continue;
            }
            // A wake-up between the look and here has changed the word, and the wait returns at once.
            self.sleepers.wait(expected, left);
        }
    }
}

#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Gate>() == 32
        && std::mem::offset_of!(Gate, position) == 0
        && std::mem::offset_of!(Gate, sleepers) == 8
        && std::mem::offset_of!(Gate, inverted) == 16
        && std::mem::offset_of!(Gate, masked) == 24
);
