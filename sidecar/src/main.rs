//! `mosquitto-rocketmq`: the process between the hand-off log and RocketMQ, and the commands for its operators.
//!
//! It is not a broker and not a message store: Mosquitto and RocketMQ are. It may crash, hang or be replaced at any time;
//! what it had not finished stays in the hand-off log and in RocketMQ.
#![forbid(unsafe_code)]

mod app;
mod cli;
mod cluster;
mod dead_letter;
mod downlink;
mod groups;
mod health;
mod inbox;
mod mapping;
mod metrics;
mod missed;
mod retained;
mod signals;
mod status;
mod uplink;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_sidecar = matches!(cli.command, Command::Sidecar(_));
    start_log(if is_sidecar {
        log::LevelFilter::Info
    } else {
        log::LevelFilter::Error
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error!("can't start: {error}");
            return ExitCode::from(app::EXIT_FAILED);
        }
    };
    let code = match cli.command {
        Command::Sidecar(args) => {
            app::exit_on_panic();
            Ok(ExitCode::from(runtime.block_on(app::run(&args.spool_dir))))
        }
        Command::Status(args) => cli::status::run(&args),
        Command::Check(args) => runtime.block_on(cli::check::run(&args)),
        Command::Publish(args) => runtime.block_on(cli::publish::run(&args)),
        Command::DeadLetter(args) => cli::dead_letter::run(&args),
        Command::Nodes(args) => cli::cluster::nodes(&args),
        Command::Clients(args) => cli::cluster::clients(&args),
        Command::Spool(args) => cli::spool::run(&args),
    };
    // A thread that hangs in the network must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code.unwrap_or_else(|error| {
        log::error!("{error:#}");
        ExitCode::FAILURE
    })
}

/// `LEVEL message` on standard error: the plugin copies the lines into Mosquitto's log. The client library's own lines are kept
/// to errors; what matters of them comes back to us as errors with a name. Our own crates go by the names of their libraries here.
fn start_log(level: log::LevelFilter) {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Error)
        .filter_module("mosquitto_rocketmq", log::LevelFilter::Trace)
        .filter_module("handoff", log::LevelFilter::Trace)
        .filter_module("protocol", log::LevelFilter::Trace)
        .filter_module("rocketmq", log::LevelFilter::Trace)
        .parse_env("MOSQUITTO_ROCKETMQ_LOG")
        .format(|out, record| writeln!(out, "{} {}", record.level(), record.args()))
        .init();
    log::set_max_level(level);
}
