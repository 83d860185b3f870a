//! Several faults side by side.

use std::sync::{Mutex, PoisonError};

use harness::Mosquitto;

use crate::engine::{self, Grounds};
use crate::fault::Fault;
use crate::faults;
use crate::row::Row;

/// Runs the faults, `jobs` at a time, the long ones first. The rows are in the order of the faults.
pub fn run_all(wanted: &[&'static Fault], jobs: usize, grounds: Grounds) -> Vec<Row> {
    let mut waiting: Vec<&'static Fault> = wanted.to_vec();
    // The last one is taken first.
    waiting.sort_by_key(|fault| fault.seconds);
    let waiting = Mutex::new(waiting);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(wanted.len()) {
            scope.spawn(|| {
                // Not in the head of a `while let`: the lock would be held for the whole of a run.
                let next = || lock(&waiting).pop();
                while let Some(fault) = next() {
                    let rows = engine::run(fault, mosquitto_of(fault), &grounds);
                    lock(&done).extend(rows);
                }
            });
        }
    });
    let mut rows = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |row: &Row| (position(row.fault), row.direction.name() != "uplink");
    rows.sort_by_key(place);
    rows
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn position(name: &str) -> usize {
    faults::ALL
        .iter()
        .position(|fault| fault.name == name)
        .unwrap_or(usize::MAX)
}

/// The versions in turn, the same one for a fault each time.
fn mosquitto_of(fault: &Fault) -> Mosquitto {
    Mosquitto::ALL[position(fault.name) % Mosquitto::ALL.len()]
}
