//! The ledger tried on a sidecar that loses messages on purpose: it has to find them missing.

use harness::Mosquitto;

use crate::engine::{self, Grounds};
use crate::faults;
use crate::row::{self, Direction};

/// Runs one fault with the sidecar that the environment names, a build with the feature `break-on-purpose`. True when the ledger has
/// found acknowledged messages missing on the way up, and says that the row failed.
pub fn run(grounds: &Grounds) -> bool {
    let rows = engine::run(&faults::KILL_SIDECAR_IN_OUTAGE, Mosquitto::V2_0_11, grounds);
    println!("{}", row::table(&rows));
    let found = rows
        .iter()
        .any(|row| row.direction == Direction::Uplink && row.lost > 0 && !row.passed);
    println!(
        "{}",
        if found {
            "the ledger has found what a broken sidecar loses"
        } else {
            "THE LEDGER IS BLIND: a sidecar that loses messages has passed, or could not be tried"
        }
    );
    found
}
