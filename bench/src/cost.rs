//! What the bridge costs Mosquitto's thread: one broker with the bridge and one with a callback that does nothing, side by side,
//! in short slices that take turns. Whatever else works on the machine, the sidecar and RocketMQ too, then slows both alike, and
//! the difference is the callbacks' own.

use std::time::Duration;

use anyhow::Result;

use crate::arrivals::{ARRIVAL_TIMEOUT, Arrivals};
use crate::backbone::Backbone;
use crate::load::{Load, Outcome};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::report::{Figure, Goal, median};
use crate::throughput::Plan;

/// Slices of each kind in a round.
const SLICES: u64 = 20;
const REFERENCE: &str = "do-nothing callback";

/// Nanoseconds a message, a value a round.
#[derive(Default)]
struct Pairs {
    bridge: Vec<f64>,
    noop: Vec<f64>,
}

/// A broker under a load of its own.
struct Side {
    broker: Broker,
    load: Load,
    slices: Vec<f64>,
}

impl Side {
    fn start(setup: &Setup, plan: &Plan, variant: Variant) -> Result<Self> {
        let broker = Broker::start(setup, variant)?;
        let load = Load::connect(broker.port, plan.shape)?;
        Ok(Side {
            broker,
            load,
            slices: Vec::new(),
        })
    }

    fn slice(&mut self, messages: u64) -> Result<Outcome> {
        let before = self.broker.thread_cpu_ns()?;
        let outcome = self.load.run(messages)?;
        let spent = self.broker.thread_cpu_ns()? - before;
        self.slices.push(spent as f64 / messages as f64);
        Ok(outcome)
    }
}

/// Measures with the sidecar and RocketMQ at work, and with the sidecar stopped.
pub(crate) fn measure(setup: &Setup, backbone: &mut Backbone, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut running, mut paused) = (Pairs::default(), Pairs::default());
    for round in 0..plan.rounds {
        let mut bridge = Side::start(setup, plan, Variant::Bridge)?;
        let mut noop = Side::start(setup, plan, Variant::Noop)?;
        let result = one_round(
            setup,
            backbone,
            plan,
            &mut bridge,
            &mut noop,
            (&mut running, &mut paused),
        );
        bridge.broker.explain(result)?;
        let difference = |pairs: &Pairs| {
            pairs
                .bridge
                .last()
                .zip(pairs.noop.last())
                .map_or(0.0, |(ours, theirs)| ours - theirs)
        };
        eprintln!(
            "  cost, round {} of {}: {:+.0} ns a message, {:+.0} ns with the sidecar paused",
            round + 1,
            plan.rounds,
            difference(&running),
            difference(&paused)
        );
    }
    let figure = |name, pairs: Pairs| Figure {
        name,
        unit: "ns",
        values: pairs.bridge,
        reference: REFERENCE,
        reference_values: pairs.noop,
        goal: Some(Goal::ReferencePlus(500.0)),
    };
    Ok(vec![
        figure("broker_thread_per_message", running),
        figure("broker_thread_per_message_sidecar_paused", paused),
    ])
}

fn one_round(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    bridge: &mut Side,
    noop: &mut Side,
    (running, paused): (&mut Pairs, &mut Pairs),
) -> Result<()> {
    let mut arrivals = Arrivals::new(backbone, &setup.topics.load)?;
    let slice = (plan.messages / SLICES).max(1);
    let warm_up = bridge.load.run(slice * 2)?;
    noop.load.run(slice * 2)?;
    arrivals.wait(warm_up, ARRIVAL_TIMEOUT)?;

    let sent = take_turns(bridge, noop, slice, running)?;
    arrivals.wait(sent, ARRIVAL_TIMEOUT)?;

    let standstill = bridge.broker.pause_sidecar()?;
    let sent = take_turns(bridge, noop, slice, paused)?;
    drop(standstill);
    arrivals.wait(sent, ARRIVAL_TIMEOUT)
}

/// Gives what was sent through the bridge.
fn take_turns(
    bridge: &mut Side,
    noop: &mut Side,
    slice: u64,
    pairs: &mut Pairs,
) -> Result<Outcome> {
    let mut whole = Outcome {
        messages: 0,
        elapsed: Duration::ZERO,
    };
    for _ in 0..SLICES {
        noop.slice(slice)?;
        let outcome = bridge.slice(slice)?;
        whole.messages += outcome.messages;
        whole.elapsed += outcome.elapsed;
    }
    pairs
        .bridge
        .push(median(&std::mem::take(&mut bridge.slices)));
    pairs.noop.push(median(&std::mem::take(&mut noop.slices)));
    Ok(whole)
}
