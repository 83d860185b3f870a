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
mod child;
mod cost;
mod idle;
mod latency;
mod load;
mod mosquitto;
mod mqtt;
mod report;
mod sys;
mod syscalls;
mod throughput;

use backbone::Backbone;
use load::Shape;
use mosquitto::{Setup, Topics};

/// Queues of each topic, as RocketMQ's own tools make them.
const QUEUES: u32 = 8;

/// Latency, rate and cost of the bridge beside bare Mosquitto and RocketMQ's own clients.
#[derive(Parser)]
#[command(name = "mosquitto-rocketmq-bench", version)]
struct Arguments {
    /// Three short rounds instead of five.
    #[arg(long)]
    quick: bool,
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
    /// Folder with RocketMQ's jars.
    #[arg(long)]
    rocketmq_lib: PathBuf,
    /// Folder with the compiled bench/java.
    #[arg(long)]
    java_classes: PathBuf,
    /// Connections of the load.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    publishers: u16,
    /// Messages that each connection may have unacknowledged.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    window: u16,
    /// Only the latencies, or only the load.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Latency,
    Load,
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
        dir: dir.path().to_owned(),
        topics: Topics::new(),
    };
    let mut backbone = Backbone::start(
        dir.path(),
        &arguments.rocketmq_lib,
        &arguments.java_classes,
        &arguments.namesrv,
    )?;
    for topic in setup.topics.all() {
        backbone.create_topic(topic, QUEUES)?;
    }
    let (rounds, idle_messages, load_messages) = if arguments.quick {
        (3, 200, 100_000)
    } else {
        (5, 500, 300_000)
    };
    let mut figures = Vec::new();
    if arguments.only != Some(Part::Load) {
        figures.extend(idle::measure(&setup, &mut backbone, rounds, idle_messages)?);
    }
    if arguments.only != Some(Part::Latency) {
        let plan = throughput::Plan {
            rounds,
            messages: load_messages,
            shape: Shape {
                publishers: arguments.publishers.into(),
                window: arguments.window.into(),
            },
            perf: syscalls::perf_works(),
        };
        figures.extend(throughput::measure(&setup, &mut backbone, &plan)?);
        figures.extend(cost::measure(&setup, &mut backbone, &plan)?);
    }
    println!("{rounds} rounds; medians, with the lowest and the highest round in brackets\n");
    print!("{}", report::table(&figures));
    if let Some(path) = &arguments.json {
        fs::write(path, report::json(&figures)? + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
