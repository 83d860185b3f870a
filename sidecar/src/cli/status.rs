//! `mosquitto-rocketmq status`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::StatusArgs;
use super::http;
use super::text::{bytes, duration};
use crate::metrics::unix_ms;
use crate::status::report::{Log, Report};
use crate::status::spool;

/// Name of the socket in the spool.
use crate::status::SOCKET;

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let (report, problem) = match ask(&args.spool_dir) {
        Ok(report) => (report, None),
        Err(problem) => (from_files(&args.spool_dir), Some(problem)),
    };
    let text = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        render(&report)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(match problem {
        None => ExitCode::SUCCESS,
        Some(problem) => {
            std::io::stderr().write_all(format!("{problem}\n").as_bytes())?;
            ExitCode::FAILURE
        }
    })
}

/// The running sidecar's report, or why there is none.
fn ask(spool_dir: &Path) -> Result<Report, String> {
    let socket = spool_dir.join(SOCKET);
    let no_sidecar = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "{}: not permitted; run this as Mosquitto's user or as root",
                socket.display()
            )
        }
        std::io::ErrorKind::NotFound if !spool_dir.exists() => {
            format!(
                "there is no spool {}; name the right one with --spool-dir",
                spool_dir.display()
            )
        }
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!(
                "no sidecar runs on {}: is Mosquitto running with the plugin? Its log says why not",
                spool_dir.display()
            )
        }
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            format!(
                "the sidecar on {} does not answer: it hangs or the machine is overloaded",
                spool_dir.display()
            )
        }
        _ => format!("{}: {error}", socket.display()),
    };
    let (code, body) = http::get(&socket, "/v1/status").map_err(no_sidecar)?;
    if code != 200 {
        return Err(format!("the sidecar answered with code {code}"));
    }
    serde_json::from_str(&body)
        .map_err(|error| format!("the sidecar is of another version: {error}"))
}

fn from_files(spool_dir: &Path) -> Report {
    let config = crate::app::read_config(spool_dir).ok();
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Report::default()
    };
    if let Some(config) = &config {
        report.node_id.clone_from(&config.node_id);
        report.rocketmq.namesrv.clone_from(&config.namesrv);
        report.rocketmq.group.clone_from(&config.group);
    }
    spool::fill(&mut report, spool_dir, config.as_ref());
    report
}

fn render(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing into a string can't fail.
        let _ = writeln!(out, "{name:<14} {value}");
    };
    line(
        "node",
        if report.node_id.is_empty() {
            "unknown".to_owned()
        } else {
            report.node_id.clone()
        },
    );
    line(
        "sidecar",
        match (report.sidecar_running, report.uptime_s) {
            (true, uptime) => format!(
                "{}, process {}, up {}",
                report.version,
                report.pid.unwrap_or(0),
                duration(uptime.unwrap_or(0))
            ),
            (false, _) => "not running".to_owned(),
        },
    );
    line(
        "mosquitto",
        format!(
            "{}, woken by {}",
            report.broker_version.as_deref().unwrap_or("not seen yet"),
            report.wake
        ),
    );
    line("rocketmq", connection(report));
    line(
        "uplink log",
        log(report.uplink.log) + &waiting(report.uplink.waiting_messages),
    );
    line("downlink log", log(report.downlink.log));
    if report.sidecar_running {
        let behind = report
            .downlink
            .waiting_in_rocketmq
            .map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        line(
            "in rocketmq",
            format!("{behind} messages wait for this node"),
        );
    }
    if report.uplink.corrupt_frames + report.uplink.unroutable > 0 {
        let (corrupt, unroutable) = (report.uplink.corrupt_frames, report.uplink.unroutable);
        line(
            "damage",
            format!(
                "{corrupt} corrupted stretches of the uplink log, {unroutable} frames without a rule"
            ),
        );
    }
    for rule in &report.uplink.rules {
        let c = &rule.counters;
        let _ = writeln!(
            out,
            "\nuplink {}\n  {:.1}/s, {} sent ({}), {} taken, {} batches retried, {} dead letters",
            c.rule,
            rule.per_second,
            c.sent,
            bytes(c.bytes),
            c.matched,
            c.retries,
            c.dead
        );
    }
    for rule in &report.downlink.rules {
        let c = &rule.counters;
        let _ = writeln!(
            out,
            "\ndownlink {}\n  {:.1}/s, {} handed over ({}), {} received, {} own, {} expired, {} warnings, {} dead letters",
            c.rule,
            rule.per_second,
            c.handed_over,
            bytes(c.bytes),
            c.received,
            c.own,
            c.expired,
            c.warnings,
            c.dead
        );
    }
    if let Some(plugin) = &report.plugin {
        let counters: Vec<_> = plugin
            .iter()
            .map(|(name, value)| format!("  {name} {value}"))
            .collect();
        let _ = writeln!(out, "\nplugin\n{}", counters.join("\n"));
    }
    out
}

