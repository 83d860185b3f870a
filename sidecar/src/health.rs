//! Whether messages are getting through, and if not, since when and why.
//!
//! This judges by what happens to the messages, not by which process is there: a RocketMQ that hangs without refusing, a broker
//! that was stopped, a rule whose topic is missing all show as messages that wait and of which none moves. Nothing here acts:
//! the lanes and the worker go on trying by themselves.

mod process;
mod trackers;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::metrics::ConnectionSnapshot;
use crate::status::report::Log;
pub(crate) use process::{Process, holder};
use trackers::{Recent, Stall};

/// How often the state is judged.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Messages that wait and of which none moves for so long are stalled. With `LOOK_EVERY`, within the 3 s that are promised.
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// After this RocketMQ should have answered the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// What happens now and then (a drop, a dead letter) counts as going on for so long after the last time.
const RECENT: Duration = Duration::from_secs(30);
/// A spool that is fuller than this, in percent, is high.
const SPOOL_HIGH_PERCENT: u64 = 80;

/// The names of the reasons. They are stable.
pub(crate) mod what {
    /// RocketMQ does not answer, or takes no messages.
    pub(crate) const ROCKETMQ_AWAY: &str = "rocketmq_away";
    /// Messages of devices wait, and none of them is done with.
    pub(crate) const UPLINK_STALLED: &str = "uplink_stalled";
    /// Messages for devices wait in the downlink log and Mosquitto takes none, or none can be read from RocketMQ.
    pub(crate) const DOWNLINK_STALLED: &str = "downlink_stalled";
    /// The spool is nearly full.
    pub(crate) const SPOOL_HIGH: &str = "spool_high";
    /// Messages were refused for a full spool just now.
    pub(crate) const SPOOL_FULL: &str = "spool_full";
    /// Messages became dead letters just now.
    pub(crate) const DEAD_LETTERS_GROWING: &str = "dead_letters_growing";
    /// Messages were dropped just now.
    pub(crate) const MESSAGES_DROPPED: &str = "messages_dropped";
    /// Damage of a log was found just now.
    pub(crate) const DAMAGED: &str = "damaged";
    /// No Mosquitto has the spool, or it is stopped.
    pub(crate) const MOSQUITTO_AWAY: &str = "mosquitto_away";
    /// Another broker of the cluster works under this node's id.
    pub(crate) const NODE_ID_TWICE: &str = "node_id_twice";
    /// Nothing is heard of the cluster's other nodes, because nothing comes back from RocketMQ.
    pub(crate) const CLUSTER_AWAY: &str = "cluster_away";
    /// There is a sidecar, and it does not answer.
    pub(crate) const SIDECAR_HANGS: &str = "sidecar_hangs";
    /// No sidecar has the spool.
    pub(crate) const SIDECAR_AWAY: &str = "sidecar_away";
}

/// Whether all is well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Messages get through.
    #[default]
    Ok,
    /// Some don't, or soon won't.
    Degraded,
}

/// The state of a node. Times are Unix milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// Ok without any reason.
    pub(crate) state: State,
    /// Since when it is so; 0 when unknown.
    pub(crate) since_ms: u64,
    /// What is wrong.
    pub(crate) reasons: Vec<Reason>,
}

/// Something that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    /// One of the names in `what`.
    pub(crate) what: String,
    /// Since when; 0 when unknown.
    pub(crate) since_ms: u64,
    /// For people.
    pub(crate) detail: String,
}

impl Reason {
    pub(crate) fn new(what: &str, since_ms: u64, detail: impl Into<String>) -> Reason {
        Reason {
            what: what.to_owned(),
            since_ms,
            detail: detail.into(),
        }
    }
}

/// What the judgement is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// When the sidecar began.
    pub(crate) started_ms: u64,
    /// Whether RocketMQ answers a probe, and whether it takes messages and gives them.
    pub(crate) probed: ConnectionSnapshot,
    pub(crate) sending: ConnectionSnapshot,
    pub(crate) reading: ConnectionSnapshot,
    pub(crate) uplink: Option<Log>,
    pub(crate) downlink: Option<Log>,
    /// How long Mosquitto keeps what it has taken in the log (`downlink_release_delay`).
    pub(crate) release_delay: Duration,
    /// Totals.
    pub(crate) refused: u64,
    pub(crate) dropped: u64,
    pub(crate) dead: u64,
    pub(crate) damaged: u64,
    /// Why Mosquitto is not at work, if so.
    pub(crate) mosquitto: Option<Reason>,
    /// What is wrong with this node's part in the cluster, if anything.
    pub(crate) cluster: Option<Reason>,
}

/// Judges again and again; remembers since when.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    uplink: Stall,
    downlink: Stall,
    refused: Recent,
    dropped: Recent,
    dead: Recent,
    damaged: Recent,
    high_since_ms: Option<u64>,
    mosquitto_since_ms: Option<u64>,
    since_ms: u64,
    state: State,
}

