//! The thread that has the next segments ready before the appending thread needs them.
//!
//! Allocating, zeroing, syncing and prefaulting 16 MiB takes milliseconds, or much longer on a busy disk; the appending thread is Mosquitto's only one. So
//! there are [`AHEAD`] of them: one slow sync does not stop a fast appender. A writer that may wait has one.
//! When the next segment is not there at roll-over, the appender waits for it at most [`PATIENCE`], once, and is then told that the log is full
//! until it is there.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::log_files::LogFiles;
use crate::segment::Segment;

/// How many segments are prepared behind the one that is appended to, as far as the log's bound allows.
const AHEAD: u64 = 2;
/// How long an append waits for a segment that is being prepared.
const PATIENCE: Duration = Duration::from_millis(100);
/// After a failure the disk is left alone for this long.
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    /// The segments to prepare: from this number on …
    next: u64,
    /// … to before this one.
    limit: u64,
    /// Prepared ones, in the order of their numbers; the last is the one before `next`.
    ready: VecDeque<Segment>,
    failed: Option<(io::Error, Instant)>,
    /// The appender has waited once for the wanted segment.
    waited: bool,
    /// A passed segment, whose pages this thread unmaps: 4096 of them take a while.
    retired: Option<Segment>,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Preparer {
    shared: Arc<Shared>,
    ahead: u64,
    thread: Option<JoinHandle<()>>,
}

/// Why the next segment can't be had now.
pub(crate) enum Unready {
    /// It is being prepared.
    Pending,
    Failed(io::Error),
}

impl Preparer {
    pub(crate) fn start(files: Arc<LogFiles>, may_wait: bool) -> io::Result<Preparer> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = spawn("handoff-prepare", move || {
            prepare_until_stopped(&worker, &files)
        })?;
        Ok(Preparer {
            shared,
            ahead: if may_wait { 1 } else { AHEAD },
            thread: Some(thread),
        })
    }

    /// Asks for segment `number` and those behind it; returns at once.
    pub(crate) fn want(&self, number: u64) {
        let mut state = self.shared.state();
        if state.ready.is_empty() && state.next != number {
            // The first one, or where the log has jumped to.
            state.next = number;
            state.waited = false;
        }
        state.limit = state.limit.max(number + self.ahead);
        if state.next < state.limit {
            // Also when it was asked for before: the bound may allow it only now.
            self.shared.changed.notify_all();
        }
    }

    /// Hands over a segment that the appender has passed.
    pub(crate) fn retire(&self, segment: Segment) {
        let earlier = self.shared.state().retired.replace(segment);
        self.shared.changed.notify_all();
        // Outside the lock. There is one only when the thread was busy since the roll-over before.
        drop(earlier);
    }

    /// Takes segment `number`, asking for it if nobody has yet.
    pub(crate) fn take(&self, number: u64) -> Result<Segment, Unready> {
        self.want(number);
        let mut state = self.shared.state();
        let patience = if state.waited {
            Duration::ZERO
        } else {
            PATIENCE
        };
        state.waited = true;
        state = self.wait(state, patience, |s| {
            s.ready.is_empty() && s.failed.is_none()
        });
        if let Some(segment) = state.ready.pop_front() {
            state.waited = false;
            debug_assert_eq!(segment.number, number);
            return Ok(segment);
        }
        match &state.failed {
            Some((error, _)) => Err(Unready::Failed(copy(error))),
            None => Err(Unready::Pending),
        }
    }

    /// Waits until a segment is ready (true) or `timeout` has passed, also while the disk is full; for a writer that may block.
    pub(crate) fn wait_ready(&self, number: u64, timeout: Duration) -> bool {
        self.want(number);
        !self
            .wait(self.shared.state(), timeout, |s| s.ready.is_empty())
            .ready
            .is_empty()
    }

    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        timeout: Duration,
        unsettled: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, timeout, |s| unsettled(s));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed there.
            let _ = thread.join();
        }
    }
}

fn prepare_until_stopped(shared: &Shared, files: &LogFiles) {
    let mut state = shared.state();
    while !state.stop {
        drop_retired(&mut state);
        let number = state.next;
        if number >= state.limit || !files.may_exist(number, files.end()) {
            if state.retired.is_none() {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            continue;
        }
        if let Some((_, when)) = &state.failed {
            let left = RETRY_AFTER.saturating_sub(when.elapsed());
            if !left.is_zero() {
                state = shared
                    .changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
        }
        let retired = state.retired.take();
        drop(state);
        drop(retired);
        let made = files.make_segment(number, files.end());
        state = shared.state();
        match made {
            Ok(segment) => {
                state.ready.push_back(segment);
                state.next = number + 1;
                state.failed = None;
            }
            Err(error) => {
                log::warn!(
                    "{}: cannot prepare segment {number}: {error}",
                    files.dir.path.display()
                );
                state.failed = Some((error, Instant::now()));
            }
        }
        shared.changed.notify_all();
    }
}

fn drop_retired(state: &mut State) {
    // Under the lock: the appender comes for it once a segment, and finds it ready.
    drop(state.retired.take());
}

/// `io::Error` is not `Clone`.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

/// Starts a thread with all signals blocked: those of the process belong to Mosquitto's thread.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigfillset writes the one set, and pthread_sigmask reads it and writes the other; both live on this stack.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body);
    // SAFETY: `before` was written above (and is a valid, empty set even if that failed).
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    thread
}
