//! Device to RocketMQ at full load: the bridge beside the one that a user would write today, and RocketMQ's own producer as the ceiling.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::arrivals::{ARRIVAL_TIMEOUT, Arrivals};
use crate::backbone::{Backbone, Way};
use crate::child;
use crate::load::{Load, Shape};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::mqtt::PAYLOAD_BYTES;
use crate::reference::{self, ReferenceBridge};
use crate::report::{Figure, Goal};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The warm-up's part of a timed load: Java compiles itself meanwhile.
const WARM_UP_SHARE: u64 = 2;

/// Plan of these rounds.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) messages: u64,
    pub(crate) shape: Shape,
}

/// One side's numbers, a value a round.
#[derive(Default)]
struct Series {
    arrived_per_s: Vec<f64>,
    cpu_ns: Vec<f64>,
    peak_mib: Vec<f64>,
}

/// Measures both bridges and RocketMQ's own producer in every round, in turning order.
pub(crate) fn measure(setup: &Setup, backbone: &mut Backbone, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (Series::default(), Series::default());
    let (mut singly, mut batched) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => with_ours(setup, backbone, plan, &mut ours)?,
                1 => with_theirs(setup, backbone, plan, &mut theirs)?,
                _ => {
                    singly.push(ceiling(setup, backbone, plan, Way::Asynchronously)?);
                    batched.push(ceiling(setup, backbone, plan, Way::InBatches)?);
                }
            }
        }
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        eprintln!(
            "  {} B up, round {} of {}: arriving/s {:.0}, reference {:.0}, RocketMQ's producer {:.0} and {:.0} in batches; \
             CPU a message {:.0} ns, reference {:.0} ns",
            plan.shape.payload,
            round + 1,
            plan.rounds,
            last(&ours.arrived_per_s),
            last(&theirs.arrived_per_s),
            last(&singly),
            last(&batched),
            last(&ours.cpu_ns),
            last(&theirs.cpu_ns),
        );
    }
    Ok(figures(
        plan.shape.payload,
        &ours,
        &theirs,
        &singly,
        &batched,
    ))
}

fn with_ours(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    series: &mut Series,
) -> Result<()> {
    let broker = Broker::start(setup, Variant::Bridge, &[])?;
    let topic = &setup.topics.load;
    let result = timed(
        setup,
        backbone,
        plan,
        &broker,
        (topic, broker.sidecars()),
        series,
    );
    broker.explain(result)?;
    series.peak_mib.push(broker.sidecar_peak_mib()?);
    Ok(())
}

fn with_theirs(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    series: &mut Series,
) -> Result<()> {
    let broker = Broker::start(setup, Variant::Bare, &reference::mosquitto_lines())?;
    let topic = &setup.topics.reference_load;
    let bridge = ReferenceBridge::up(setup, broker.port, "bench/+/load", topic)?;
    let result = timed(
        setup,
        backbone,
        plan,
        &broker,
        (topic, &[bridge.pid()]),
        series,
    );
    broker.explain(result)?;
    series.peak_mib.push(bridge.peak_mib()?);
    Ok(())
}

fn timed(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    broker: &Broker,
    (topic, bridge): (&str, &[u32]),
    series: &mut Series,
) -> Result<()> {
    let mut pids = bridge.to_vec();
    pids.extend(setup.rocketmq_pid);
    let mut load = Load::connect(broker.port, plan.shape)?;
    let mut arrivals = Arrivals::new(backbone, topic)?;
    let first = load.run(1)?;
    arrivals.wait(first, READY_TIMEOUT)?;
    let warm_up = load.run(plan.messages / WARM_UP_SHARE)?;
    arrivals.wait(warm_up, ARRIVAL_TIMEOUT)?;

    let cpu_before = child::cpu_ns(&pids)?;
    let start = Instant::now();
    let outcome = load.run(plan.messages)?;
    arrivals.wait(outcome, ARRIVAL_TIMEOUT)?;
    let messages = plan.messages as f64;
    series
        .arrived_per_s
        .push(messages / start.elapsed().as_secs_f64());
    series
        .cpu_ns
        .push((child::cpu_ns(&pids)? - cpu_before) / messages);
    Ok(())
}

fn ceiling(setup: &Setup, backbone: &mut Backbone, plan: &Plan, way: Way) -> Result<f64> {
    let topic = &setup.topics.reference_load;
    let payload = plan.shape.payload;
    backbone.flood(topic, plan.messages / WARM_UP_SHARE, payload, way)?;
    let took = backbone.flood(topic, plan.messages, payload, way)?;
    Ok(plan.messages as f64 / took.as_secs_f64())
}

fn figures(
    payload: usize,
    ours: &Series,
    theirs: &Series,
    singly: &[f64],
    batched: &[f64],
) -> Vec<Figure> {
    let usual = payload == PAYLOAD_BYTES;
    // The goals are for the usual payload: of a large one the bytes are what costs, on both sides.
    let goal = |goal| usual.then_some(goal);
    let name = |what: &str| format!("{what}_{payload}_bytes");
    let arrived = &ours.arrived_per_s;
    let mut figures = vec![
        Figure::new(
            name("up_arriving"),
            "msg/s",
            arrived,
            (reference::NAME, &theirs.arrived_per_s),
            goal(Goal::RatioAtLeast(6.0)),
        ),
        Figure::new(
            name("up_arriving_beside_ceiling"),
            "msg/s",
            arrived,
            ("RocketMQ's own producer, asynchronously", singly),
            None,
        ),
        Figure::new(
            name("up_arriving_beside_batches"),
            "msg/s",
            arrived,
            ("RocketMQ's own producer, in batches", batched),
            None,
        ),
        Figure::new(
            name("up_cpu_of_bridge_and_rocketmq"),
            "ns",
            &ours.cpu_ns,
            (reference::NAME, &theirs.cpu_ns),
            goal(Goal::RatioAtMost(1.0 / 6.0)),
        ),
    ];
    if usual {
        figures.push(Figure::new(
            "memory_under_full_load",
            "MiB",
            &ours.peak_mib,
            (reference::NAME, &theirs.peak_mib),
            Some(Goal::AtMost(64.0)),
        ));
    }
    figures
}
