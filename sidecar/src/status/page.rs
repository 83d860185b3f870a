//! The status as a page for people: one self-contained HTML document that loads itself again every 2 s.

use std::fmt::Write as _;

use super::report::{Log, Report};
use crate::cli::text::{bytes, duration};
use crate::health::State;
use crate::metrics::unix_ms;

const HEAD: &str = r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width"><title>mosquitto-rocketmq</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;width:100%;margin:.5em 0 2em}th,td{padding:.3em .7em;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}td:first-child{font-family:ui-monospace,monospace;overflow-wrap:anywhere}
.good{color:#176f2c}.bad{color:#b00020;font-weight:600}h1{font-size:1.4em}h2{font-size:1.1em}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}.good{color:#6fd08c}.bad{color:#ff7b8a}}
</style></head><body>"#;

/// The page.
pub(crate) fn render(report: &Report) -> String {
    let mut out = String::from(HEAD);
    // Writing into a string can't fail.
    let _ = write!(
        out,
        "<h1>{}</h1>{}",
        escape(&report.node_id),
        summary(report)
    );
    let up = report.uplink.rules.iter().map(|rule| {
        let c = &rule.counters;
        (
            c.rule.clone(),
            vec![
                rate(rule.per_second),
                n(c.matched),
                n(c.sent),
                bytes(c.bytes),
                n(c.retries),
                alarm(c.dead),
            ],
        )
    });
    table(
        &mut out,
        "Uplink: device → RocketMQ",
        &[
            "rule",
            "per s",
            "taken",
            "sent",
            "payload",
            "retries",
            "dead letters",
        ],
        up,
    );
    let down = report.downlink.rules.iter().map(|rule| {
        let c = &rule.counters;
        let cells = vec![
            rate(rule.per_second),
            n(c.received),
            n(c.handed_over),
            bytes(c.bytes),
            n(c.own),
            n(c.expired),
            n(c.duplicates),
            n(c.warnings),
            alarm(c.dead),
        ];
        (c.rule.clone(), cells)
    });
    let head = [
        "rule",
        "per s",
        "received",
        "handed over",
        "payload",
        "own",
        "expired",
        "duplicates",
        "warnings",
        "dead letters",
    ];
    table(&mut out, "Downlink: RocketMQ → device", &head, down);
    if let Some(plugin) = &report.plugin {
        table(
            &mut out,
            "Plugin",
            &["counter", "value"],
            plugin
                .iter()
                .map(|(name, value)| (name.clone(), vec![n(*value)])),
        );
    }
    out.push_str("<p><a href=\"/v1/status\">as JSON</a></p></body></html>");
    out
}

fn summary(report: &Report) -> String {
    let connection = &report.rocketmq.connection;
    let since = duration(unix_ms().saturating_sub(connection.since_ms) / 1000);
    let state = match (
        connection.connected,
        connection.since_ms,
        &connection.last_error,
    ) {
        (true, ..) => format!("<span class=\"good\">connected</span> for {since}"),
        (false, 0, _) => "not asked yet".to_owned(),
        (false, _, error) => {
            format!(
                "<span class=\"bad\">away</span> for {since}: {}",
                escape(error.as_deref().unwrap_or("unknown"))
            )
        }
    };
    let behind = report
        .downlink
        .waiting_in_rocketmq
        .map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let rows = [
        ("Health", health(report)),
        ("RocketMQ", state),
        ("Name servers", escape(&report.rocketmq.namesrv.join(" "))),
        ("Spool (uplink log)", log(report.uplink.log)),
        ("Downlink log", log(report.downlink.log)),
        ("Waiting in RocketMQ", behind),
        (
            "Mosquitto",
            format!(
                "{}, woken by {}",
                report.broker_version.as_deref().unwrap_or("not seen yet"),
                report.wake
            ),
        ),
        (
            "Sidecar",
            format!(
                "{}, up {}",
                report.version,
                duration(report.uptime_s.unwrap_or(0))
            ),
        ),
    ];
    let cluster = report.cluster.as_ref().map(|cluster| {
        let text = escape(&crate::cli::cluster::summary(cluster));
        ("Cluster", text)
    });
    let rows = rows
        .iter()
        .chain(&cluster)
        .fold(String::new(), |out, (name, value)| {
            out + &format!("<tr><td>{name}</td><td>{value}</td></tr>")
        });
    format!("<table>{rows}</table>")
}

fn health(report: &Report) -> String {
    let now_ms = unix_ms();
    let since = |since_ms: u64| duration(now_ms.saturating_sub(since_ms) / 1000);
    let health = &report.health;
    let state = match health.state {
        State::Ok => "<span class=\"good\">ok</span>",
        State::Degraded => "<span class=\"bad\">degraded</span>",
    };
    let mut out = format!("{state} for {}", since(health.since_ms));
    for reason in &health.reasons {
        let _ = write!(
            out,
            "<br>{} for {}: {}",
            escape(&reason.what),
            since(reason.since_ms),
            escape(&reason.detail)
        );
    }
    out
}

fn log(log: Option<Log>) -> String {
    log.map_or_else(
        || "not there yet".to_owned(),
        |log| {
            let messages = log
                .waiting_messages
                .map_or_else(|| "?".to_owned(), |count| count.to_string());
            format!(
                "{messages} messages, {} waiting; {} of {} on the disk",
                bytes(log.waiting_bytes),
                bytes(log.used_bytes),
                bytes(log.bytes_max)
            )
        },
    )
}

/// Cells are HTML already; the first column is escaped here.
fn table(
    out: &mut String,
    title: &str,
    head: &[&str],
    rows: impl Iterator<Item = (String, Vec<String>)>,
) {
    let head: String = head.iter().map(|name| format!("<th>{name}</th>")).collect();
    let _ = write!(out, "<h2>{title}</h2><table><tr>{head}</tr>");
    for (name, cells) in rows {
        let cells: String = cells
            .iter()
            .map(|cell| format!("<td>{cell}</td>"))
            .collect();
        let _ = write!(out, "<tr><td>{}</td>{cells}</tr>", escape(&name));
    }
    out.push_str("</table>");
}

fn n(value: u64) -> String {
    value.to_string()
}

fn rate(value: f64) -> String {
    format!("{value:.1}")
}

fn alarm(value: u64) -> String {
    if value == 0 {
        n(value)
    } else {
        format!("<span class=\"bad\">{value}</span>")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::UpRule;

    #[test]
    fn nothing_that_others_wrote_becomes_markup() {
        let mut report = Report {
            node_id: "<b>".into(),
            ..Report::default()
        };
        let mut rule = UpRule::default();
        rule.counters.rule = "a/<script> T".into();
        rule.counters.dead = 3;
        report.uplink.rules.push(rule);
        report.health.reasons = vec![crate::health::Reason::new("<u>", 1, "<u>why")];
        report.rocketmq.connection.since_ms = 1;
        report.rocketmq.connection.last_error = Some("<i>no</i>".into());
        let html = render(&report);
        assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains("<i>"));
        assert!(!html.contains("<u>") && html.contains("&lt;u&gt;why"));
        assert!(html.contains("&lt;script&gt;") && html.contains("<span class=\"bad\">3</span>"));
    }
}