fn connection(report: &Report) -> String {
    let state = &report.rocketmq.connection;
    let servers = report.rocketmq.namesrv.join(";");
    let since = duration(unix_ms().saturating_sub(state.since_ms) / 1000);
    match (state.connected, state.since_ms, &state.last_error) {
        (true, _, None) => format!("{servers} connected for {since}"),
        (true, _, Some(error)) => {
            let ago = duration(unix_ms().saturating_sub(state.last_error_ms.unwrap_or(0)) / 1000);
            format!("{servers} connected for {since} (last error {ago} ago: {error})")
        }
        (false, 0, _) if servers.is_empty() => "unknown".to_owned(),
        (false, 0, _) => format!("{servers} not asked yet"),
        (false, _, error) => format!(
            "{servers} AWAY for {since}: {}",
            error.as_deref().unwrap_or("unknown")
        ),
    }
}

fn log(log: Option<Log>) -> String {
    log.map_or_else(
        || "not there yet".to_owned(),
        |log| {
            let bound = if log.bytes_max == 0 {
                String::new()
            } else {
                format!(" of {}", bytes(log.bytes_max))
            };
            format!(
                "{} wait, {}{bound} on the disk (released {}, end {})",
                bytes(log.waiting_bytes),
                bytes(log.used_bytes),
                log.released,
                log.end
            )
        },
    )
}

fn waiting(messages: Option<u64>) -> String {
    messages.map_or_else(String::new, |count| format!(", about {count} messages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_sidecar_the_files_are_shown_and_the_exit_code_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer =
            handoff::Writer::open(&dir.path().join("uplink"), &handoff::LogOptions::default())
                .unwrap();
        writer.append(b"waiting").unwrap();
        std::fs::write(
            dir.path().join("options.conf"),
            "namesrv 127.0.0.1:1\nnode_id edge-9\nuplink a A\n",
        )
        .unwrap();
        let problem = ask(dir.path()).unwrap_err();
        assert!(problem.starts_with("no sidecar runs"), "{problem}");
        let report = from_files(dir.path());
        assert!(!report.sidecar_running);
        assert_eq!(report.node_id, "edge-9");
        assert_eq!(report.uplink.log.unwrap().waiting_bytes, writer.end());
        let text = render(&report);
        assert!(
            text.contains("not running") && text.contains("edge-9"),
            "{text}"
        );
        let args = StatusArgs {
            spool_dir: dir.path().into(),
            json: true,
        };
        assert_eq!(
            format!("{:?}", run(&args).unwrap()),
            format!("{:?}", ExitCode::FAILURE)
        );
    }

    #[test]
    fn a_wrong_spool_directory_is_named() {
        let problem = ask(Path::new("/nonexistent/spool")).unwrap_err();
        assert!(
            problem.contains("/nonexistent/spool") && problem.contains("--spool-dir"),
            "{problem}"
        );
    }

    #[test]
    fn an_outage_is_shown_with_its_reason() {
        let mut report = Report {
            sidecar_running: true,
            ..Report::default()
        };
        report.rocketmq.namesrv = vec!["h:1".into()];
        assert_eq!(connection(&report), "h:1 not asked yet");
        report.rocketmq.connection.since_ms = 1;
        report.rocketmq.connection.last_error = Some("refused".into());
        assert!(connection(&report).contains("AWAY") && connection(&report).contains("refused"));
        report.rocketmq.connection.connected = true;
        assert!(connection(&report).contains("connected for"));
    }
}
