//! How the cost grows: with rules, with connected clients, with how often the log goes to the disk.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::arrivals::{ARRIVAL_TIMEOUT, Arrivals};
use crate::backbone::Backbone;
use crate::child;
use crate::load::{Load, Shape};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::mqtt;
use crate::report::{Figure, Goal};
use crate::side::{SLICES, Side};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const RULES: [usize; 3] = [1, 100, 10_000];
const CLIENTS: [usize; 3] = [10, 1_000, 10_000];
/// Open files that the most clients need, here and in the broker.
const DESCRIPTORS: u64 = CLIENTS[CLIENTS.len() - 1] as u64 + 1000;
const SYNC: [(&str, &str); 3] = [
    ("none", "none"),
    ("interval", "interval 1s"),
    ("always", "always"),
];
/// With a sync for each message a load of the usual length would last for minutes.
const ALWAYS_SHARE: u64 = 20;

/// Plan of these rounds.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Messages of a timed load.
    pub(crate) messages: u64,
    pub(crate) shape: Shape,
    /// Descriptors that a process may have open.
    pub(crate) descriptors: u64,
}

/// Measures all three.
pub(crate) fn measure(setup: &Setup, backbone: &mut Backbone, plan: &Plan) -> Result<Vec<Figure>> {
    let mut figures = rules(setup, plan)?;
    figures.extend(clients(setup, plan)?);
    figures.extend(sync(setup, backbone, plan)?);
    Ok(figures)
}

/// Brokers with 1, 100 and 10,000 rules of which one matches, side by side, their sidecars stopped: what is left is the callback.
fn rules(setup: &Setup, plan: &Plan) -> Result<Vec<Figure>> {
    let mut series: [Vec<f64>; RULES.len()] = Default::default();
    for round in 0..plan.rounds {
        let mut sides = Vec::new();
        let mut paused = Vec::new();
        for count in RULES {
            let path = setup.dir.join(format!("rules-{count}"));
            // Some share their first level with the topics of the load, some do not.
            let filler: String = (1..count)
                .map(|number| match number % 2 {
                    0 => format!("uplink bench/device-{number}/state FILLER\n"),
                    _ => format!("uplink site-{number}/+/state/# FILLER\n"),
                })
                .collect();
            fs::write(&path, filler)?;
            let extra = [format!("plugin_opt_rules_file {}", path.display())];
            let side = Side::start(setup, Variant::Bridge, plan.shape, &extra)?;
            paused.push(side.broker.pause_sidecar()?);
            sides.push(side);
        }
        take_turns(&mut sides, plan.messages / SLICES)?;
        for (values, side) in series.iter_mut().zip(&mut sides) {
            values.push(side.take_median());
        }
        say("rules", round, plan, &RULES, &series);
    }
    let figures = RULES.iter().zip(&series).skip(1).map(|(count, values)| {
        Figure::new(
            format!("broker_thread_per_message_{count}_rules"),
            "ns",
            values,
            ("one rule", &series[0]),
            Some(Goal::RatioAtMost(1.1)),
        )
    });
    Ok(figures.collect())
}

/// Brokers with and without the bridge and so many clients connected, of which some publish.
fn clients(setup: &Setup, plan: &Plan) -> Result<Vec<Figure>> {
    let mut bridge: [Vec<f64>; CLIENTS.len()] = Default::default();
    let mut noop: [Vec<f64>; CLIENTS.len()] = Default::default();
    // Of the bridge, and of the other.
    let mut memory: [Vec<f64>; 2] = Default::default();
    if plan.descriptors < DESCRIPTORS {
        bail!(
            "{DESCRIPTORS} open files are needed, and {} allowed (ulimit -Hn)",
            plan.descriptors
        );
    }
    for round in 0..plan.rounds {
        for (at, count) in CLIENTS.into_iter().enumerate() {
            // One after the other: the connections of both would be more than a process may have.
            for turn in 0..2 {
                let values = match (round + turn) % 2 {
                    0 => &mut bridge[at],
                    _ => &mut noop[at],
                };
                let variant = match (round + turn) % 2 {
                    0 => Variant::Bridge,
                    _ => Variant::NoopWithThread,
                };
                let (nanos, kib) = with_clients(setup, plan, variant, count)?;
                values.push(nanos);
                if count == CLIENTS[CLIENTS.len() - 1] {
                    memory[usize::from(variant != Variant::Bridge)].push(kib);
                }
            }
        }
        say("clients", round, plan, &CLIENTS, &bridge);
    }
    let all = CLIENTS.iter().zip(bridge.iter().zip(&noop));
    let figures = all.map(|(count, (bridge, noop))| {
        Figure::new(
            format!("broker_thread_per_message_{count}_clients"),
            "ns",
            bridge,
            (
                "do-nothing callback, an idle thread and as many clients",
                noop,
            ),
            Some(Goal::ReferencePlus(500.0)),
        )
    });
    let mut figures: Vec<Figure> = figures.collect();
    figures.push(Figure::new(
        "broker_memory_per_client",
        "KiB",
        &memory[0],
        ("do-nothing callback", &memory[1]),
        None,
    ));
    Ok(figures)
}

