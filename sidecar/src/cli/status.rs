//! `mosquitto-rocketmq status`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde::de::DeserializeOwned;

use super::StatusArgs;
use super::http;
use super::text::{bytes, duration};
use crate::health::{Health, Process, Reason, State, holder, spool_high, waiting, what};
use crate::metrics::{Metrics, unix_ms};
use crate::status::report::{Log, Report};
use crate::status::{self, SOCKET, spool};

/// Exit codes of `--check`; 0 is well.
const DEGRADED: u8 = 1;
const NOT_REACHED: u8 = 2;

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let (report, problem) = match ask(&args.spool_dir) {
        Ok(report) => (report, None),
        Err(problem) => (from_files(&args.spool_dir), Some(problem)),
    };
    let text = match (args.json, args.check) {
        (true, false) => serde_json::to_string_pretty(&report)? + "\n",
        (true, true) => serde_json::to_string_pretty(&report.health)? + "\n",
        (false, true) => health(&report.health, unix_ms()) + "\n",
        (false, false) => render(&report),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(problem) = &problem {
        std::io::stderr().write_all(format!("{problem}\n").as_bytes())?;
    }
    Ok(match (args.check, problem, report.health.state) {
        (false, None, _) | (true, None, State::Ok) => ExitCode::SUCCESS,
        (false, Some(_), _) => ExitCode::FAILURE,
        (true, None, State::Degraded) => ExitCode::from(DEGRADED),
        (true, Some(_), _) => ExitCode::from(NOT_REACHED),
    })
}

/// The running sidecar's report, or why there is none.
pub(super) fn ask(spool_dir: &Path) -> Result<Report, String> {
    get(spool_dir, "/v1/status")
}

/// What the running sidecar answers, or why it doesn't.
pub(super) fn get<T: DeserializeOwned>(spool_dir: &Path, path: &str) -> Result<T, String> {
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
    let (code, body) = http::get(&socket, path).map_err(no_sidecar)?;
    if code == 404 && !body.trim().is_empty() {
        return Err(body.trim().to_owned());
    }
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
    if let Some(metrics) = Metrics::look(spool_dir) {
        let rates = status::Rates::default();
        status::fill_rules(&mut report, metrics.snapshot(), config.as_ref(), &rates);
    }
    report.health = judge(spool_dir, &report);
    report
}

/// What the files tell of the health of a node whose sidecar does not answer.
fn judge(spool_dir: &Path, report: &Report) -> Health {
    let beat = Metrics::last_beat(spool_dir);
    let silent = match holder(&spool_dir.join("uplink"), "reader") {
        Process::Gone => Reason::new(what::SIDECAR_AWAY, beat, "no sidecar runs on this spool"),
        Process::Running(pid) | Process::Stopped(pid) => Reason::new(
            what::SIDECAR_HANGS,
            beat,
            format!("the sidecar (process {pid}) does not answer"),
        ),
    };
    let mut reasons = vec![silent];
    let log = report.uplink.log.unwrap_or_default();
    if log.waiting_bytes > 0 {
        let detail = format!("{} wait for the sidecar", waiting(Some(log)));
        reasons.push(Reason::new(what::UPLINK_STALLED, beat, detail));
    }
    reasons.extend(spool_high(log).map(|detail| Reason::new(what::SPOOL_HIGH, 0, detail)));
    reasons.extend(status::mosquitto(spool_dir));
    Health {
        state: State::Degraded,
        since_ms: beat,
        reasons,
    }
}

