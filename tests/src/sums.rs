//! Adding up: every message ends in exactly one counter (`docs/counters.md`).

use serde_json::Value;

use crate::broker::Broker;
use crate::wait::{DEADLINE, comes_true};

/// A number of a status, by its path (`/uplink/done`); 0 where it is missing.
fn number(status: &Value, path: &str) -> i128 {
    let value = status.pointer(path);
    value
        .and_then(|value| {
            value
                .as_i64()
                .map(i128::from)
                .or(value.as_u64().map(i128::from))
        })
        .unwrap_or(0)
}

/// The sum of some numbers of each of an array's objects.
fn total(status: &Value, path: &str, names: &[&str]) -> i128 {
    let rows = status.pointer(path).and_then(Value::as_array);
    rows.into_iter()
        .flatten()
        .map(|row| {
            names
                .iter()
                .map(|name| number(row, &format!("/{name}")))
                .sum::<i128>()
        })
        .sum()
}

/// Those of the plugin's counters, which wrap.
fn plugin(status: &Value, names: &[&str]) -> i128 {
    let values = names.iter().map(|name| {
        let value = status.pointer(&format!("/plugin/{name}"));
        value.and_then(Value::as_u64).unwrap_or(0)
    });
    i128::from(values.fold(0, u64::wrapping_add).cast_signed())
}

/// Names of what an uplink message ends in for a rule.
const UP: [&str; 2] = ["sent", "dead"];
/// Names of what a downlink message ends in for a rule.
const DOWN: [&str; 5] = ["handed_over", "dead", "own", "expired", "duplicates"];

/// How many messages wait in both logs.
pub fn waiting(status: &Value) -> i128 {
    number(status, "/uplink/log/waiting_messages")
        + number(status, "/downlink/log/waiting_messages")
}

/// The equations that do not hold in a status. Messages may wait, but none may be on the move.
pub fn unequal(status: &Value) -> Vec<String> {
    let up = |name: &str| number(status, &format!("/uplink/{name}"));
    let down = |name: &str| number(status, &format!("/downlink/{name}"));
    let ends = [
        "uplink_appended",
        "uplink_dropped_qos0_full",
        "uplink_dropped_full",
        "uplink_refused",
        "uplink_too_large",
        "uplink_errors",
        "uplink_interrupted",
    ];
    let injected = [
        "downlink_injected",
        "downlink_expired",
        "downlink_failed",
        "downlink_damaged",
        "downlink_commands",
    ];
    let mut sums = vec![
        (
            "plugin: uplink_matched = all that a publish ends in".to_owned(),
            plugin(status, &["uplink_matched"]),
            plugin(status, &ends),
        ),
        (
            "plugin: uplink_appended + uplink_returned - uplink_lost = messages of the uplink log"
                .to_owned(),
            plugin(status, &["uplink_appended", "uplink_returned"])
                - plugin(status, &["uplink_lost"]),
            plugin(status, &["uplink_log_base"]) + up("log/messages"),
        ),
        (
            "uplink: done + damaged + waiting = messages of the log".to_owned(),
            up("done") + up("damaged_messages") + up("log/waiting_messages"),
            up("log_base") + up("log/messages"),
        ),
        (
            "uplink: copies = sent + dead of all rules + unroutable + returned".to_owned(),
            up("copies"),
            total(status, "/uplink/rules", &UP) + up("unroutable") + up("returned"),
        ),
        (
            "downlink: handed_over of all rules = messages of the log".to_owned(),
            total(status, "/downlink/rules", &["handed_over"]),
            down("log_base") + down("log/messages"),
        ),
        (
            "downlink: all that a message of the log ends in + waiting = messages of the log"
                .to_owned(),
            plugin(status, &injected) + down("log/waiting_messages"),
            plugin(status, &["downlink_log_base"]) + down("log/messages"),
        ),
    ];
    let rows = |path: &str| {
        let rows = status.pointer(path).and_then(Value::as_array);
        rows.cloned().unwrap_or_default()
    };
    for rule in rows("/uplink/rules") {
        let ended: i128 = UP
            .iter()
            .map(|name| number(&rule, &format!("/{name}")))
            .sum();
        let taken = number(&rule, "/matched");
        // What is under way was taken and has not ended.
        let waits = up("log/waiting_messages") > 0 && taken > ended;
        sums.push((
            format!("uplink rule {}: matched = sent + dead", rule["rule"]),
            taken,
            if waits { taken } else { ended },
        ));
    }
    for rule in rows("/downlink/rules") {
        sums.push((
            format!(
                "downlink rule {}: received = handed_over + dead + own + expired + duplicates",
                rule["rule"]
            ),
            number(&rule, "/received"),
            DOWN.iter()
                .map(|name| number(&rule, &format!("/{name}")))
                .sum(),
        ));
    }
    sums.into_iter()
        .filter(|(_, left, right)| left != right)
        .map(|(what, left, right)| format!("{what}: {left} is not {right}"))
        .collect()
}

/// Waits until nothing waits any more and every sum is exact; returns the status then.
///
/// # Panics
/// When that does not come true, with the equations that don't hold.
#[track_caller]
pub fn settle(broker: &Broker) -> Value {
    let mut last = None;
    let settled = comes_true(2 * DEADLINE, || {
        last = broker.status().or(last.take());
        last.as_ref()
            .is_some_and(|status| waiting(status) == 0 && unequal(status).is_empty())
    });
    match last {
        Some(status) if settled => status,
        Some(status) => panic!(
            "{} messages wait, and these sums are wrong: {:#?}",
            waiting(&status),
            unequal(&status)
        ),
        None => panic!("no sidecar answers"),
    }
}
