//! `mosquitto-rocketmq spool`: what lies in the hand-off logs, read from outside.

mod export;
mod status;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use handoff::{OpenError, Peek};

use super::SPOOL_DIR;
use crate::dead_letter::Direction;

/// Shows what waits in the spool, and saves it where nothing else can.
///
/// Only reads the files: it works beside a running Mosquitto and sidecar without disturbing them, and without either.
#[derive(Debug, Args)]
pub(crate) struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
    /// The spool, as plugin_opt_spool_dir says.
    #[arg(long, value_name = "DIR", default_value = SPOOL_DIR, global = true)]
    spool_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Shows for each log how much waits in it, since when, and whether it is damaged.
    Status(StatusArgs),
    /// Writes the waiting messages to standard output, as JSON, one a line.
    Export(ExportArgs),
}

/// Shows for each log how much waits in it, since when, and whether it is damaged.
///
/// Reads every waiting frame and checks its checksum.
#[derive(Debug, Args)]
struct StatusArgs {
    /// Print JSON; the names in it are stable.
    #[arg(long)]
    json: bool,
}

/// Writes the waiting messages to standard output, as JSON, one a line.
///
/// Each has its topic, client id, QoS, properties, time and rules, and its payload in base64. Nothing is removed from the spool.
/// Damaged stretches are told on standard error, and the messages behind them follow.
#[derive(Debug, Args)]
struct ExportArgs {
    /// Only the log of this direction.
    #[arg(long, value_enum)]
    direction: Option<Direction>,
    /// Begin at this position, which must be that of a frame.
    #[arg(long, value_name = "POSITION", requires = "direction")]
    from_position: Option<u64>,
    /// Also the messages that are done with, as far as they are still there.
    #[arg(long, conflicts_with = "from_position")]
    all: bool,
}

pub(crate) fn run(args: &SpoolArgs) -> anyhow::Result<ExitCode> {
    let spool_dir = &args.spool_dir;
    if !spool_dir.is_dir() {
        bail!(
            "there is no spool {}; name the right one with --spool-dir",
            spool_dir.display()
        );
    }
    match &args.command {
        SpoolCommand::Status(args) => status::run(spool_dir, args),
        SpoolCommand::Export(args) => export::run(spool_dir, args),
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Uplink, Direction::Downlink];

/// The log of this direction; nothing when there is none yet.
fn open(spool_dir: &Path, direction: Direction) -> Result<Option<Peek>, OpenError> {
    match Peek::open(&spool_dir.join(direction.as_str())) {
        Ok(peek) => Ok(Some(peek)),
        Err(OpenError::NotThere { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
