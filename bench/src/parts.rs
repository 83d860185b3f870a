//! The parts of a run, and how much of each a full and a quick run measure.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::backbone::Backbone;
use crate::load::Shape;
use crate::mosquitto::Setup;
use crate::mqtt::PAYLOAD_BYTES;
use crate::report::Figure;
use crate::{backlog, cluster, cost, idle, outage, scale, start, syscalls, throughput, versus};

/// Payloads of the loads beside the reference, and the part of the usual number of messages that goes with each.
const PAYLOADS: [(usize, u64); 3] = [(PAYLOAD_BYTES, 1), (1024, 3), (16 * 1024, 15)];
/// The load during an outage, in messages a second: what a machine of two cores carries with room to spare.
const OUTAGE_RATE: f64 = 20_000.0;

/// A part of the benchmark that can be run by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Idle latency.
    Latency,
    /// What Mosquitto acknowledges, and what each message costs its thread.
    Load,
    /// Device to RocketMQ beside the reference bridge.
    Up,
    /// RocketMQ to devices beside the reference bridge, and to several nodes.
    Down,
    /// RocketMQ away, and what is made up for afterwards.
    Outage,
    /// Many rules, many clients, the log going to the disk.
    Scale,
    /// Starting with much in the spool.
    Start,
    /// Three nodes that are one broker.
    Cluster,
}

/// How much is measured.
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    quick: bool,
    idle_messages: usize,
    messages: u64,
    shape: Shape,
    descriptors: u64,
}

impl Effort {
    pub(crate) fn new(quick: bool, (publishers, window): (usize, usize), descriptors: u64) -> Self {
        let (rounds, idle_messages, messages) = if quick {
            (3, 150, 60_000)
        } else {
            (5, 500, 300_000)
        };
        Effort {
            rounds,
            quick,
            idle_messages,
            messages,
            shape: Shape {
                publishers,
                window,
                payload: PAYLOAD_BYTES,
            },
            descriptors,
        }
    }
}

impl Part {
    /// Those that were asked for; without any, all of them, or in a quick run those that have goals.
    pub(crate) fn chosen(only: &[Part], quick: bool) -> Vec<Part> {
        let all = [
            Part::Latency,
            Part::Load,
            Part::Up,
            Part::Down,
            Part::Outage,
            Part::Scale,
            Part::Start,
            Part::Cluster,
        ];
        let wanted = |part: &Part| match only {
            [] => !quick || !matches!(part, Part::Scale | Part::Start | Part::Cluster),
            _ => only.contains(part),
        };
        all.into_iter().filter(wanted).collect()
    }

    pub(crate) fn measure(
        self,
        setup: &Setup,
        backbone: &mut Backbone,
        effort: &Effort,
    ) -> Result<Vec<Figure>> {
        let Effort {
            rounds,
            messages,
            shape,
            ..
        } = *effort;
        match self {
            Part::Latency => idle::measure(setup, backbone, rounds, effort.idle_messages),
            Part::Load => {
                let plan = throughput::Plan {
                    rounds,
                    messages,
                    shape,
                    perf: syscalls::perf_works(),
                };
                let mut figures = throughput::measure(setup, backbone, &plan)?;
                figures.extend(cost::measure(setup, backbone, &plan)?);
                Ok(figures)
            }
            Part::Up => up(setup, backbone, effort),
            Part::Down => backlog::measure(setup, backbone, rounds, messages),
            Part::Outage => outage::measure(setup, backbone, &effort.outage()),
            Part::Scale => {
                let plan = scale::Plan {
                    rounds,
                    messages,
                    shape,
                    descriptors: effort.descriptors,
                };
                scale::measure(setup, backbone, &plan)
            }
            Part::Start => {
                let (rounds, bytes) = if effort.quick {
                    (1, 64 << 20)
                } else {
                    (rounds, 1 << 30)
                };
                start::measure(setup, backbone, rounds, bytes, shape)
            }
            Part::Cluster => cluster::measure(setup, backbone, rounds, effort.idle_messages),
        }
    }
}

impl Effort {
    fn outage(&self) -> outage::Plan {
        let (rounds, before, outage) = if self.quick {
            (1, 3, 10)
        } else {
            (self.rounds, 10, 60)
        };
        outage::Plan {
            rounds,
            rate: OUTAGE_RATE,
            before: Duration::from_secs(before),
            outage: Duration::from_secs(outage),
            shape: self.shape,
        }
    }
}

fn up(setup: &Setup, backbone: &mut Backbone, effort: &Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let payloads = if effort.quick {
        &PAYLOADS[..1]
    } else {
        &PAYLOADS[..]
    };
    for (payload, share) in payloads {
        let plan = versus::Plan {
            rounds: effort.rounds,
            messages: effort.messages / share,
            shape: Shape {
                payload: *payload,
                ..effort.shape
            },
        };
        figures.extend(versus::measure(setup, backbone, &plan)?);
    }
    Ok(figures)
}
