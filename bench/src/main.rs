//! Measures the bridge beside its references, all in one run: `scripts/bench` builds what is needed, starts RocketMQ and calls this.
//!
//! It is a load generator and a stopwatch; whether messages are right when they arrive is for the end-to-end tests to say.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

mod arrivals;
mod backbone;
mod backlog;
mod child;
mod cluster;
mod cost;
mod drain;
mod idle;
mod java;
mod latency;
mod load;
mod mosquitto;
mod mqtt;
mod outage;
mod parts;
mod plots;
mod reference;
mod report;
mod scale;
mod side;
mod start;
mod sys;
mod syscalls;
mod throughput;
mod versus;

use backbone::{Backbone, Way};
use mosquitto::{Setup, Topics};
use parts::Part;

/// Queues of each topic, as RocketMQ's own tools make them.
const QUEUES: u32 = 8;

/// Latency, rate and cost of the bridge beside bare Mosquitto and RocketMQ's own clients.
#[derive(Parser)]
#[command(name = "mosquitto-rocketmq-bench", version)]
struct Arguments {
    /// Three short rounds instead of five, and only the figures that have a goal.
    #[arg(long)]
    quick: bool,
    /// Draw the figures into this folder, as SVG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Also write the figures to this file, as a JSON array.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Name server of RocketMQ.
    #[arg(long, value_name = "HOST:PORT")]
    namesrv: String,
    /// The broker.
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: PathBuf,
    /// The plugin to measure.
    #[arg(long)]
    plugin: PathBuf,
    /// The plugin of bench/noop, built.
    #[arg(long)]
    noop_plugin: PathBuf,
    /// The sidecar that the plugin starts.
    #[arg(long)]
    sidecar: PathBuf,
    /// Process of RocketMQ's broker: for its CPU time, and to have it hang.
    #[arg(long, value_name = "PID")]
    rocketmq_pid: Option<u32>,
    /// Folder with jars, of RocketMQ and of Paho; repeats.
    #[arg(long, required = true)]
    jars: Vec<PathBuf>,
    /// Folder with the compiled bench/java.
    #[arg(long)]
    java_classes: PathBuf,
    /// Connections of the load.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    publishers: u16,
    /// Messages that each connection may have unacknowledged.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    window: u16,
    /// Only this part; repeats.
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

fn main() -> ExitCode {
    sys::note_termination_signals();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("mosquitto-rocketmq-bench-")
        .tempdir()?;
    let setup = Setup {
        mosquitto: arguments.mosquitto.clone(),
        plugin: arguments.plugin.clone(),
        noop: arguments.noop_plugin.clone(),
        sidecar: arguments.sidecar.clone(),
        namesrv: arguments.namesrv.clone(),
        rocketmq_pid: arguments.rocketmq_pid,
        jars: arguments.jars.clone(),
        classes: arguments.java_classes.clone(),
        dir: dir.path().to_owned(),
        topics: Topics::new(),
    };
    let mut backbone = Backbone::start(&setup)?;
    for topic in setup.topics.all() {
        backbone.create_topic(topic, QUEUES)?;
    }
    let descriptors = sys::raise_descriptor_limit().context("the limit of open files")?;
    let effort = parts::Effort::new(
        arguments.quick,
        (arguments.publishers.into(), arguments.window.into()),
        descriptors,
    );
    warm_up(&setup, &mut backbone)?;
    let mut figures = Vec::new();
    for part in Part::chosen(&arguments.only, arguments.quick) {
        figures.extend(part.measure(&setup, &mut backbone, &effort)?);
    }
    let rounds = effort.rounds;
    println!("{rounds} rounds; medians, with the lowest and the highest round in brackets\n");
    print!("{}", report::table(&figures));
    if let Some(path) = &arguments.json {
        fs::write(path, report::json(&figures)? + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(dir) = &arguments.plots {
        plots::write(dir, &figures)?;
    }
    Ok(())
}

/// RocketMQ compiles itself while it works: a broker that has just been started takes several times as long for a message.
fn warm_up(setup: &Setup, backbone: &mut Backbone) -> Result<()> {
    let topic = &setup.topics.reference_load;
    backbone.flood(topic, 150_000, mqtt::PAYLOAD_BYTES, Way::Asynchronously)?;
    backbone.flood(topic, 300_000, mqtt::PAYLOAD_BYTES, Way::InBatches)?;
    Ok(())
}
