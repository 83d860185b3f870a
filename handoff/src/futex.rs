//! A futex word that works between processes, and its emulation in `loom`.

use std::time::Duration;

use crate::primitive::{AtomicU32, Ordering};

/// A word that threads of any process that maps it can sleep on.
#[repr(C)]
pub(crate) struct Futex {
    word: AtomicU32,
    #[cfg(loom)]
    lock: loom::sync::Mutex<()>,
    #[cfg(loom)]
    woken: loom::sync::Condvar,
}

impl Futex {
    /// A word of value 0, outside any mapping.
    #[cfg(loom)]
    pub(crate) fn new() -> Futex {
        Futex {
            word: AtomicU32::new(0),
            #[cfg(loom)]
            lock: loom::sync::Mutex::new(()),
            #[cfg(loom)]
            woken: loom::sync::Condvar::new(),
        }
    }

    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }

    pub(crate) fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        // The kernel compares the word under its own lock; the emulation has to do the same.
        #[cfg(loom)]
        let _held = self.lock.lock();
        self.word.fetch_or(bits, order)
    }

    /// Changes the word from `from` to `to`; false if it was something else.
    pub(crate) fn replace(&self, from: u32, to: u32, order: Ordering) -> bool {
        #[cfg(loom)]
        let _held = self.lock.lock();
        self.word
            .compare_exchange(from, to, order, Ordering::Relaxed)
            .is_ok()
    }

    /// Sleeps while the word is `expected`, until woken, interrupted or `timeout` has passed.
    #[cfg(not(loom))]
    #[allow(unsafe_code)]
    pub(crate) fn wait(&self, expected: u32, timeout: Option<Duration>) {
        let timeout = timeout.map(|t| libc::timespec {
            tv_sec: t.as_secs().min(1 << 30) as libc::time_t,
            tv_nsec: t.subsec_nanos() as libc::c_long,
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // Not FUTEX_PRIVATE_FLAG: the other side is another process.
        // SAFETY: the word is live for the call, and the timeout is null or points at a live timespec. Each outcome (woken, EAGAIN, EINTR, ETIMEDOUT)
        // leads the caller to look again, so the result is not needed.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr(),
                libc::FUTEX_WAIT,
                expected,
                timeout,
            )
        };
    }

    /// Wakes everyone who sleeps on the word.
    #[cfg(not(loom))]
    #[allow(unsafe_code)]
    pub(crate) fn wake_all(&self) {
        // SAFETY: the word is live; waking touches nothing else.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr(),
                libc::FUTEX_WAKE,
                libc::c_int::MAX,
            )
        };
    }

    #[cfg(loom)]
    pub(crate) fn wait(&self, expected: u32, _timeout: Option<Duration>) {
        let Ok(held) = self.lock.lock() else { return };
        if self.word.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(held));
        }
    }

    #[cfg(loom)]
    pub(crate) fn wake_all(&self) {
        let _held = self.lock.lock();
        self.woken.notify_all();
    }
}
