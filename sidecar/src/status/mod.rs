//! The state of this node over HTTP: `GET /v1/status` (JSON), `GET /healthz`, and a page for people at `/`.
//!
//! It listens on a Unix socket in the spool, which only Mosquitto's user can open, and on a loopback address where one is set.

pub(crate) mod page;
mod rates;
pub(crate) mod report;
mod server;
pub(crate) mod spool;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use protocol::config::Config;

use crate::dead_letter::replay::Replayer;
use crate::metrics::{Metrics, Snapshot, unix_ms};
use rates::Rates;
use report::{DownRule, Report, Rocketmq, UpRule};

pub(crate) use server::Servers;
pub(crate) use server::{REPLAY, SOCKET};

/// Where the status comes from.
pub(crate) struct Source {
    config: RwLock<Arc<Config>>,
    metrics: Arc<Metrics>,
    rates: Mutex<Rates>,
    /// Not before everything has started.
    replayer: OnceLock<Replayer>,
}

impl Source {
    /// A source for these metrics.
    pub(crate) fn new(config: Arc<Config>, metrics: Arc<Metrics>) -> Source {
        Source {
            config: RwLock::new(config),
            metrics,
            rates: Mutex::default(),
            replayer: OnceLock::new(),
        }
    }

    /// Dead letters can be replayed from now on.
    pub(crate) fn set_replayer(&self, replayer: Replayer) {
        // There is one in the life of a source.
        let _ = self.replayer.set(replayer);
    }

    fn replayer(&self) -> Option<&Replayer> {
        self.replayer.get()
    }

    /// The rules were replaced.
    pub(crate) fn reload(&self, config: Arc<Config>) {
        if let Some(replayer) = self.replayer() {
            replayer.reload(Arc::clone(&config));
        }
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// To be called every [`rates::SAMPLE_EVERY`].
    fn sample(&self) {
        let counters = counters(&self.metrics.snapshot());
        self.rates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sample(Instant::now(), counters);
    }

    /// The state at this moment.
    pub(crate) fn report(&self) -> Report {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let snapshot = self.metrics.snapshot();
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: config.node_id.clone(),
            sidecar_running: true,
            pid: Some(std::process::id()),
            uptime_s: Some(unix_ms().saturating_sub(snapshot.started_ms) / 1000),
            rocketmq: Rocketmq {
                namesrv: config.namesrv.clone(),
                group: config.group.clone(),
                connection: snapshot.rocketmq.clone(),
            },
            ..Report::default()
        };
        spool::fill(&mut report, &config.spool_dir, Some(&config));
        report.dead_letters = self.replayer().map(|replayer| replayer.letters().summary());
        self.fill_rules(&mut report, snapshot, &config);
        report
    }

    fn fill_rules(&self, report: &mut Report, snapshot: Snapshot, config: &Config) {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        report.uplink.corrupt_frames = snapshot.corrupt_frames;
        report.uplink.unroutable = snapshot.unroutable;
        report.downlink.waiting_in_rocketmq = snapshot.downlink_lag;
        report.downlink.repeated = snapshot.downlink_repeated;
        report.uplink.rules = snapshot
            .uplink
            .into_iter()
            .map(|counters| {
                let per_second = rates.per_second(now, &up_key(&counters.rule), counters.sent);
                UpRule {
                    counters,
                    per_second,
                }
            })
            .collect();
        report.downlink.rules = snapshot
            .downlink
            .into_iter()
            .map(|counters| {
                let per_second =
                    rates.per_second(now, &down_key(&counters.rule), counters.handed_over);
                DownRule {
                    counters,
                    per_second,
                }
            })
            .collect();
        // Rules that no message has come by yet.
        for rule in &config.uplink {
            if report
                .uplink
                .rules
                .iter()
                .all(|known| known.counters.rule != rule.text)
            {
                let mut row = UpRule::default();
                row.counters.rule.clone_from(&rule.text);
                report.uplink.rules.push(row);
            }
        }
        report.uplink.waiting_messages = waiting_messages(report);
    }
}

/// Messages in the log: exact while everything in it is from this log's average size, so an estimate by bytes.
fn waiting_messages(report: &Report) -> Option<u64> {
    let plugin = report.plugin.as_ref()?;
    let waiting = report.uplink.log?.waiting_bytes;
    let (messages, bytes) = (
        *plugin.get("uplink_appended")?,
        *plugin.get("uplink_bytes")?,
    );
    if waiting == 0 {
        return Some(0);
    }
    // Each frame has a header of 16 bytes and is padded to 16.
    let average = bytes.checked_div(messages)?.next_multiple_of(16) + 16;
    Some((waiting / average).max(1))
}

fn counters(snapshot: &Snapshot) -> HashMap<String, u64> {
    let up = snapshot
        .uplink
        .iter()
        .map(|rule| (up_key(&rule.rule), rule.sent));
    let down = snapshot
        .downlink
        .iter()
        .map(|rule| (down_key(&rule.rule), rule.handed_over));
    up.chain(down).collect()
}

fn up_key(rule: &str) -> String {
    format!("up {rule}")
}

fn down_key(rule: &str) -> String {
    format!("down {rule}")
}
