//! The fault ledger: what becomes of messages when something fails, measured rather than claimed.
//!
//! For each [`fault::Fault`] there is one run ([`engine`]): a real Mosquitto with the plugin, its sidecar, and a real RocketMQ,
//! under [`load`] in both directions. While the load goes on, the fault happens ([`run::Run`] is what it works with). Then
//! everything gets time to arrive, is [counted](count) by the numbers in the payloads (up by RocketMQ's own Java client, down
//! by MQTT clients that aren't ours), and is [judged](verdict). Each direction is a [`row::Row`].
//!
//! To add a fault: a file under `faults/`, a [`fault::Fault`] in it, and a line in [`faults::ALL`]. Its `plan` says which RocketMQ
//! and which options; its `inject` is called once load has flowed, and does it: `run.begins()`, the fault, the repair,
//! `run.ends()` (or `run.ends_when_rocketmq_answers()`), which starts the clock of `recovery_s`. It may wait by
//! `run.flow()` and `run.flow_up(count)`, reach the processes through `run.broker` and `run.own_rocketmq()`, and leave a remark by
//! `run.note(…)`. A RocketMQ of another kind is a [`fault::Backbone`], made by the plan's [`fault::RocketMq::Made`] and reached by
//! `run.backbone::<ThatType>()`.
//!
//! It is no part of the product, shares no code with it, and sees built artifacts only, which the environment names:
//! `scripts/faults` sets it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a run can't do fails its rows"
)]
#![allow(unreachable_pub, reason = "a binary: nothing is reached from outside")]
#![deny(unsafe_code)]

mod count;
mod engine;
mod fault;
mod faults;
mod identity;
mod load;
mod memory;
mod mqtt;
mod random;
mod row;
mod run;
mod schedule;
mod self_test;
mod soak;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::engine::Grounds;
use crate::fault::Fault;

/// What `scripts/faults` hands on.
#[derive(Debug, Parser)]
#[command(
    name = "faults",
    about = "Runs faults under load, and counts what became of each message"
)]
struct Arguments {
    /// Lists the faults.
    #[arg(long)]
    list: bool,
    /// Only this fault; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only the short ledger.
    #[arg(long)]
    quick: bool,
    /// How many faults run side by side. With 1, missed goals fail.
    #[arg(long, default_value_t = 3, value_name = "N")]
    jobs: usize,
    /// Tries the ledger itself on a sidecar that loses messages on purpose.
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    self_test: bool,
    /// Runs a soak of this many minutes in the place of the ledger.
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["only", "quick", "self_test"])]
    soak: Option<u64>,
    /// Writes the rows as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the rows of the whole ledger as Markdown, between the markers of the file where there are some.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "quick", "soak", "self_test"])]
    md: Option<PathBuf>,
    /// Copies Mosquitto's log of each fault that failed into this folder.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Writes what memory the processes had, each second of the faults that look at it, into this folder.
    #[arg(long, value_name = "DIR")]
    rss: Option<PathBuf>,
    /// The line above the Markdown table: date and versions.
    #[arg(long, default_value = "", hide = true)]
    made: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for fault in faults::ALL {
            let quick = if fault.quick { "quick" } else { "" };
            println!("{:<24} {quick:<6} {}", fault.name, fault.about);
        }
        return ExitCode::SUCCESS;
    }
    if arguments.self_test {
        return if self_test::run(&Grounds::new(arguments.logs, false)) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    match ledger(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("faults: error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn wanted(arguments: &Arguments) -> Result<Vec<&'static Fault>, String> {
    for name in &arguments.only {
        if !faults::ALL.iter().any(|fault| fault.name == name) {
            return Err(format!("--only {name}: no such fault; see --list"));
        }
    }
    let is_wanted = |fault: &&'static Fault| {
        if arguments.only.is_empty() {
            !arguments.quick || fault.quick
        } else {
            arguments.only.iter().any(|name| name == fault.name)
        }
    };
    Ok(faults::ALL.iter().copied().filter(is_wanted).collect())
}

fn ledger(arguments: &Arguments) -> Result<bool, String> {
    if let Some(dir) = &arguments.rss {
        memory::write_into(dir).map_err(|problem| format!("{}: {problem}", dir.display()))?;
    }
    let started = Instant::now();
    let grounds = Grounds::new(arguments.logs.clone(), arguments.jobs == 1);
    let rows = match arguments.soak {
        Some(minutes) => soak::run(Duration::from_secs(minutes * 60), &grounds),
        None => schedule::run_all(&wanted(arguments)?, arguments.jobs.max(1), grounds),
    };
    println!("{}", row::table(&rows));
    for row in rows.iter().filter(|row| !row.notes.is_empty()) {
        println!(
            "{}, {}: {}",
            row.fault,
            row.direction.name(),
            row.notes.join("; ")
        );
    }
    if let Some(path) = &arguments.json {
        let text = row::json(&rows).map_err(|problem| problem.to_string())?;
        std::fs::write(path, text).map_err(|problem| format!("{}: {problem}", path.display()))?;
    }
    if let Some(path) = &arguments.md {
        let document = std::fs::read_to_string(path).unwrap_or_default();
        let text = row::insert(&document, &row::markdown(&rows, &arguments.made))
            .map_err(|problem| format!("{}: {problem}", path.display()))?;
        std::fs::write(path, text).map_err(|problem| format!("{}: {problem}", path.display()))?;
    }
    let failed = rows.iter().filter(|row| !row.passed).count();
    let lost: usize = rows.iter().map(|row| row.lost).sum();
    println!(
        "{} rows, {failed} failed, {lost} messages lost, {} s",
        rows.len(),
        started.elapsed().as_secs()
    );
    Ok(failed == 0 && !rows.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_holds_the_whole_ledger_or_none() {
        let parsed = |more: &[&str]| {
            let arguments = ["faults", "--md", "x.md"]
                .into_iter()
                .chain(more.iter().copied());
            Arguments::try_parse_from(arguments)
        };
        assert!(parsed(&[]).is_ok() && parsed(&["--jobs", "1"]).is_ok());
        for part in [
            &["--quick"][..],
            &["--only", "kill-both"],
            &["--soak", "1"],
            &["--self-test"],
        ] {
            assert!(parsed(part).is_err(), "{part:?}");
        }
    }
}
