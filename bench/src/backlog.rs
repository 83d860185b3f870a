//! RocketMQ to a device, from a backlog: the bridge beside the one that a user would write today, and RocketMQ's own consumer as the
//! ceiling. And the same backlog to several nodes at once.

use anyhow::Result;

use crate::backbone::{Backbone, Way};
use crate::child;
use crate::drain::Drain;
use crate::mosquitto::{Broker, Setup, Variant};
use crate::mqtt::PAYLOAD_BYTES;
use crate::reference::{self, ReferenceBridge};
use crate::report::{Figure, Goal};

const FILTER: &str = "bench/backlog";
const NODES: [usize; 3] = [1, 2, 4];

/// One side's numbers, a value a round.
#[derive(Default)]
struct Series {
    delivered_per_s: Vec<f64>,
    cpu_ns: Vec<f64>,
}

/// Stores `messages` messages and has them delivered in each round by either bridge, in turning order.
pub(crate) fn measure(
    setup: &Setup,
    backbone: &mut Backbone,
    rounds: usize,
    messages: u64,
) -> Result<Vec<Figure>> {
    let topic = &setup.topics.backlog;
    backbone.flood(topic, messages, PAYLOAD_BYTES, Way::InBatches)?;
    let (mut ours, mut theirs) = (Series::default(), Series::default());
    let mut consumed = Vec::new();
    let mut nodes: [Series; NODES.len()] = Default::default();
    for round in 0..rounds {
        for turn in 0..4 {
            match (round + turn) % 4 {
                0 => with_ours(setup, 1, messages, &mut ours)?,
                1 => with_theirs(setup, messages, &mut theirs)?,
                2 => {
                    let took = backbone.drain(topic, messages)?;
                    consumed.push(messages as f64 / took.as_secs_f64());
                }
                _ => {
                    for (series, count) in nodes.iter_mut().zip(NODES) {
                        with_ours(setup, count, messages, series)?;
                    }
                }
            }
        }
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        eprintln!(
            "  backlog, round {} of {rounds}: delivered/s {:.0}, reference {:.0}, RocketMQ's consumer {:.0}; CPU a message {:.0} ns, \
             reference {:.0} ns; on {} nodes {:.0}/s",
            round + 1,
            last(&ours.delivered_per_s),
            last(&theirs.delivered_per_s),
            last(&consumed),
            last(&ours.cpu_ns),
            last(&theirs.cpu_ns),
            NODES[NODES.len() - 1],
            last(&nodes[NODES.len() - 1].delivered_per_s),
        );
    }
    Ok(figures(&ours, &theirs, &consumed, &nodes))
}

/// The same backlog to a subscriber at each of so many nodes.
fn with_ours(setup: &Setup, nodes: usize, messages: u64, series: &mut Series) -> Result<()> {
    let mut extra = lines();
    extra.extend([
        format!(
            "plugin_opt_downlink {} {FILTER} qos=1",
            setup.topics.backlog
        ),
        "plugin_opt_downlink_from earliest".to_owned(),
    ]);
    let mut brokers = Vec::new();
    for _ in 0..nodes {
        let broker = Broker::start(setup, Variant::Bridge, &extra)?;
        // It must not deliver before there is a subscriber.
        let paused = broker.pause_sidecar()?;
        brokers.push((Drain::start(broker.port, FILTER, messages)?, paused, broker));
    }
    let mut pids: Vec<u32> = setup.rocketmq_pid.into_iter().collect();
    for (_, _, broker) in &brokers {
        pids.extend(broker.sidecars());
    }
    let cpu_before = child::cpu_ns(&pids)?;
    let mut drains = Vec::new();
    for (drain, paused, broker) in brokers {
        drop(paused);
        drains.push((drain, broker));
    }
    let (mut slowest, mut repeated) = (0.0_f64, 0);
    let mut done = Vec::new();
    for (drain, broker) in drains {
        let drained = broker.explain(drain.finish())?;
        slowest = slowest.max(drained.elapsed.as_secs_f64());
        repeated += drained.repeated;
        done.push(broker);
    }
    let deliveries = messages as f64 * nodes as f64;
    series.delivered_per_s.push(deliveries / slowest);
    series
        .cpu_ns
        .push((child::cpu_ns(&pids)? - cpu_before) / deliveries);
    warn_of_repeated(repeated);
    Ok(())
}

fn with_theirs(setup: &Setup, messages: u64, series: &mut Series) -> Result<()> {
    let broker = Broker::start(setup, Variant::Bare, &lines())?;
    let drain = Drain::start(broker.port, FILTER, messages)?;
    let rocketmq: Vec<u32> = setup.rocketmq_pid.into_iter().collect();
    let cpu_before = child::cpu_ns(&rocketmq)?;
    let bridge = ReferenceBridge::down(setup, broker.port, FILTER, &setup.topics.backlog)?;
    // Its own start is not what is measured: its process has used nothing before it was ready that the first message has to wait for.
    let started_with = child::cpu_ns(&[bridge.pid()])?;
    let drained = broker.explain(drain.finish())?;
    let spent =
        child::cpu_ns(&[bridge.pid()])? - started_with + child::cpu_ns(&rocketmq)? - cpu_before;
    series
        .delivered_per_s
        .push(messages as f64 / drained.elapsed.as_secs_f64());
    series.cpu_ns.push(spent / messages as f64);
    warn_of_repeated(drained.repeated);
    Ok(())
}

fn warn_of_repeated(repeated: u64) {
    if repeated > 0 {
        eprintln!("  {repeated} messages were delivered more than once");
    }
}

/// The same limits for both, wide enough not to be what is measured.
fn lines() -> Vec<String> {
    vec![
        "max_inflight_messages 1000".to_owned(),
        "max_queued_messages 0".to_owned(),
    ]
}

fn figures(
    ours: &Series,
    theirs: &Series,
    consumed: &[f64],
    nodes: &[Series; NODES.len()],
) -> Vec<Figure> {
    let mut figures = vec![
        Figure::new(
            "down_delivered",
            "msg/s",
            &ours.delivered_per_s,
            (reference::NAME, &theirs.delivered_per_s),
            Some(Goal::RatioAtLeast(6.0)),
        ),
        Figure::new(
            "down_delivered_beside_ceiling",
            "msg/s",
            &ours.delivered_per_s,
            ("RocketMQ's own consumer", consumed),
            None,
        ),
        Figure::new(
            "down_cpu_of_bridge_and_rocketmq",
            "ns",
            &ours.cpu_ns,
            (reference::NAME, &theirs.cpu_ns),
            Some(Goal::RatioAtMost(1.0 / 6.0)),
        ),
    ];
    for (series, count) in nodes.iter().zip(NODES).skip(1) {
        figures.push(Figure::new(
            format!("fan_out_delivered_{count}_nodes"),
            "msg/s",
            &series.delivered_per_s,
            ("one node", &nodes[0].delivered_per_s),
            None,
        ));
        figures.push(Figure::new(
            format!("fan_out_cpu_{count}_nodes"),
            "ns",
            &series.cpu_ns,
            ("one node", &nodes[0].cpu_ns),
            Some(Goal::RatioAtMost(1.2)),
        ));
    }
    figures
}
