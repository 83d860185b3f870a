//! `mosquitto-rocketmq dead-letter`.

mod list;
mod purge;
mod replay;
mod show;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{SPOOL_DIR, time};
use crate::dead_letter::{Direction, FOLDER, Filter, parse_id};
use crate::metrics::unix_ms;

/// Shows, replays and removes messages that could not be delivered.
///
/// Dead letters are messages that RocketMQ can never take, that no rule can map, or that Mosquitto refused. They lie in the
/// spool with the rule, the reason and the whole message, bounded by `dead_letter_bytes_max`.
#[derive(Debug, Args)]
pub(crate) struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
    /// The spool, as plugin_opt_spool_dir says.
    #[arg(long, value_name = "DIR", default_value = SPOOL_DIR, global = true)]
    spool_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// Lists the dead letters, the oldest first.
    List(ListArgs),
    /// Shows one whole: its message, where it stood, and why it is here.
    Show(ShowArgs),
    /// Has the running sidecar deliver them again.
    Replay(ReplayArgs),
    /// Removes them for good.
    Purge(PurgeArgs),
}

/// Lists the dead letters, the oldest first.
///
/// Reads the files in the spool; no sidecar has to run.
#[derive(Debug, Args)]
struct ListArgs {
    /// Print a JSON array; the names in it are stable.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only those since then: 2026-11-25T13:07:55Z, or 15min, 2h, 7d ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the newest N of them.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Shows one dead letter whole: its message, where it stood, and why it is here.
#[derive(Debug, Args)]
struct ShowArgs {
    /// Its id, as `list` shows it.
    #[arg(value_parser = check_id)]
    id: String,
    /// Print it as JSON, as it lies in the file; the body or frame is base64.
    #[arg(long, conflicts_with = "payload")]
    json: bool,
    /// Print the payload alone, byte by byte.
    #[arg(long)]
    payload: bool,
}

/// Has the running sidecar deliver dead letters again.
///
/// What RocketMQ refused is sent to the same topic with the same properties and identity, and the property mqtt_replayed with
/// the letter's id. What no rule could map is mapped by the rules of now. What Mosquitto refused is handed to it again. A letter
/// is removed only once RocketMQ has stored it or the downlink log has it; the others stay, and each says why.
///
/// Exits with 0 only if every one was delivered.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct ReplayArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Removes dead letters for good.
///
/// Works on the files in the spool, whether or not a sidecar runs.
#[derive(Debug, Args)]
struct PurgeArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Those that were written before then: 2026-11-25T13:07:55Z, or 15min, 2h, 7d ago.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["ids", "all"])]
    older_than: Option<String>,
}

/// By their ids, or all that a filter lets through.
#[derive(Debug, Args)]
struct WhichArgs {
    /// Their ids, as `list` shows them.
    #[arg(value_name = "ID", value_parser = check_id, conflicts_with_all = ["all", "rule", "direction"])]
    ids: Vec<String>,
    /// All, or all that --rule and --direction let through.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Debug, Default, Args)]
struct FilterArgs {
    /// Only those of this rule, by its whole text.
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Only those of this direction.
    #[arg(long, value_enum)]
    direction: Option<Direction>,
}

impl FilterArgs {
    fn filter(&self) -> Filter {
        Filter {
            rule: self.rule.clone(),
            direction: self.direction,
            ..Filter::default()
        }
    }
}

fn check_id(text: &str) -> Result<String, String> {
    match parse_id(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("must be two numbers such as 3-17, as `list` shows them".to_owned()),
    }
}

pub(crate) fn run(args: &DeadLetterArgs) -> anyhow::Result<ExitCode> {
    let spool_dir = &args.spool_dir;
    if !spool_dir.is_dir() {
        bail!(
            "there is no spool {}; name the right one with --spool-dir",
            spool_dir.display()
        );
    }
    let dir = spool_dir.join(FOLDER);
    match &args.command {
        DeadLetterCommand::List(args) => list::run(&dir, args),
        DeadLetterCommand::Show(args) => show::run(&dir, args),
        DeadLetterCommand::Replay(args) => replay::run(spool_dir, &dir, args),
        DeadLetterCommand::Purge(args) => purge::run(&dir, args),
    }
}

/// A moment of the command line.
fn moment(option: &str, text: Option<&String>) -> anyhow::Result<Option<u64>> {
    let Some(text) = text else {
        return Ok(None);
    };
    match time::parse(text, unix_ms()) {
        Ok(ms) => Ok(Some(ms)),
        Err(error) => bail!("{option} {text:?}: {error}"),
    }
}

/// An error of the files, with where they are.
fn in_dir(dir: &Path, error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "{}: not permitted; run this as Mosquitto's user or as root",
            dir.display()
        ),
        _ => anyhow::anyhow!("dead letters in {}: {error}", dir.display()),
    }
}