impl Judge {
    /// The state now.
    pub(crate) fn look(&mut self, now: Instant, now_ms: u64, facts: &Facts) -> Health {
        let mut reasons = Vec::new();
        reasons.extend(rocketmq(now_ms, facts));
        self.logs(now, now_ms, facts, &mut reasons);
        self.spool(now_ms, facts, &mut reasons);
        let mut recent = |tracker: &mut Recent, total, what, detail: &str| {
            let found = tracker.look(now, now_ms, total);
            reasons.extend(
                found.map(|(since, count)| Reason::new(what, since, format!("{count} {detail}"))),
            );
        };
        recent(
            &mut self.refused,
            facts.refused,
            what::SPOOL_FULL,
            "messages were refused or dropped because the spool is full",
        );
        recent(
            &mut self.dropped,
            facts.dropped,
            what::MESSAGES_DROPPED,
            "messages were dropped",
        );
        recent(
            &mut self.dead,
            facts.dead,
            what::DEAD_LETTERS_GROWING,
            "messages became dead letters",
        );
        recent(
            &mut self.damaged,
            facts.damaged,
            what::DAMAGED,
            "damaged stretches or messages were found in the logs",
        );
        match &facts.mosquitto {
            None => self.mosquitto_since_ms = None,
            Some(reason) => {
                let seen = *self.mosquitto_since_ms.get_or_insert(now_ms);
                let mut reason = reason.clone();
                if reason.since_ms == 0 {
                    reason.since_ms = seen;
                }
                reasons.push(reason);
            }
        }
        reasons.extend(facts.cluster.clone());
        self.sum_up(now_ms, facts.started_ms, reasons)
    }

    fn logs(&mut self, now: Instant, now_ms: u64, facts: &Facts, reasons: &mut Vec<Reason>) {
        let stalled = self.uplink.look(now, now_ms, facts.uplink, STALLED_AFTER);
        reasons.extend(stalled.map(|since| {
            let waiting = waiting(facts.uplink);
            let seconds = now_ms.saturating_sub(since) / 1000;
            let detail = format!("{waiting} wait, and none was done with for {seconds} s");
            Reason::new(what::UPLINK_STALLED, since, detail)
        }));
        let patience = STALLED_AFTER + facts.release_delay;
        let stalled = self.downlink.look(now, now_ms, facts.downlink, patience);
        let reading = &facts.reading;
        if let Some(since) = stalled {
            let waiting = waiting(facts.downlink);
            let detail = format!("{waiting} wait for Mosquitto, which takes none");
            reasons.push(Reason::new(what::DOWNLINK_STALLED, since, detail));
        } else if !reading.connected && reading.since_ms != 0 {
            let error = reading.last_error.as_deref().unwrap_or("unknown");
            let detail = format!("nothing can be read from RocketMQ: {error}");
            reasons.push(Reason::new(
                what::DOWNLINK_STALLED,
                reading.since_ms,
                detail,
            ));
        }
    }

    fn spool(&mut self, now_ms: u64, facts: &Facts, reasons: &mut Vec<Reason>) {
        match facts.uplink.and_then(spool_high) {
            None => self.high_since_ms = None,
            Some(detail) => {
                let since = *self.high_since_ms.get_or_insert(now_ms);
                reasons.push(Reason::new(what::SPOOL_HIGH, since, detail));
            }
        }
    }

    fn sum_up(&mut self, now_ms: u64, started_ms: u64, reasons: Vec<Reason>) -> Health {
        let state = if reasons.is_empty() {
            State::Ok
        } else {
            State::Degraded
        };
        if self.since_ms == 0 {
            self.since_ms = started_ms;
        }
        if state != self.state {
            // It began when the first of its reasons did, which may have taken a moment to show.
            let began = reasons.iter().map(|reason| reason.since_ms).min();
            self.since_ms = began.unwrap_or(now_ms);
            self.state = state;
        }
        Health {
            state,
            since_ms: self.since_ms,
            reasons,
        }
    }
}

fn rocketmq(now_ms: u64, facts: &Facts) -> Option<Reason> {
    let is_waiting = facts.uplink.is_some_and(|log| log.end > log.released);
    let probed = &facts.probed;
    if probed.since_ms == 0 {
        let patience = facts.started_ms + FIRST_ANSWER.as_millis() as u64;
        return (now_ms >= patience).then(|| {
            let detail = "RocketMQ has not answered yet";
            Reason::new(what::ROCKETMQ_AWAY, facts.started_ms, detail)
        });
    }
    // What could not be sent is sent again until it can: without messages that wait, the last word about that is old.
    let down = [(probed, true), (&facts.sending, is_waiting)]
        .into_iter()
        .filter(|(connection, counts)| *counts && connection.since_ms != 0)
        .map(|(connection, _)| connection)
        .filter(|connection| !connection.connected)
        .min_by_key(|connection| connection.since_ms)?;
    let error = down.last_error.as_deref().unwrap_or("unknown");
    Some(Reason::new(what::ROCKETMQ_AWAY, down.since_ms, error))
}

/// What to say of a spool that is nearly full.
pub(crate) fn spool_high(log: Log) -> Option<String> {
    let percent = log
        .waiting_bytes
        .saturating_mul(100)
        .checked_div(log.bytes_max)?;
    (percent >= SPOOL_HIGH_PERCENT).then(|| {
        format!(
            "the spool is {percent} % full: {} of {} bytes",
            log.waiting_bytes, log.bytes_max
        )
    })
}

/// How much waits in a log, for people.
pub(crate) fn waiting(log: Option<Log>) -> String {
    let log = log.unwrap_or_default();
    log.waiting_messages.map_or_else(
        || format!("{} bytes", log.waiting_bytes),
        |messages| format!("{messages} messages ({} bytes)", log.waiting_bytes),
    )
}

#[cfg(test)]
mod tests;
