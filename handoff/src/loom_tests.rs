//! The protocol of positions and wake-ups in every interleaving: `RUSTFLAGS="--cfg loom" cargo test -p mosquitto-rocketmq-handoff --lib --release`.
//!
//! A lost wake-up shows as a deadlock (the waits here have no time-out), bytes that are touched by both sides at once as a race on the `UnsafeCell`.
//!
//! A position that stands three times has too many interleavings for a whole log. So the log is tried with one copy, and what the log relies on of a position, that
//! it is monotonic, never ahead of what was stored, and publishes what came before it, with three.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::thread;

use crate::gate::{Gate, Permit};
use crate::threefold::{Shared, Threefold};

type Single = Gate<AtomicU64>;

fn single() -> Single {
    Gate::new(AtomicU64::new(0))
}

/// A log of two slots: position `p` lies in slot `p % 2`, as frames lie in segments that are reused.
struct Ring {
    end: Single,
    released: Single,
    slots: [UnsafeCell<u64>; 2],
    length: [AtomicU32; 2],
}

impl Ring {
    fn new() -> Arc<Ring> {
        Arc::new(Ring {
            end: single(),
            released: single(),
            slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
            length: [AtomicU32::new(0), AtomicU32::new(0)],
        })
    }

    /// Writes and commits a frame, as `Segment::claim` and `Segment::commit`, without publishing it.
    fn write(&self, position: u64) {
        let slot = (position % 2) as usize;
        // A recycled segment is zeroed before it is used again.
        self.length[slot].store(0, Ordering::Relaxed);
        self.slots[slot].with_mut(|slot| unsafe { *slot = position + 100 });
        self.length[slot].store(1, Ordering::Release);
    }

    fn append(&self, position: u64, permit: &Permit) {
        if position >= 2 {
            // Room when the frame that lies in the slot is released.
            self.released.wait_beyond(position - 2, None, permit);
        }
        self.write(position);
        self.end.advance(position + 1);
    }

    fn read(&self, position: u64) {
        let seen = self.slots[(position % 2) as usize].with(|slot| unsafe { *slot });
        assert_eq!(seen, position + 100);
        self.released.advance(position + 1);
    }
}

#[test]
fn each_frame_is_seen_whole_and_no_wake_up_is_lost() {
    loom::model(|| {
        let ring = Ring::new();
        let writing = Arc::clone(&ring);
        let writer = thread::spawn(move || {
            let permit = Permit::new();
            for position in 0..2 {
                writing.append(position, &permit);
            }
        });
        let permit = Permit::new();
        for position in 0..2 {
            assert!(ring.end.wait_beyond(position, None, &permit) > position);
            ring.read(position);
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_slot_is_written_again_only_after_it_was_released() {
    let mut model = loom::model::Builder::new();
    // Three preemptions find every bug that two threads with a handful of steps are known to have, and keep the run short.
    model.preemption_bound = Some(3);
    model.check(|| {
        let ring = Ring::new();
        let writing = Arc::clone(&ring);
        let writer = thread::spawn(move || {
            let permit = Permit::new();
            for position in 0..4 {
                writing.append(position, &permit);
            }
        });
        let permit = Permit::new();
        for position in 0..4 {
            ring.end.wait_beyond(position, None, &permit);
            ring.read(position);
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_goes_on_over_the_death_and_recovery_of_the_writer() {
    for committed_unpublished in [false, true] {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let ring = Ring::new();
            let writing = Arc::clone(&ring);
            let writer = thread::spawn(move || {
                let permit = Permit::new();
                writing.append(0, &permit);
                if committed_unpublished {
                    // Dies between the commit and the publishing.
                    writing.write(1);
                }
            });
            let recovering = Arc::clone(&ring);
            let recovery = thread::spawn(move || {
                // The lock is free only once the process is dead.
                writer.join().unwrap();
                let end = recovering.end.position();
                assert_eq!(end, 1);
                if recovering.length[1].load(Ordering::Acquire) == 0 {
                    recovering.write(1);
                }
                recovering.end.advance(2);
            });
            let permit = Permit::new();
            for position in 0..2 {
                ring.end.wait_beyond(position, None, &permit);
                ring.read(position);
            }
            recovery.join().unwrap();
        });
    }
}

#[test]
fn a_wake_is_never_lost_and_shows_what_was_done_before_it() {
    loom::model(|| {
        let gate = Arc::new((single(), Permit::new(), AtomicBool::new(false)));
        let waking = Arc::clone(&gate);
        let waker = thread::spawn(move || {
            waking.2.store(true, Ordering::Relaxed);
            waking.0.wake(&waking.1);
        });
        // Nothing is ever appended: only the wake ends this.
        assert_eq!(gate.0.wait_beyond(0, None, &gate.1), 0);
        assert!(gate.2.load(Ordering::Relaxed));
        waker.join().unwrap();
    });
}

#[test]
fn two_waiters_on_one_gate_both_wake() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let gate = Arc::new(single());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || gate.wait_beyond(0, None, &Permit::new()))
            })
            .collect();
        gate.advance(1);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 1);
        }
    });
}

#[test]
fn a_position_is_monotonic_and_publishes_what_came_before_it() {
    // With each of the copies damaged, and with none.
    for damaged in [None, Some(0), Some(1), Some(2)] {
        loom::model(move || {
            let shared = Arc::new((Threefold::new(), AtomicU64::new(0)));
            if let Some(copy) = damaged {
                shared.0.damage(copy);
            }
            let storing = Arc::clone(&shared);
            let owner = thread::spawn(move || {
                storing.1.store(7, Ordering::Relaxed);
                storing.0.store(7);
            });
            let first = shared.0.load();
            let second = shared.0.load();
            assert!([0, 7].contains(&first) && [0, 7].contains(&second));
            // A damaged copy may make the position look older for as long as the owner is storing, never newer.
            if damaged.is_none() {
                assert!(first <= second);
            }
            for seen in [first, second] {
                assert!(shared.1.load(Ordering::Relaxed) >= seen);
            }
            owner.join().unwrap();
            assert_eq!(shared.0.load(), 7);
            assert!(!shared.0.is_damaged());
        });
    }
}

#[test]
fn a_position_never_runs_ahead_of_two_stores() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Arc::new((Threefold::new(), AtomicU64::new(0)));
        let storing = Arc::clone(&shared);
        let owner = thread::spawn(move || {
            for position in [3, 6] {
                storing.1.store(position, Ordering::Relaxed);
                storing.0.store(position);
            }
        });
        let seen = shared.0.load();
        assert!([0, 3, 6].contains(&seen));
        assert!(shared.1.load(Ordering::Relaxed) >= seen);
        owner.join().unwrap();
        assert_eq!(shared.0.vote(), Ok(6));
    });
}

#[test]
fn who_waits_for_a_threefold_position_wakes() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let gate = Arc::new(Gate::new(Threefold::new()));
        let waiting = Arc::clone(&gate);
        let waiter = thread::spawn(move || waiting.wait_beyond(0, None, &Permit::new()));
        gate.advance(1);
        assert_eq!(waiter.join().unwrap(), 1);
    });
}
