//! The ledger tried on what it has to find: a sidecar that loses messages on purpose, and a topic in which somebody has tampered
//! with what devices sent.

use harness::{Mosquitto, Produced};

use crate::engine::{self, Grounds};
use crate::fault::{Fault, Plan};
use crate::faults;
use crate::row::{self, Direction, Row};
use crate::run::Run;
use crate::verdict;

/// Not in the ledger: it is no fault of ours.
static TAMPERED: Fault = Fault {
    name: "tampered-with",
    about: "two messages more in RocketMQ: one with a byte changed, and one whose identity is that of a repetition",
    seconds: 20,
    quick: false,
    plan: || Plan {
        directions: &[Direction::Uplink],
        // They don't, with a sidecar that gives back what it has not sent.
        sums: false,
        ..Plan::shared()
    },
    inject: tamper,
};

/// Runs with the sidecar that the environment names, a build with the feature `break-on-purpose`. True when the ledger has found all
/// that was wrong, and says that the rows failed.
pub fn run(grounds: &Grounds) -> bool {
    let lossy = engine::run(&faults::KILL_SIDECAR_IN_OUTAGE, Mosquitto::V2_0_11, grounds);
    let tampered = engine::run(&TAMPERED, Mosquitto::V2_0_21, grounds);
    println!("{}", row::table(&[&lossy[..], &tampered].concat()));
    let mut blind = false;
    for (what, found) in [
        ("what a broken sidecar loses", has_lost(&lossy)),
        ("a damaged message", says(&tampered, verdict::DAMAGED)),
        ("a false identity", says(&tampered, verdict::MISNAMED)),
    ] {
        if found {
            println!("the ledger has found {what}");
        } else {
            println!("THE LEDGER IS BLIND to {what}, or could not be tried");
            blind = true;
        }
    }
    !blind
}

fn has_lost(rows: &[Row]) -> bool {
    rows.iter()
        .any(|row| row.direction == Direction::Uplink && row.lost > 0 && !row.passed)
}

fn says(rows: &[Row], what: &str) -> bool {
    rows.iter()
        .any(|row| !row.passed && row.notes.iter().any(|note| note.contains(what)))
}

fn tamper(run: &mut Run) {
    let mut reader = run.up_topic.reader();
    let original = reader.wait_for(1).last().expect("one has come").clone();
    let id = original.property("mqtt_id").expect("each has one");
    let (life, position) = id.rsplit_once(':').expect("node:epoch:position");
    let position: u64 = position.parse().expect("a number");
    // Positions are those of frames in the log, so nothing ever has this one.
    let false_id = format!("{life}:{}", position - 1);
    let mut damaged = original.body.clone();
    *damaged.last_mut().expect("a payload") ^= 1;
    let queue = original.queue.rsplit_once('/').expect("broker/queue").1;
    let queue = queue.parse().expect("a number");
    for (body, id) in [(&damaged, id), (&original.body, &false_id)] {
        let mut message = Produced::new(body.clone()).queue(queue);
        for (name, value) in &original.properties {
            if name.starts_with("mqtt_") && name != "mqtt_id" {
                message = message.property(name, value);
            }
        }
        run.up_topic.produce(&[message.property("mqtt_id", id)]);
    }
}
