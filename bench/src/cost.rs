//! What the bridge costs Mosquitto's thread: one broker with the bridge and one with a callback that does nothing, side by side.

use std::time::Duration;

use anyhow::Result;

use crate::arrivals::{ARRIVAL_TIMEOUT, Arrivals};
use crate::backbone::Backbone;
use crate::load::Outcome;
use crate::mosquitto::{Setup, Variant};
use crate::report::{Figure, Goal};
use crate::side::{SLICES, Side};
use crate::throughput::Plan;

const REFERENCE: &str = "do-nothing callback";
const THREADED_REFERENCE: &str = "do-nothing callback and an idle thread";

/// Nanoseconds a message, a value a round.
#[derive(Default)]
struct Series {
    bridge: Vec<f64>,
    noop: Vec<f64>,
    threaded: Vec<f64>,
}

/// The three brokers of a round.
struct Sides {
    bridge: Side,
    noop: Side,
    threaded: Side,
}

/// Measures with the sidecar and RocketMQ at work, and with the sidecar stopped.
pub(crate) fn measure(setup: &Setup, backbone: &mut Backbone, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut running, mut paused) = (Series::default(), Series::default());
    for round in 0..plan.rounds {
        let mut sides = Sides {
            bridge: Side::start(setup, Variant::Bridge, plan.shape, &[])?,
            noop: Side::start(setup, Variant::Noop, plan.shape, &[])?,
            threaded: Side::start(setup, Variant::NoopWithThread, plan.shape, &[])?,
        };
        let result = one_round(
            setup,
            backbone,
            plan,
            &mut sides,
            (&mut running, &mut paused),
        );
        sides.bridge.broker.explain(result)?;
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        eprintln!(
            "  cost, round {} of {}: {:.0} ns a message, no-op {:.0}; sidecar paused {:.0}, no-op {:.0}, with an idle thread {:.0}",
            round + 1,
            plan.rounds,
            last(&running.bridge),
            last(&running.noop),
            last(&paused.bridge),
            last(&paused.noop),
            last(&paused.threaded)
        );
    }
    let goal = Some(Goal::ReferencePlus(500.0));
    Ok(vec![
        Figure::new(
            "broker_thread_per_message",
            "ns",
            &running.bridge,
            (REFERENCE, &running.noop),
            goal,
        ),
        Figure::new(
            "broker_thread_per_message_sidecar_paused",
            "ns",
            &paused.bridge,
            (REFERENCE, &paused.noop),
            goal,
        ),
        // Not the goal's reference: it tells the callback's share from that of the plugin having threads at all.
        Figure::new(
            "broker_thread_per_message_beside_idle_thread",
            "ns",
            &paused.bridge,
            (THREADED_REFERENCE, &paused.threaded),
            None,
        ),
    ])
}

fn one_round(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    sides: &mut Sides,
    (running, paused): (&mut Series, &mut Series),
) -> Result<()> {
    let mut arrivals = Arrivals::new(backbone, &setup.topics.load)?;
    let slice = (plan.messages / SLICES).max(1);
    let warm_up = sides.bridge.load.run(slice * 2)?;
    sides.noop.load.run(slice * 2)?;
    sides.threaded.load.run(slice * 2)?;
    arrivals.wait(warm_up, ARRIVAL_TIMEOUT)?;

    let sent = take_turns(sides, slice, running)?;
    arrivals.wait(sent, ARRIVAL_TIMEOUT)?;

    let standstill = sides.bridge.broker.pause_sidecar()?;
    let sent = take_turns(sides, slice, paused)?;
    drop(standstill);
    arrivals.wait(sent, ARRIVAL_TIMEOUT)
}

/// Gives what was sent through the bridge.
fn take_turns(sides: &mut Sides, slice: u64, series: &mut Series) -> Result<Outcome> {
    let mut whole = Outcome {
        messages: 0,
        elapsed: Duration::ZERO,
    };
    for _ in 0..SLICES {
        sides.noop.slice(slice)?;
        sides.threaded.slice(slice)?;
        let outcome = sides.bridge.slice(slice)?;
        whole.messages += outcome.messages;
        whole.elapsed += outcome.elapsed;
    }
    series.bridge.push(sides.bridge.take_median());
    series.noop.push(sides.noop.take_median());
    series.threaded.push(sides.threaded.take_median());
    Ok(whole)
}
