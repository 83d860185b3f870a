//! The window: which frames of the log are under way, and up to where everything is done with.
//!
//! Frames complete out of order, because lanes don't wait for each other. Only what lies before the oldest frame
//! under way may be given back to the writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handoff::Position;

use crate::metrics::{Ending, UplinkDone};

/// What a frame that is done with still holds until those before it are: its place here, in a queue that may have grown to twice its need.
const DONE_BYTES: u64 = 2 * size_of::<Frame>() as u64;

/// Names a frame within the window.
pub(super) type Ticket = u64;

#[derive(Debug, Default)]
pub(super) struct Window {
    state: Mutex<State>,
    /// Signalled when the front moves, or memory is free again.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    /// The ticket of the first of `frames`.
    first: Ticket,
    /// What all of `frames` hold in memory.
    bytes: u64,
    /// Everything before this is done with.
    done: Position,
    /// Everything before this was counted by an earlier run, which did not come to release it.
    counted: Position,
    /// What has ended and was not yet taken by `take_done`.
    taken: Position,
    frames_done: u64,
    endings: Vec<Ending>,
}

#[derive(Debug)]
struct Frame {
    next: Position,
    /// Messages of the frame (one per rule) that are not yet stored or dead.
    left: u32,
    bytes: u64,
    /// A damaged stretch is none.
    is_frame: bool,
    /// What became of its messages, the last one apart: most frames have one, which needs no memory of its own then.
    ended: Option<Ending>,
    ended_before: Vec<Ending>,
}

impl Window {
    /// An empty window; everything before `start` is done with, and everything before `counted` is counted.
    pub(super) fn new(start: Position, counted: Position) -> Window {
        Window {
            state: Mutex::new(State {
                done: start,
                taken: start,
                counted,
                ..State::default()
            }),
            moved: Condvar::new(),
        }
    }

    /// Takes in a frame that ends at `next` and became `messages` messages. Frames come in the order of the log.
    pub(super) fn open(&self, next: Position, messages: u32, bytes: u64) -> Ticket {
        let mut state = self.lock();
        let ticket = state.first + state.frames.len() as u64;
        state.frames.push_back(Frame {
            next,
            left: messages,
            bytes,
            is_frame: true,
            ended: None,
            ended_before: Vec::new(),
        });
        state.bytes += bytes;
        ticket
    }

    /// Takes in a damaged stretch that ends at `next` and becomes so many dead letters. It is none of the messages that are counted.
    pub(super) fn skip(&self, next: Position, letters: u32, bytes: u64) -> Ticket {
        let mut state = self.lock();
        let ticket = state.first + state.frames.len() as u64;
        state.frames.push_back(Frame {
            next,
            left: letters,
            bytes,
            is_frame: false,
            ended: None,
            ended_before: Vec::new(),
        });
        state.bytes += bytes;
        if letters == 0 {
            self.advance(&mut state);
            self.moved.notify_all();
        }
        ticket
    }

    /// Whether the frame that ends at `next` was counted by an earlier run.
    pub(super) fn is_counted(&self, next: Position) -> bool {
        next <= self.lock().counted
    }

    /// One message of each of these frames is done with.
    pub(super) fn complete(&self, ended: impl IntoIterator<Item = (Ticket, Ending)>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let held = state.bytes;
        for (ticket, ending) in ended {
            let index = ticket
                .checked_sub(state.first)
                .and_then(|index| usize::try_from(index).ok());
            let frame = index.and_then(|index| state.frames.get_mut(index));
            debug_assert!(frame.is_some(), "ticket {ticket} is not in the window");
            if let Some(frame) = frame {
                debug_assert!(frame.left > 0, "ticket {ticket} was completed too often");
                frame.left = frame.left.saturating_sub(1);
                frame.ended_before.extend(frame.ended.replace(ending));
                if frame.left == 0 {
                    let freed = frame.bytes.saturating_sub(DONE_BYTES);
                    frame.bytes -= freed;
                    state.bytes -= freed;
                }
            }
        }
        self.advance(state);
        if state.bytes < held {
            self.moved.notify_all();
        }
    }

    fn advance(&self, state: &mut State) {
        while let Some(frame) = state.frames.pop_front_if(|frame| frame.left == 0) {
            state.first += 1;
            state.bytes -= frame.bytes;
            state.done = frame.next;
            if frame.is_frame && frame.next > state.counted {
                state.frames_done += 1;
                state.endings.extend(frame.ended_before);
                state.endings.extend(frame.ended);
            }
        }
    }

    /// Everything before this position is done with.
    #[cfg(test)]
    pub(super) fn done(&self) -> Position {
        self.lock().done
    }

    /// The same, with what has ended since the last call. Nothing when nothing has.
    pub(super) fn take_done(&self) -> Option<UplinkDone> {
        let mut state = self.lock();
        let done = state.done;
        if std::mem::replace(&mut state.taken, done) == done {
            return None;
        }
        Some(UplinkDone {
            position: state.done,
            frames: std::mem::take(&mut state.frames_done),
            endings: std::mem::take(&mut state.endings),
        })
    }