/// Time of the thread of a broker with so many clients, in nanoseconds a message (of a bridge, its sidecar stopped); and what each idle client takes of
/// its memory, in KiB.
fn with_clients(setup: &Setup, plan: &Plan, variant: Variant, count: usize) -> Result<(f64, f64)> {
    let mut side = [Side::start(setup, variant, plan.shape, &[])?];
    let port = side[0].broker.port;
    let before_mib = child::resident_mib(side[0].broker.pid())?;
    let idle: Vec<TcpStream> = (plan.shape.publishers..count)
        .map(|number| {
            mqtt::connect(port, &format!("bench-idle-{number}"))
                .with_context(|| format!("client {number} of {count}"))
        })
        .collect::<Result<_>>()?;
    let more_mib = child::resident_mib(side[0].broker.pid())? - before_mib;
    let kib = more_mib * 1024.0 / idle.len().max(1) as f64;
    let paused = side[0].broker.pause_sidecar()?;
    take_turns(&mut side, plan.messages / SLICES)?;
    drop((paused, idle));
    Ok((side[0].take_median(), kib))
}

/// Slices of each in turn, after one that is not counted.
fn take_turns(sides: &mut [Side], messages: u64) -> Result<()> {
    let messages = messages.max(1);
    for side in &mut *sides {
        side.slice(messages)?;
        side.take_median();
    }
    for _ in 0..SLICES {
        for side in &mut *sides {
            side.slice(messages)?;
        }
    }
    Ok(())
}

/// What is acknowledged, and what arrives, by how often the log goes to the disk.
fn sync(setup: &Setup, backbone: &mut Backbone, plan: &Plan) -> Result<Vec<Figure>> {
    let mut acknowledged: [Vec<f64>; SYNC.len()] = Default::default();
    let mut arrived: [Vec<f64>; SYNC.len()] = Default::default();
    for round in 0..plan.rounds {
        for turn in 0..SYNC.len() {
            let at = (round + turn) % SYNC.len();
            let (name, policy) = SYNC[at];
            let messages = match name {
                "always" => plan.messages / ALWAYS_SHARE,
                _ => plan.messages,
            };
            let extra = [format!("plugin_opt_spool_sync {policy}")];
            let broker = Broker::start(setup, Variant::Bridge, &extra)?;
            let result = one_load(setup, backbone, &broker, plan.shape, messages);
            let (acknowledged_per_s, arrived_per_s) = broker.explain(result)?;
            acknowledged[at].push(acknowledged_per_s);
            arrived[at].push(arrived_per_s);
        }
        let counts = [0, 1, 2];
        say(
            "sync none, interval, always",
            round,
            plan,
            &counts,
            &acknowledged,
        );
    }
    let mut figures = Vec::new();
    for (at, (name, _)) in SYNC.iter().enumerate().skip(1) {
        figures.push(Figure::new(
            format!("acknowledged_sync_{name}"),
            "msg/s",
            &acknowledged[at],
            ("spool_sync none", &acknowledged[0]),
            None,
        ));
        figures.push(Figure::new(
            format!("arriving_sync_{name}"),
            "msg/s",
            &arrived[at],
            ("spool_sync none", &arrived[0]),
            None,
        ));
    }
    Ok(figures)
}

fn one_load(
    setup: &Setup,
    backbone: &mut Backbone,
    broker: &Broker,
    shape: Shape,
    messages: u64,
) -> Result<(f64, f64)> {
    let mut load = Load::connect(broker.port, shape)?;
    let mut arrivals = Arrivals::new(backbone, &setup.topics.load)?;
    let first = load.run(1)?;
    arrivals.wait(first, READY_TIMEOUT)?;
    let start = Instant::now();
    let outcome = load.run(messages)?;
    arrivals.wait(outcome, ARRIVAL_TIMEOUT)?;
    let arrived_per_s = messages as f64 / start.elapsed().as_secs_f64();
    Ok((outcome.per_second(), arrived_per_s))
}

fn say(what: &str, round: usize, plan: &Plan, counts: &[usize], series: &[Vec<f64>]) {
    let last = series
        .iter()
        .map(|values| format!("{:.0}", values.last().copied().unwrap_or_default()));
    eprintln!(
        "  {what} {counts:?}, round {} of {}: {}",
        round + 1,
        plan.rounds,
        last.collect::<Vec<_>>().join(", ")
    );
}
