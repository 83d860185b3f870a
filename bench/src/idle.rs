//! Rounds at a hundred messages a second: device to RocketMQ, RocketMQ to device, device to device on another node, and RocketMQ's own
//! way in between.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::backbone::Backbone;
use crate::child;
use crate::latency::{self, Subscriber};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::report::{Figure, Goal, percentile};

const RATE_PER_SECOND: u32 = 100;
/// Not measured, at the start of each leg: connections are fresh and the Java client compiles itself.
const WARM_UP_MESSAGES: usize = 50;
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const REFERENCE: &str = "RocketMQ producer → consumer";

/// Latencies of one leg in milliseconds, a pair of percentiles a round.
#[derive(Default)]
struct Leg {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

#[derive(Default)]
struct Legs {
    up: Leg,
    down: Leg,
    through: Leg,
    reference: Leg,
}

impl Leg {
    fn add(&mut self, nanos: &[u64]) {
        let millis: Vec<f64> = nanos
            .iter()
            .skip(WARM_UP_MESSAGES)
            .map(|ns| *ns as f64 / 1e6)
            .collect();
        self.p50.push(percentile(&millis, 50));
        self.p99.push(percentile(&millis, 99));
    }
}

/// Measures `rounds` times `messages` messages on each leg, the legs taking turns at going first.
pub(crate) fn measure(
    setup: &Setup,
    backbone: &mut Backbone,
    rounds: usize,
    messages: usize,
) -> Result<Vec<Figure>> {
    let broker = Broker::start(setup, Variant::Bridge, &[])?;
    let through = &setup.topics.through;
    let extra = [format!("plugin_opt_downlink {through} bench/through qos=1")];
    let other = Broker::start(setup, Variant::Bridge, &extra)?;
    let result = measure_legs(setup, backbone, (&broker, &other), rounds, messages);
    broker.explain(result)
}

fn measure_legs(
    setup: &Setup,
    backbone: &mut Backbone,
    (broker, other): (&Broker, &Broker),
    rounds: usize,
    messages: usize,
) -> Result<Vec<Figure>> {
    let topics = &setup.topics;
    let count = messages + WARM_UP_MESSAGES;
    backbone.subscribe(&topics.reference)?;
    backbone.subscribe(&topics.up)?;
    let mut subscriber = ready_subscriber(backbone, broker.port, "bench/down", &topics.down)?;
    let mut elsewhere = ready_subscriber(backbone, other.port, "bench/through", &topics.through)?;
    let mut legs = Legs::default();
    let Legs {
        up,
        down,
        through,
        reference,
    } = &mut legs;
    for round in 0..rounds {
        for leg in 0..4 {
            match (round + leg) % 4 {
                0 => {
                    backbone.produce(&topics.reference, count, RATE_PER_SECOND)?;
                    reference.add(&backbone.latencies(&topics.reference, count)?);
                }
                1 => {
                    latency::publish(broker.port, "bench/up", count, RATE_PER_SECOND)?;
                    up.add(&backbone.latencies(&topics.up, count)?);
                }
                2 => {
                    let collecting = elsewhere.collect(count);
                    latency::publish(broker.port, "bench/through", count, RATE_PER_SECOND)?;
                    let latencies;
                    (elsewhere, latencies) = joined(collecting)?;
                    through.add(&latencies);
                }
                _ => {
                    let collecting = subscriber.collect(count);
                    backbone.produce(&topics.down, count, RATE_PER_SECOND)?;
                    let latencies;
                    (subscriber, latencies) = joined(collecting)?;
                    down.add(&latencies);
                }
            }
        }
        let last = |leg: &Leg| leg.p50.last().copied().unwrap_or_default();
        eprintln!(
            "  latency, round {} of {rounds}: p50 up {:.3} ms, down {:.3} ms, through {:.3} ms, RocketMQ's own {:.3} ms",
            round + 1,
            last(up),
            last(down),
            last(through),
            last(reference)
        );
    }
    Ok(figures(&legs))
}

fn joined(
    collecting: JoinHandle<Result<(Subscriber, Vec<u64>)>>,
) -> Result<(Subscriber, Vec<u64>)> {
    collecting
        .join()
        .map_err(|_| anyhow!("the subscriber panicked"))?
}

/// Subscribes and waits until the bridge delivers from RocketMQ.
fn ready_subscriber(
    backbone: &mut Backbone,
    port: u16,
    filter: &str,
    topic: &str,
) -> Result<Subscriber> {
    let mut subscriber = Subscriber::connect(port, filter)?;
    child::wait_for("the bridge delivering from RocketMQ", READY_TIMEOUT, || {
        backbone.produce(topic, 1, RATE_PER_SECOND)?;
        Ok(subscriber
            .receive_one(Duration::from_millis(500))?
            .map(drop))
    })?;
    subscriber.drain(Duration::from_secs(1))?;
    Ok(subscriber)
}

fn figures(legs: &Legs) -> Vec<Figure> {
    let reference = &legs.reference;
    let all = [
        ("uplink", &legs.up),
        ("downlink", &legs.down),
        ("through", &legs.through),
    ];
    let mut figures = Vec::new();
    for (name, leg) in all {
        // The goals are for the whole way from device to device; each half of it is held to the same.
        let p50 = Some(Goal::ReferencePlus(1.0));
        let p99 = Some(Goal::ReferencePlus(5.0));
        figures.push(Figure::new(
            format!("{name}_idle_latency_p50"),
            "ms",
            &leg.p50,
            (REFERENCE, &reference.p50),
            p50,
        ));
        figures.push(Figure::new(
            format!("{name}_idle_latency_p99"),
            "ms",
            &leg.p99,
            (REFERENCE, &reference.p99),
            p99,
        ));
    }
    figures
}
