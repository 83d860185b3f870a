//! `mosquitto-rocketmq dead-letter list`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::{ListArgs, in_dir, moment};
use crate::cli::time;
use crate::dead_letter::{Direction, Filter, Letter, each};

/// A letter without its message. The names are stable.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    time_ms: u64,
    direction: Direction,
    rule: String,
    topic: Option<String>,
    client_id: Option<String>,
    rocketmq_topic: Option<String>,
    position: String,
    /// Of the payload.
    bytes: usize,
    reason: String,
}

impl Row {
    fn of(letter: Letter) -> Row {
        let bytes = letter.payload().map_or(0, |payload| payload.len());
        Row {
            id: letter.id,
            time_ms: letter.time_ms,
            direction: letter.direction,
            rule: letter.rule,
            topic: letter.topic,
            client_id: letter.client_id,
            rocketmq_topic: letter.rocketmq_topic,
            position: letter.position,
            bytes,
            reason: letter.reason,
        }
    }
}

pub(super) fn run(dir: &Path, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let filter = Filter {
        since_ms: moment("--since", args.since.as_ref())?,
        ..args.filter.filter()
    };
    let limit = args.limit.unwrap_or(usize::MAX);
    let mut rows = VecDeque::new();
    let damaged = each(dir, |letter| {
        if filter.wants(&letter) && limit > 0 {
            if rows.len() == limit {
                rows.pop_front();
            }
            rows.push_back(Row::of(letter));
        }
        Ok(true)
    })
    .map_err(|error| in_dir(dir, &error))?;
    let text = if args.json {
        serde_json::to_string_pretty(&rows)? + "\n"
    } else {
        table(rows.make_contiguous())
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if damaged > 0 {
        let text = format!("{damaged} lines of the files can't be read as letters\n");
        std::io::stderr().write_all(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let head = [
        "ID",
        "TIME",
        "DIRECTION",
        "RULE",
        "TOPIC",
        "CLIENT",
        "BYTES",
        "REASON",
    ];
    let cells = rows.iter().map(|row| {
        // A message from RocketMQ that has no MQTT topic yet is known by the one it came from.
        let topic = row.topic.as_ref().or(row.rocketmq_topic.as_ref());
        [
            row.id.clone(),
            time::format(row.time_ms),
            row.direction.as_str().to_owned(),
            or_dash(Some(&row.rule)),
            or_dash(topic),
            or_dash(row.client_id.as_ref()),
            row.bytes.to_string(),
            one_line(&row.reason),
        ]
    });
    let lines: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(cells)
        .collect();
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            // Writing into a string can't fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

fn or_dash(text: Option<&String>) -> String {
    match text {
        Some(text) if !text.is_empty() => one_line(text),
        _ => "-".to_owned(),
    }
}

/// Others have written it: no control characters reach the terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}
