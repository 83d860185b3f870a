//! The protocol of positions and wake-ups: one side advances a position, the other one waits for it.
//!
//! A log has two gates. The writer advances `end`, the reader waits for it; the reader advances `released`, the writer waits for it. Advancing is a store,
//! a fence and a load: no system call while nobody sleeps.

use std::time::{Duration, Instant};

use crate::futex::Futex;
use crate::primitive::{AtomicBool, Ordering, fence};
use crate::threefold::{Shared, Threefold};

/// Bit 0 of the word: somebody sleeps, or is about to. The bits above count the wake-ups: with the flag alone a second sleeper could set it again between a wake-up
/// and the first one's call into the kernel, which would then sleep over it.
const SLEEPING: u32 = 1;

/// A position that only one side moves, and the word that the other side sleeps on. All lies in one cache line, so that advancing touches one line.
#[repr(C)]
pub(crate) struct Gate<P = Threefold> {
    position: P,
    sleepers: Futex,
    #[cfg(not(loom))]
    _zeros: u32,
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

#[cfg(not(loom))]
impl Gate {
    /// The position, if two of its copies agree; else all of them, the least one first.
    pub(crate) fn agreed(&self) -> Result<u64, [u64; 3]> {
        self.position.vote()
    }

    /// Whether one of the copies differs although nobody is at work: it is damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.position.is_damaged()
    }
}

impl<P: Shared> Gate<P> {
    /// A gate outside any mapping.
    #[cfg(loom)]
    pub(crate) fn new(position: P) -> Gate<P> {
        Gate {
            position,
            sleepers: Futex::new(),
        }
    }

    /// Where the gate is. What the other side did before it advanced to there is seen.
    pub(crate) fn position(&self) -> u64 {
        self.position.load()
    }

    /// Moves the gate to `to` and wakes who waits for it. Only the one side that owns the gate may call this.
    pub(crate) fn advance(&self, to: u64) {
        self.position.store(to);
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
        && std::mem::offset_of!(Gate, sleepers) == 24
);