/// One line for the state, and one for each reason.
fn health(health: &Health, now_ms: u64) -> String {
    let since = |since_ms: u64| match since_ms {
        0 => "for an unknown time".to_owned(),
        since_ms => format!("for {}", duration(now_ms.saturating_sub(since_ms) / 1000)),
    };
    let mut out = match health.state {
        State::Ok => format!("ok {}", since(health.since_ms)),
        State::Degraded => format!("DEGRADED {}", since(health.since_ms)),
    };
    for reason in &health.reasons {
        // Writing into a string can't fail.
        let _ = write!(
            out,
            "\n  {} {}: {}",
            reason.what,
            since(reason.since_ms),
            reason.detail
        );
    }
    out
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
    line("health", health(&report.health, unix_ms()));
    line(
        "sidecar",
        match (report.sidecar_running, report.uptime_s) {
            (true, uptime) => format!(
                "{}, process {}, up {}",
                report.version,
                report.pid.unwrap_or(0),
                duration(uptime.unwrap_or(0))
            ),
            (false, _) => "does not answer".to_owned(),
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
    line("uplink log", log(report.uplink.log));
    line("downlink log", log(report.downlink.log));
    if let Some(cluster) = &report.cluster {
        line("cluster", super::cluster::summary(cluster));
    }
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
    let up = &report.uplink;
    if up.corrupt_frames + up.repaired_frames + up.unroutable > 0 {
        let (corrupt, mended, unroutable) = (up.corrupt_frames, up.repaired_frames, up.unroutable);
        line(
            "damage",
            format!(
                "{corrupt} corrupted stretches of the uplink log, {mended} mended frames, {unroutable} frames without a rule"
            ),
        );
    }
    for rule in &report.uplink.rules {
        let c = &rule.counters;
        let _ = writeln!(
            out,
            "\nuplink {}\n  {:.1}/s, {} sent ({}), {} taken, {} batches retried, {} stored with reservations, {} dead letters",
            c.rule,
            rule.per_second,
            c.sent,
            bytes(c.bytes),
            c.matched,
            c.retries,
            c.reserved,
            c.dead
        );
    }
    for rule in &report.downlink.rules {
        let c = &rule.counters;
        let _ = writeln!(
            out,
            "\ndownlink {}\n  {:.1}/s, {} handed over ({}), {} received, {} own, {} expired, {} duplicates, {} warnings, {} dead letters",
            c.rule,
            rule.per_second,
            c.handed_over,
            bytes(c.bytes),
            c.received,
            c.own,
            c.expired,
            c.duplicates,
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
            let waiting = log.waiting_messages.map_or_else(
                || "an unknown number of messages".to_owned(),
                |count| format!("{count} messages"),
            );
            format!(
                "{waiting} ({}) wait, {}{bound} on the disk (released {}, end {})",
                bytes(log.waiting_bytes),
                bytes(log.used_bytes),
                log.released,
                log.end
            )
        },
    )
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
        assert_eq!(report.uplink.waiting_messages, Some(1));
        assert_eq!(report.health.state, State::Degraded);
        let reasons: Vec<_> = report.health.reasons.iter().map(|r| &r.what).collect();
        assert_eq!(reasons, [what::SIDECAR_AWAY, what::UPLINK_STALLED]);
        let text = render(&report);
        assert!(
            text.contains("does not answer") && text.contains("edge-9"),
            "{text}"
        );
        for (check, code) in [(false, ExitCode::FAILURE), (true, ExitCode::from(2))] {
            let args = StatusArgs {
                spool_dir: dir.path().into(),
                json: true,
                check,
            };
            let found = run(&args).unwrap();
            assert_eq!(format!("{found:?}"), format!("{code:?}"));
        }
    }

    #[test]
    fn a_sidecar_that_does_not_answer_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        // It has the socket and takes nothing from it.
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        std::fs::create_dir(dir.path().join("uplink")).unwrap();
        let us = std::process::id();
        std::fs::write(dir.path().join("uplink/reader.lock"), format!("{us}\n")).unwrap();
        let metrics = Metrics::open(dir.path()).unwrap();
        metrics.beat();
        let problem = ask(dir.path()).unwrap_err();
        assert!(problem.contains("does not answer"), "{problem}");
        let health = from_files(dir.path()).health;
        let reason = &health.reasons[0];
        assert_eq!(reason.what, what::SIDECAR_HANGS);
        assert!(reason.detail.contains(&us.to_string()));
        assert!(reason.since_ms > 0 && health.since_ms == reason.since_ms);
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
