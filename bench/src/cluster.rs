//! Three nodes that are one broker: from a device of one to a device of another, idle; how soon it is known that a node is dead; what the sidecars take.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::backbone::Backbone;
use crate::child;
use crate::latency::{self, Subscriber};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::report::{Figure, Goal, percentile};
use crate::sys;

const NODES: usize = 3;
const RATE_PER_SECOND: u32 = 100;
/// Not measured: connections are fresh.
const WARM_UP_MESSAGES: usize = 50;
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// `cluster_node_timeout`, as it is unless set.
const NODE_TIMEOUT_S: f64 = 5.0;
/// Between two looks at what a node knows of another.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const FILTER: &str = "bench/shared/#";
const TOPIC: &str = "bench/shared/latency";
const REFERENCE: &str = "RocketMQ producer → consumer";

#[derive(Default)]
struct Series {
    p50: Vec<f64>,
    p99: Vec<f64>,
    reference_p50: Vec<f64>,
    reference_p99: Vec<f64>,
    known_dead_s: Vec<f64>,
    sidecars_mib: Vec<f64>,
}

/// Measures so many rounds, with so many messages each.
pub(crate) fn measure(
    setup: &Setup,
    backbone: &mut Backbone,
    rounds: usize,
    messages: usize,
) -> Result<Vec<Figure>> {
    let name = format!("bench-{:x}", sys::unix_nanos() / 1_000_000);
    let lines = [
        format!("plugin_opt_cluster {name}"),
        format!("plugin_opt_share {FILTER}"),
    ];
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Broker::start(setup, Variant::Bridge, &lines)?);
    }
    backbone.subscribe(&setup.topics.cluster_reference)?;
    let mut series = Series::default();
    for round in 0..rounds {
        let result = one_round(setup, backbone, messages, &mut nodes, &mut series);
        nodes[0].explain(result)?;
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        eprintln!(
            "  cluster, round {} of {rounds}: p50 {:.3} ms, RocketMQ's own {:.3} ms; a dead node known after {:.2} s; {NODES} sidecars {:.1} MiB",
            round + 1,
            last(&series.p50),
            last(&series.reference_p50),
            last(&series.known_dead_s),
            last(&series.sidecars_mib),
        );
    }
    Ok(figures(&series))
}

fn one_round(
    setup: &Setup,
    backbone: &mut Backbone,
    messages: usize,
    nodes: &mut Vec<Broker>,
    series: &mut Series,
) -> Result<()> {
    for node in nodes.iter() {
        child::wait_for("all nodes knowing each other", READY_TIMEOUT, || {
            let known = states(setup, node).unwrap_or_default();
            let alive = known.iter().filter(|(_, state)| state == "alive");
            Ok((alive.count() == NODES).then_some(()))
        })?;
    }
    let count = messages + WARM_UP_MESSAGES;
    let mut subscriber = Subscriber::connect(nodes[1].port, FILTER)?;
    child::wait_for("a message from node to node", READY_TIMEOUT, || {
        latency::publish(nodes[0].port, TOPIC, 1, RATE_PER_SECOND)?;
        Ok(subscriber
            .receive_one(Duration::from_millis(500))?
            .map(drop))
    })?;
    subscriber.drain(Duration::from_secs(1))?;
    let collecting = subscriber.collect(count);
    latency::publish(nodes[0].port, TOPIC, count, RATE_PER_SECOND)?;
    let (_, latencies) = collecting
        .join()
        .map_err(|_| anyhow!("the subscriber panicked"))??;
    add(&latencies, &mut series.p50, &mut series.p99);
    let topic = &setup.topics.cluster_reference;
    backbone.produce(topic, count, RATE_PER_SECOND)?;
    let latencies = backbone.latencies(topic, count)?;
    add(
        &latencies,
        &mut series.reference_p50,
        &mut series.reference_p99,
    );
    let sizes: Result<Vec<f64>> = nodes.iter().map(Broker::sidecar_mib).collect();
    series.sidecars_mib.push(sizes?.iter().sum());
    series.known_dead_s.push(kill_one(setup, nodes)?);
    Ok(())
}

fn add(nanos: &[u64], p50: &mut Vec<f64>, p99: &mut Vec<f64>) {
    let behind = nanos.iter().skip(WARM_UP_MESSAGES);
    let millis: Vec<f64> = behind.map(|ns| *ns as f64 / 1e6).collect();
    p50.push(percentile(&millis, 50));
    p99.push(percentile(&millis, 99));
}

/// Kills the last node and starts it again; after how many seconds the first one knows that it is dead.
fn kill_one(setup: &Setup, nodes: &mut Vec<Broker>) -> Result<f64> {
    let mut victim = nodes.pop().context("three nodes")?;
    let name = format!("bench-{}", victim.port);
    let start = Instant::now();
    victim.kill()?;
    let mut known_s = 0.0;
    let result = child::wait_for("the death being known", READY_TIMEOUT, || {
        std::thread::sleep(LOOK_INTERVAL);
        let known = states(setup, &nodes[0])?;
        known_s = start.elapsed().as_secs_f64();
        let is_dead = |(node, state): &(String, String)| *node == name && state == "dead";
        Ok(known.iter().any(is_dead).then_some(()))
    });
    nodes.push(victim.restart_after_kill(setup)?);
    result.map(|()| known_s)
}

/// The nodes with their states, as a node knows them.
fn states(setup: &Setup, node: &Broker) -> Result<Vec<(String, String)>> {
    let output = Command::new(&setup.sidecar)
        .args(["nodes", "--json", "--spool-dir"])
        .arg(node.spool())
        .stdin(Stdio::null())
        .output()?;
    let told: Value = serde_json::from_slice(&output.stdout).context("what `nodes` tells")?;
    let text = |node: &Value, field: &str| node[field].as_str().unwrap_or_default().to_owned();
    let nodes = told.as_array().or_else(|| told["nodes"].as_array());
    let nodes = nodes.context("a list of nodes")?;
    Ok(nodes
        .iter()
        .map(|node| (text(node, "node"), text(node, "state")))
        .collect())
}

fn figures(series: &Series) -> Vec<Figure> {
    let timeout = vec![NODE_TIMEOUT_S; series.known_dead_s.len()];
    let bound = vec![100.0; series.sidecars_mib.len()];
    vec![
        Figure::new(
            "cluster_idle_latency_p50",
            "ms",
            &series.p50,
            (REFERENCE, &series.reference_p50),
            Some(Goal::ReferencePlus(1.0)),
        ),
        Figure::new(
            "cluster_idle_latency_p99",
            "ms",
            &series.p99,
            (REFERENCE, &series.reference_p99),
            Some(Goal::ReferencePlus(5.0)),
        ),
        Figure::new(
            "cluster_dead_node_known_after",
            "s",
            &series.known_dead_s,
            ("cluster_node_timeout", &timeout),
            Some(Goal::AtMost(NODE_TIMEOUT_S)),
        ),
        Figure::new(
            format!("cluster_memory_of_{NODES}_sidecars"),
            "MiB",
            &series.sidecars_mib,
            ("the bound", &bound),
            Some(Goal::AtMost(100.0)),
        ),
    ]
}
