//! The panic guard around every callback.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs callbacks until one of them panics; from then on none is run any more.
///
/// A panic must never cross into Mosquitto nor abort it. After one the plugin's
/// state is unknown, so the bridge stays off until Mosquitto restarts, and says so.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    tripped: Cell<bool>,
}

/// What became of a guarded call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Guarded<T> {
    /// It returned.
    Done(T),
    /// It panicked just now, with this message.
    Panicked(String),
    /// An earlier call had panicked: it was not run.
    Off,
}

impl Guard {
    /// Runs `call` unless an earlier one panicked.
    pub(crate) fn run<T>(&self, call: impl FnOnce() -> T) -> Guarded<T> {
        if self.tripped.get() {
            return Guarded::Off;
        }
        // AssertUnwindSafe: nothing that the call touched is used again after a panic.
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(value) => Guarded::Done(value),
            Err(panic) => {
                self.tripped.set(true);
                Guarded::Panicked(message(&*panic))
            }
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_turns_the_guard_off() {
        let guard = Guard::default();
        assert_eq!(guard.run(|| 7), Guarded::Done(7));
        assert_eq!(
            guard.run(|| panic!("no {}", 1)),
            Guarded::<()>::Panicked("no 1".to_owned())
        );
        assert_eq!(guard.run(|| 7), Guarded::Off);
    }
}
