//! `mosquitto-rocketmq dead-letter show`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use super::list::one_line;
use super::{ShowArgs, in_dir};
use crate::cli::time;
use crate::dead_letter::{Letter, find};

pub(super) fn run(dir: &Path, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let found = find(dir, std::slice::from_ref(&args.id)).map_err(|error| in_dir(dir, &error))?;
    let Some(letter) = found.first() else {
        bail!("there is no dead letter {} (any more)", args.id);
    };
    let out = if args.json {
        (serde_json::to_string_pretty(letter)? + "\n").into_bytes()
    } else if args.payload {
        letter.payload().map_err(anyhow::Error::msg)?
    } else {
        render(letter).into_bytes()
    };
    std::io::stdout().write_all(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn render(letter: &Letter) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing into a string can't fail.
            let _ = writeln!(out, "{name:<15} {}", one_line(value));
        }
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    line("id", &letter.id);
    line("time", &time::format(letter.time_ms));
    line("direction", letter.direction.as_str());
    line("rule", &letter.rule);
    line("reason", &letter.reason);
    line("topic", &text(&letter.topic));
    line("client id", &text(&letter.client_id));
    line("rocketmq topic", &text(&letter.rocketmq_topic));
    line("tag", &text(&letter.tag));
    line("keys", &text(&letter.keys));
    line("position", &letter.position);
    line("message id", &text(&letter.message_id));
    for (name, value) in letter.properties.iter().flatten() {
        line("property", &format!("{name}={value}"));
    }
    match letter.payload() {
        Ok(payload) => {
            line("payload", &format!("{} bytes", payload.len()));
            out.push_str(&body(&payload));
        }
        Err(error) => line("payload", &error),
    }
    out
}

/// As text where it is text, else in hexadecimal.
fn body(payload: &[u8]) -> String {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    match std::str::from_utf8(payload) {
        Ok("") => String::new(),
        Ok(text) if text.chars().all(is_plain) => format!("\n{}\n", text.trim_end_matches('\n')),
        _ => hex(payload),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::from("\n");
    for (index, row) in bytes.chunks(16).enumerate() {
        // Writing into a string can't fail.
        let _ = write!(out, "{:08x} ", index * 16);
        for byte in row {
            let _ = write!(out, " {byte:02x}");
        }
        let text: String = row
            .iter()
            .map(|byte| {
                if byte.is_ascii_graphic() || *byte == b' ' {
                    char::from(*byte)
                } else {
                    '.'
                }
            })
            .collect();
        let _ = writeln!(out, "{}  |{text}|", "   ".repeat(16 - row.len()));
    }
    out
}
