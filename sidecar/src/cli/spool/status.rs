//! `mosquitto-rocketmq spool status`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use handoff::ReadError;
use protocol::message::{Message, UplinkFrame};
use serde::Serialize;

use super::{DIRECTIONS, StatusArgs, open};
use crate::cli::text::{bytes, duration};
use crate::cli::time;
use crate::dead_letter::Direction;
use crate::metrics::unix_ms;

/// A log. The names are stable.
#[derive(Debug, Default, Serialize)]
pub(super) struct LogStatus {
    pub(super) direction: Direction,
    path: String,
    /// Unix milliseconds at which it was made.
    epoch: u64,
    segments: usize,
    segment_bytes: u64,
    used_bytes: u64,
    /// Nothing when the configuration is not there.
    bytes_max: Option<u64>,
    released: u64,
    end: u64,
    waiting_bytes: u64,
    pub(super) waiting_messages: u64,
    /// When the oldest waiting message came, Unix milliseconds.
    pub(super) oldest_ms: Option<u64>,
    /// Damaged stretches among what waits.
    pub(super) damaged: Vec<Damage>,
}

/// A stretch that is no good frame.
#[derive(Debug, Serialize)]
pub(super) struct Damage {
    from: u64,
    to: u64,
    reason: String,
}

pub(super) fn run(spool_dir: &Path, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let mut logs = Vec::new();
    for direction in DIRECTIONS {
        logs.extend(look(spool_dir, direction)?);
    }
    let text = if args.json {
        serde_json::to_string_pretty(&logs)? + "\n"
    } else {
        render(spool_dir, &logs)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn look(spool_dir: &Path, direction: Direction) -> anyhow::Result<Option<LogStatus>> {
    let Some(mut peek) = open(spool_dir, direction)? else {
        return Ok(None);
    };
    let config = crate::app::read_config(spool_dir).ok();
    let path = spool_dir.join(direction.as_str());
    let mut status = LogStatus {
        direction,
        path: path.display().to_string(),
        epoch: peek.epoch(),
        segments: peek.segments(),
        segment_bytes: peek.segment_bytes(),
        used_bytes: peek.segments() as u64 * peek.segment_bytes(),
        bytes_max: config.map(|config| match direction {
            Direction::Uplink => config.spool_bytes_max,
            Direction::Downlink => config.downlink_bytes_max,
        }),
        released: peek.released(),
        end: peek.end(),
        waiting_bytes: peek.end() - peek.released(),
        ..LogStatus::default()
    };
    loop {
        match peek.poll() {
            Ok(None) => return Ok(Some(status)),
            Ok(Some(frame)) => {
                status.waiting_messages += 1;
                if status.oldest_ms.is_none() {
                    status.oldest_ms = time_of(frame.payload);
                }
            }
            Err(ReadError::Corrupt {
                from, to, reason, ..
            }) => {
                status.damaged.push(Damage { from, to, reason });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn time_of(frame: &[u8]) -> Option<u64> {
    match UplinkFrame::decode(frame).ok()? {
        UplinkFrame::Message(Message { received_at_ms, .. }) => Some(received_at_ms),
        UplinkFrame::Returned(returned) => Some(returned.returned_at_ms),
    }
}

fn render(spool_dir: &Path, logs: &[LogStatus]) -> String {
    if logs.is_empty() {
        return format!("no log in {} yet\n", spool_dir.display());
    }
    let mut out = String::new();
    for log in logs {
        let mut line = |name: &str, value: String| {
            // Writing into a string can't fail.
            let _ = writeln!(out, "{name:<14} {value}");
        };
        line(log.direction.as_str(), log.path.clone());
        line("  made", time::format(log.epoch));
        let max = log
            .bytes_max
            .map_or_else(String::new, |max| format!(" of {}", bytes(max)));
        let used = bytes(log.used_bytes);
        line(
            "  on the disk",
            format!("{used}{max} in {} segments", log.segments),
        );
        let waiting = bytes(log.waiting_bytes);
        line(
            "  waiting",
            format!("{} messages, {waiting}", log.waiting_messages),
        );
        if let Some(oldest) = log.oldest_ms {
            let age = duration(unix_ms().saturating_sub(oldest) / 1000);
            line("  oldest", format!("{} ({age} ago)", time::format(oldest)));
        }
        line(
            "  positions",
            format!("released {}, end {}", log.released, log.end),
        );
        for damage in &log.damaged {
            let text = format!("from {} to {}: {}", damage.from, damage.to, damage.reason);
            line("  DAMAGED", text);
        }
    }
    out
}