    /// What the frames under way hold in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// Waits until less than `bytes` are held, or for `limit`.
    pub(super) fn wait_below(&self, bytes: u64, limit: Duration) {
        let waited = self
            .moved
            .wait_timeout_while(self.lock(), limit, |state| state.bytes >= bytes);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until nothing is under way, or for `limit`.
    pub(super) fn wait_empty(&self, limit: Duration) {
        let waited = self
            .moved
            .wait_timeout_while(self.lock(), limit, |state| !state.frames.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end<const N: usize>(tickets: [Ticket; N]) -> [(Ticket, Ending); N] {
        tickets.map(|ticket| (ticket, Ending::Unroutable))
    }

    #[test]
    fn each_message_of_a_frame_is_handed_out_once_and_those_counted_before_are_not() {
        let window = Window::new(0, 16);
        let counted = window.open(16, 1, 1);
        let double = window.open(32, 2, 1);
        let last = window.open(48, 1, 1);
        assert!(window.is_counted(16) && !window.is_counted(32));
        window.complete(end([last, double, counted]));
        let done = window.take_done().unwrap();
        assert_eq!((done.position, done.frames, done.endings.len()), (16, 0, 0));
        assert!(window.take_done().is_none());
        window.complete([(double, Ending::Returned)]);
        let done = window.take_done().unwrap();
        assert_eq!((done.position, done.frames, done.endings.len()), (48, 2, 3));
        assert!(matches!(done.endings[1], Ending::Returned));
        let damaged = window.skip(64, 1, 5);
        assert!(window.take_done().is_none());
        window.complete(end([damaged]));
        let done = window.take_done().unwrap();
        assert_eq!((done.position, done.frames, done.endings.len()), (64, 0, 0));
    }

    #[test]
    fn only_what_lies_before_the_oldest_frame_under_way_is_done() {
        let window = Window::new(100, 0);
        let tickets: Vec<_> = [116, 132, 148].map(|next| window.open(next, 1, 10)).into();
        window.complete(end([tickets[1]]));
        assert_eq!((window.done(), window.bytes()), (100, 30));
        window.complete(end([tickets[0]]));
        assert_eq!((window.done(), window.bytes()), (132, 10));
        window.complete(end([tickets[2]]));
        assert_eq!((window.done(), window.bytes()), (148, 0));
        assert!(window.is_empty());
    }

    #[test]
    fn what_is_done_holds_no_memory_worth_speaking_of() {
        let window = Window::new(0, 0);
        let tickets = [16, 32].map(|next| window.open(next, 2, 1 << 20));
        window.complete(end([tickets[1]]));
        assert_eq!(window.bytes(), 2 << 20);
        window.complete(end([tickets[1]]));
        assert_eq!((window.done(), window.bytes()), (0, (1 << 20) + DONE_BYTES));
        window.complete(end([tickets[0], tickets[0]]));
        assert_eq!((window.done(), window.bytes()), (32, 0));
    }

    #[test]
    fn a_frame_for_two_rules_is_done_when_both_are() {
        let window = Window::new(0, 0);
        let ticket = window.open(16, 2, 1);
        window.complete(end([ticket]));
        assert_eq!(window.done(), 0);
        window.complete(end([ticket]));
        assert_eq!(window.done(), 16);
    }

    #[test]
    fn a_damaged_stretch_is_done_at_once_but_not_before_its_elders() {
        let window = Window::new(0, 0);
        let elder = window.open(16, 1, 1);
        window.skip(32, 0, 0);
        assert_eq!(window.done(), 0);
        window.complete(end([elder]));
        assert_eq!(window.done(), 32);
    }

    proptest! {
        #[test]
        fn completing_in_any_order_ends_at_the_end(counts in proptest::collection::vec(0_u32..4, 1..40), seed in any::<u64>()) {
            let window = Window::new(0, 0);
            let mut open = Vec::new();
            for (index, count) in counts.iter().enumerate() {
                let next = (index as u64 + 1) * 16;
                if *count == 0 {
                    window.skip(next, 0, 0);
                    continue;
                }
                let ticket = window.open(next, *count, 7);
                open.extend(std::iter::repeat_n(ticket, *count as usize));
            }
            let mut state = seed;
            while !open.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let index = usize::try_from(state >> 33).unwrap() % open.len();
                let ticket = open.swap_remove(index);
                window.complete(end([ticket]));
                let oldest = open.iter().min().map_or(u64::MAX, |ticket| ticket * 16);
                prop_assert!(window.done() <= oldest);
            }
            prop_assert_eq!(window.done(), counts.len() as u64 * 16);
            prop_assert_eq!(window.bytes(), 0);
            let done = window.take_done().unwrap();
            prop_assert_eq!(done.endings.len() as u64, counts.iter().map(|n| u64::from(*n)).sum::<u64>());
        }
    }
}
