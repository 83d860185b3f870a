//! Waiting by polling.

use std::time::{Duration, Instant};

/// How long anything may take that should happen soon. Generous: a machine under load is slow, and a test that passes does not wait.
pub const DEADLINE: Duration = Duration::from_secs(75);

const PAUSE: Duration = Duration::from_millis(25);

/// Calls `look` until it gives something, and returns that.
///
/// # Panics
/// When nothing has come within [`DEADLINE`]; the message names `what`.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, look)
}

/// [`eventually`] with a deadline of one's own.
///
/// # Panics
/// When nothing has come in time.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} for this and it did not come: {what}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// True once `look` gives true; false when it has not within `limit`.
pub fn comes_true(limit: Duration, mut look: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if look() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}
