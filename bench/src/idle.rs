//! Rounds at a hundred messages a second: device to RocketMQ, RocketMQ to device, and RocketMQ's own way in between.

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
    let broker = Broker::start(setup, Variant::Bridge)?;
    let result = measure_legs(setup, backbone, &broker, rounds, messages);
    broker.explain(result)
}

fn measure_legs(
    setup: &Setup,
    backbone: &mut Backbone,
    broker: &Broker,
    rounds: usize,
    messages: usize,
) -> Result<Vec<Figure>> {
    let topics = &setup.topics;
    let count = messages + WARM_UP_MESSAGES;
    backbone.subscribe(&topics.reference)?;
    backbone.subscribe(&topics.up)?;
    let mut subscriber = ready_subscriber(setup, backbone, broker.port)?;
    let (mut up, mut down, mut reference) = (Leg::default(), Leg::default(), Leg::default());
    for round in 0..rounds {
        for leg in 0..3 {
            match (round + leg) % 3 {
                0 => {
                    backbone.produce(&topics.reference, count, RATE_PER_SECOND)?;
                    reference.add(&backbone.latencies(&topics.reference, count)?);
                }
                1 => {
                    latency::publish(broker.port, "bench/up", count, RATE_PER_SECOND)?;
                    up.add(&backbone.latencies(&topics.up, count)?);
                }
                _ => {
                    let collecting = subscriber.collect(count);
                    backbone.produce(&topics.down, count, RATE_PER_SECOND)?;
                    let latencies;
                    (subscriber, latencies) = collecting
                        .join()
                        .map_err(|_| anyhow!("the subscriber panicked"))??;
                    down.add(&latencies);
                }
            }
        }
        let last = |leg: &Leg| leg.p50.last().copied().unwrap_or_default();
        eprintln!(
            "  latency, round {} of {rounds}: p50 up {:.3} ms, down {:.3} ms, RocketMQ's own {:.3} ms",
            round + 1,
            last(&up),
            last(&down),
            last(&reference)
        );
    }
    Ok(figures(up, down, reference))
}

/// Subscribes and waits until the bridge delivers from RocketMQ.
fn ready_subscriber(setup: &Setup, backbone: &mut Backbone, port: u16) -> Result<Subscriber> {
    let mut subscriber = Subscriber::connect(port, "bench/down")?;
    child::wait_for("the bridge delivering from RocketMQ", READY_TIMEOUT, || {
        backbone.produce(&setup.topics.down, 1, RATE_PER_SECOND)?;
        Ok(subscriber
            .receive_one(Duration::from_millis(500))?
            .map(drop))
    })?;
    subscriber.drain(Duration::from_secs(1))?;
    Ok(subscriber)
}

fn figures(up: Leg, down: Leg, reference: Leg) -> Vec<Figure> {
    // The issue asks for the medians; the tail is shown beside them.
    let figure = |name, values, reference: &[f64], goal| Figure {
        name,
        unit: "ms",
        values,
        reference: REFERENCE,
        reference_values: reference.to_vec(),
        goal,
    };
    let goal = Some(Goal::ReferencePlus(1.0));
    vec![
        figure("uplink_idle_latency_p50", up.p50, &reference.p50, goal),
        figure("uplink_idle_latency_p99", up.p99, &reference.p99, None),
        figure("downlink_idle_latency_p50", down.p50, &reference.p50, goal),
        figure("downlink_idle_latency_p99", down.p99, &reference.p99, None),
    ]
}
