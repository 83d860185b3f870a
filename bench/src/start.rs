//! How long Mosquitto takes to start with much waiting in its spool, and how fast that is then sent.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::arrivals::Arrivals;
use crate::backbone::Backbone;
use crate::load::{Load, Outcome, Shape};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::report::{Figure, Goal};

const PAYLOAD_BYTES: usize = 1024;
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const SENT_TIMEOUT: Duration = Duration::from_secs(600);

/// Measures `rounds` starts with `bytes` of payloads waiting, after both processes were killed.
pub(crate) fn measure(
    setup: &Setup,
    backbone: &mut Backbone,
    rounds: usize,
    bytes: u64,
    shape: Shape,
) -> Result<Vec<Figure>> {
    let shape = Shape {
        payload: PAYLOAD_BYTES,
        ..shape
    };
    let messages = bytes / PAYLOAD_BYTES as u64;
    let (mut bare, mut waiting) = (Vec::new(), Vec::new());
    let mut sent_per_s = Vec::new();
    for round in 0..rounds {
        bare.push(millis(
            Broker::start(setup, Variant::Bare, &[])?.listened_after,
        ));
        let (broker, rate) = one_start(setup, backbone, messages, shape)?;
        waiting.push(millis(broker.listened_after));
        sent_per_s.push(rate);
        eprintln!(
            "  start with {} MiB waiting, round {} of {rounds}: {:.0} ms, bare {:.0} ms; then {rate:.0} messages/s of 1 KiB arriving",
            bytes >> 20,
            round + 1,
            millis(broker.listened_after),
            bare.last().copied().unwrap_or_default(),
        );
    }
    let mib = bytes >> 20;
    Ok(vec![Figure::new(
        format!("start_with_{mib}_mib_waiting"),
        "ms",
        &waiting,
        ("bare Mosquitto", &bare),
        Some(Goal::ReferencePlus(1000.0)),
    )])
}

/// The broker that was started, when everything has arrived, and how many messages a second did.
fn one_start(
    setup: &Setup,
    backbone: &mut Backbone,
    messages: u64,
    shape: Shape,
) -> Result<(Broker, f64)> {
    let extra = ["plugin_opt_spool_bytes_max 4GiB".to_owned()];
    let broker = Broker::start(setup, Variant::Bridge, &extra)?;
    let mut load = Load::connect(broker.port, shape)?;
    let mut arrivals = Arrivals::new(backbone, &setup.topics.load)?;
    let first = load.run(1)?;
    arrivals.wait(first, READY_TIMEOUT)?;
    let paused = broker.pause_sidecar()?;
    load.run(messages)?;
    drop(load);
    let broker = broker.restart_after_kill(setup)?;
    // The killed one is not to be woken.
    drop(paused);
    let start = Instant::now();
    let outcome = Outcome {
        messages,
        elapsed: Duration::ZERO,
    };
    let arrived = arrivals.wait(outcome, SENT_TIMEOUT);
    broker.explain(arrived)?;
    Ok((broker, messages as f64 / start.elapsed().as_secs_f64()))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
