//! Rounds under full load: the same load on bare Mosquitto, on one with a callback that does nothing, and on one with the bridge.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::arrivals::{ARRIVAL_TIMEOUT, Arrivals};
use crate::backbone::Backbone;
use crate::child;
use crate::load::{Load, Shape};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::report::{Figure, Goal};
use crate::syscalls::{Counter, Counts};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The warm-up's part of a timed load: connections, caches and the log's first segments are fresh before it.
const WARM_UP_SHARE: u64 = 4;

/// Plan of the load rounds.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Messages of one timed load.
    pub(crate) messages: u64,
    pub(crate) shape: Shape,
    /// Count system calls by `perf` rather than by `strace`.
    pub(crate) perf: bool,
}

/// One variant's numbers, a value a round.
#[derive(Default)]
struct Series {
    acknowledged_per_s: Vec<f64>,
    syscalls: Vec<f64>,
    futexes: Vec<f64>,
}

/// What only the bridge has.
#[derive(Default)]
struct BridgeSeries {
    arrived_per_s: Vec<f64>,
    paused_acknowledged_per_s: Vec<f64>,
    sidecar_ns: Vec<f64>,
    duplicates: u64,
}

/// Measures every variant in every round, in turning order.
pub(crate) fn measure(setup: &Setup, backbone: &mut Backbone, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut bare, mut noop, mut bridged) =
        (Series::default(), Series::default(), Series::default());
    let mut bridge = BridgeSeries::default();
    for round in 0..plan.rounds {
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => plain(setup, Variant::Bare, plan, &mut bare)?,
                1 => plain(setup, Variant::Noop, plan, &mut noop)?,
                _ => bridged_round(setup, backbone, plan, &mut bridged, &mut bridge)?,
            }
        }
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        eprintln!(
            "  load, round {} of {}: acknowledged/s bare {:.0}, no-op {:.0}, bridge {:.0} ({:.0} paused); arriving {:.0}/s; \
             sidecar {:.0} ns a message",
            round + 1,
            plan.rounds,
            last(&bare.acknowledged_per_s),
            last(&noop.acknowledged_per_s),
            last(&bridged.acknowledged_per_s),
            last(&bridge.paused_acknowledged_per_s),
            last(&bridge.arrived_per_s),
            last(&bridge.sidecar_ns),
        );
    }
    if bridge.duplicates > 0 {
        eprintln!(
            "  {} messages arrived more than once (at least once is the promise)",
            bridge.duplicates
        );
    }
    Ok(figures(&bare, &noop, &bridged, &bridge))
}

fn plain(setup: &Setup, variant: Variant, plan: &Plan, series: &mut Series) -> Result<()> {
    let broker = Broker::start(setup, variant, &[])?;
    let mut load = Load::connect(broker.port, plan.shape)?;
    load.run(plan.messages / WARM_UP_SHARE)?;
    series
        .acknowledged_per_s
        .push(load.run(plan.messages)?.per_second());
    let counter = Counter::attach(&setup.dir, broker.pid(), plan.perf)?;
    let outcome = load.run(plan.messages / 2)?;
    series.add_counts(&counter.finish()?, outcome.messages);
    Ok(())
}

fn bridged_round(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    series: &mut Series,
    bridge: &mut BridgeSeries,
) -> Result<()> {
    let broker = Broker::start(setup, Variant::Bridge, &[])?;
    let result = load_bridge(setup, backbone, plan, &broker, series, bridge);
    broker.explain(result)
}

fn load_bridge(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    broker: &Broker,
    series: &mut Series,
    bridge: &mut BridgeSeries,
) -> Result<()> {
    let mut load = Load::connect(broker.port, plan.shape)?;
    let mut arrivals = Arrivals::new(backbone, &setup.topics.load)?;
    // The sidecar may still be connecting: the load begins when a first message is through.
    let first = load.run(1)?;
    arrivals.wait(first, READY_TIMEOUT)?;
    let warm_up = load.run(plan.messages / WARM_UP_SHARE)?;
    arrivals.wait(warm_up, ARRIVAL_TIMEOUT)?;

    let sidecar_before = child::cpu_ns(broker.sidecars())?;
    let start = Instant::now();
    let outcome = load.run(plan.messages)?;
    arrivals.wait(outcome, ARRIVAL_TIMEOUT)?;
    bridge
        .arrived_per_s
        .push(outcome.messages as f64 / start.elapsed().as_secs_f64());
    bridge
        .sidecar_ns
        .push((child::cpu_ns(broker.sidecars())? - sidecar_before) / outcome.messages as f64);
    series.acknowledged_per_s.push(outcome.per_second());

    let counter = Counter::attach(&setup.dir, broker.pid(), plan.perf)?;
    let outcome = load.run(plan.messages / 2)?;
    series.add_counts(&counter.finish()?, outcome.messages);
    arrivals.wait(outcome, ARRIVAL_TIMEOUT)?;

    let paused = broker.pause_sidecar()?;
    let outcome = load.run(plan.messages)?;
    drop(paused);
    arrivals.wait(outcome, ARRIVAL_TIMEOUT)?;
    bridge.paused_acknowledged_per_s.push(outcome.per_second());
    bridge.duplicates += arrivals.so_far()?;
    Ok(())
}

impl Series {
    fn add_counts(&mut self, counts: &Counts, messages: u64) {
        let per_message =
            |name: &str| counts.get(name).copied().unwrap_or(0) as f64 / messages as f64;
        self.syscalls.push(per_message("total"));
        self.futexes.push(per_message("futex") * 1000.0);
        let rest = counts.iter().filter(|(name, _)| *name != "total");
        let rest: Vec<String> = rest
            .filter(|(_, count)| **count > 0)
            .map(|(name, _)| format!("{name} {:.4}", per_message(name)))
            .collect();
        eprintln!(
            "    system calls of Mosquitto's thread per message: {:.4} ({})",
            per_message("total"),
            rest.join(", ")
        );
    }
}

fn figures(bare: &Series, noop: &Series, bridged: &Series, bridge: &BridgeSeries) -> Vec<Figure> {
    let bare = ("bare Mosquitto, acknowledged", &bare.acknowledged_per_s[..]);
    let nothing = "do-nothing callback";
    vec![
        Figure::new(
            "arriving_in_rocketmq",
            "msg/s",
            &bridge.arrived_per_s,
            bare,
            Some(Goal::AtLeast(10_000.0)),
        ),
        Figure::new(
            "acknowledged",
            "msg/s",
            &bridged.acknowledged_per_s,
            bare,
            None,
        ),
        Figure::new(
            "acknowledged_sidecar_paused",
            "msg/s",
            &bridge.paused_acknowledged_per_s,
            bare,
            Some(Goal::RatioAtLeast(0.95)),
        ),
        Figure::new(
            "broker_system_calls_per_message",
            "calls",
            &bridged.syscalls,
            (nothing, &noop.syscalls),
            Some(Goal::ReferencePlus(0.05)),
        ),
        Figure::new(
            "broker_futex_calls_per_1000_messages",
            "calls",
            &bridged.futexes,
            (nothing, &noop.futexes),
            Some(Goal::ReferencePlus(1.0)),
        ),
    ]
}
