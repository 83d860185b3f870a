//! Waking the broker's thread when something comes down.
//!
//! Mosquitto's loop sleeps 100 ms (2.0, and 2.1 with websockets) or until its next event (2.1 without), and its API has
//! no call that ends the sleep. A thread of ours waits for the sidecar's futex and rings a bell that does:
//!
//! - **eventfd** in the broker's own epoll set, on versions where this was tried (it leans on a private layout);
//! - else a **PINGREQ** on a connection to one of the broker's listeners, admitted by our own login check;
//! - else nothing: the broker then looks at its own pace.

mod epoll;
mod pingreq;
mod plan;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use handoff::{Position, Waiter};

use crate::ffi::sys;

pub(crate) use epoll::EpollBell;
pub(crate) use pingreq::{Credentials, PingBell};
pub(crate) use plan::{AuthPlan, Method, auth_plan, eventfd_is_known, ping_address};

/// Rest of the thread when nothing happens; also the pace of the ticks it causes on 2.1.
const PAUSE: Duration = Duration::from_millis(100);
/// A PINGREQ connection has to say something within its keep-alive of 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Ends the broker's sleep.
#[derive(Debug)]
pub(crate) enum Bell {
    /// The eventfd in the broker's epoll set.
    Eventfd(EpollBell),
    /// The internal connection.
    Pingreq(PingBell),
}

impl Bell {
    fn ring(&self) {
        match self {
            Bell::Eventfd(bell) => bell.ring(),
            Bell::Pingreq(bell) => bell.ring(),
        }
    }
}

#[derive(Default)]
struct Shared {
    bell: OnceLock<Bell>,
    waiter: Mutex<Option<Waiter>>,
    came: Condvar,
    /// The broker's thread has more to do and rings for itself.
    busy: AtomicBool,
    stop: AtomicBool,
    /// Ticks have to be caused even when there is nothing to do (2.1 without websockets sleeps for long).
    heartbeat: bool,
}

/// The bell and the thread that rings it.
pub(crate) struct Wake {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Wake {
    /// Starts the thread. It rings nothing before a bell is given.
    pub(crate) fn start(heartbeat: bool) -> io::Result<Wake> {
        let shared = Arc::new(Shared {
            heartbeat,
            ..Shared::default()
        });
        let theirs = Arc::clone(&shared);
        let thread = sys::spawn_quiet("mrmq-wake", move || run(&theirs))?;
        Ok(Wake {
            shared,
            thread: Some(thread),
        })
    }

    /// The bell from now on.
    pub(crate) fn set_bell(&self, bell: Bell) {
        // There is one choice, at the first tick.
        let _ = self.shared.bell.set(bell);
    }

    /// Whether there is one.
    pub(crate) fn has_bell(&self) -> bool {
        self.shared.bell.get().is_some()
    }

    /// Where news of the downlink log come from.
    pub(crate) fn set_waiter(&self, waiter: Waiter) {
        *self
            .shared
            .waiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(waiter);
        self.shared.came.notify_all();
    }

    /// After a tick that has to be followed by another at once.
    pub(crate) fn again(&self) {
        self.shared.busy.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// After a tick that found nothing. `behind` looks once more: what was appended before the thread could see
    /// that it has to ring again would otherwise wait for the time-out.
    pub(crate) fn idle(&self, behind: impl FnOnce() -> bool) {
        // SYNC POINT with `run`: either that thread sees `busy` false and rings, or `behind` sees its news.
        self.shared.busy.store(false, Ordering::SeqCst);
        if behind() {
            self.again();
        }
    }

    fn ring(&self) {
        if let Some(bell) = self.shared.bell.get() {
            bell.ring();
        }
    }

    /// Ends and joins the thread.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.came.notify_all();
        if let Some(waiter) = &*self
            .shared
            .waiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            waiter.wake();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that wakes the broker panicked");
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared) {
    let mut seen: Position = 0;
    let mut said = Instant::now();
    while !shared.stop.load(Ordering::SeqCst) {
        if let Some(Bell::Pingreq(bell)) = shared.bell.get() {
            bell.maintain();
        }
        let news = wait_for_news(shared, seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Some(bell) = shared.bell.get() else {
            continue;
        };
        match news {
            // SYNC POINT with `Wake::idle`.
            Some(end) if !shared.busy.load(Ordering::SeqCst) => {
                bell.ring();
                seen = end;
                said = Instant::now();
            }
            Some(end) => seen = end,
            None if shared.heartbeat || (said.elapsed() >= KEEP_ALIVE) => {
                bell.ring();
                said = Instant::now();
            }
            None => {}
        }
    }
}

/// The log's end when it has moved beyond `seen`.
fn wait_for_news(shared: &Shared, seen: Position) -> Option<Position> {
    let slot = shared.waiter.lock().unwrap_or_else(PoisonError::into_inner);
    let waiter = match &*slot {
        Some(waiter) => waiter.clone(),
        None => {
            drop(
                shared
                    .came
                    .wait_timeout(slot, PAUSE)
                    .unwrap_or_else(PoisonError::into_inner),
            );
            return None;
        }
    };
    drop(slot);
    let end = waiter.wait_beyond(seen, PAUSE);
    (end > seen).then_some(end)
}
