//! Three nodes, each on another Mosquitto, that behave as one broker.

mod away;
mod cut_off;
mod expiry;
mod fan_out;
mod interest;
mod joining;
mod kept;
mod late;
mod loops;
mod members;
mod moves;
mod share;

use std::time::{Duration, Instant};

use harness::mqtt::Received;
use harness::{Client, DEADLINE};

/// How long to wait for a copy too many behind the last message that has to come: many times what one takes between two nodes.
const SETTLE: Duration = Duration::from_secs(3);

/// All that a client gets, until it has `count` messages and nothing more has come for [`SETTLE`].
#[track_caller]
fn all_of(client: &Client, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    let mut last = Instant::now();
    loop {
        if let Some(message) = client.receive_within(SETTLE) {
            all.push(message);
            last = Instant::now();
        } else if all.len() >= count {
            return all;
        }
        assert!(
            last.elapsed() < DEADLINE,
            "{client:?} got {} of {count} messages, the last ones {:?}",
            all.len(),
            texts(&all[all.len().saturating_sub(5)..])
        );
    }
}

fn texts(messages: &[Received]) -> Vec<String> {
    messages.iter().map(Received::text).collect()
}
