//! The state of this node over HTTP: `GET /v1/status` (JSON), `GET /healthz` (the sidecar is alive), `GET /readyz` (messages get through), and a page for people at `/`.
//!
//! It listens on a Unix socket in the spool, which only Mosquitto's user can open, and on a loopback address where one is set.

pub(crate) mod page;
mod rates;
pub(crate) mod report;
mod server;
pub(crate) mod spool;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use protocol::config::Config;

use crate::cluster::Shared as Cluster;
use crate::dead_letter::replay::Replayer;
use crate::health::{Facts, Health, Judge, Process, Reason, holder, what};
use crate::metrics::{Metrics, Snapshot, unix_ms};
pub(crate) use rates::Rates;
use report::{DownRule, Report, Rocketmq, UpRule};

pub(crate) use server::Servers;
pub(crate) use server::{CLIENTS, REPLAY, SOCKET};

/// Where the status comes from.
pub(crate) struct Source {
    config: RwLock<Arc<Config>>,
    metrics: Arc<Metrics>,
    rates: Mutex<Rates>,
    /// Not before everything has started.
    replayer: OnceLock<Arc<Replayer>>,
    /// Nor this; and only in a cluster.
    cluster: OnceLock<Arc<Cluster>>,
}

impl Source {
    /// A source for these metrics.
    pub(crate) fn new(config: Arc<Config>, metrics: Arc<Metrics>) -> Source {
        Source {
            config: RwLock::new(config),
            metrics,
            rates: Mutex::default(),
            replayer: OnceLock::new(),
            cluster: OnceLock::new(),
        }
    }

    /// Dead letters can be replayed from now on.
    pub(crate) fn set_replayer(&self, replayer: Replayer) {
        // There is one in the life of a source.
        let _ = self.replayer.set(Arc::new(replayer));
    }

    /// The cluster's part runs.
    pub(crate) fn set_cluster(&self, cluster: Arc<Cluster>) {
        let _ = self.cluster.set(cluster);
    }

    fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.get()
    }

    fn replayer(&self) -> Option<&Arc<Replayer>> {
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
                connection: self.metrics.connection(),
            },
            ..Report::default()
        };
        report.health = self.health();
        spool::fill(&mut report, &config.spool_dir, Some(&config));
        report.cluster = self.cluster().map(|cluster| cluster.report());
        report.dead_letters = self.replayer().map(|replayer| replayer.letters().summary());
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        fill_rules(&mut report, snapshot, Some(&config), &rates);
        report
    }

    /// The last judgement, at most `health::LOOK_EVERY` old.
    pub(crate) fn health(&self) -> Health {
        let health = &self.metrics.health;
        health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Judges again. To be called every `health::LOOK_EVERY`.
    fn judge(&self, judge: &mut Judge) {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let mut facts = facts(&self.metrics, &config);
        facts.cluster = self.cluster().and_then(|cluster| cluster.problem());
        let health = judge.look(Instant::now(), unix_ms(), &facts);
        let last = &self.metrics.health;
        let before = std::mem::replace(
            &mut *last.lock().unwrap_or_else(PoisonError::into_inner),
            health.clone(),
        );
        say(&before, &health);
    }
}

/// Logs what has begun and what is over.
fn say(before: &Health, now: &Health) {
    let has = |health: &Health, what: &str| health.reasons.iter().any(|r| r.what == what);
    for reason in now.reasons.iter().filter(|r| !has(before, &r.what)) {
        log::warn!("degraded: {}: {}", reason.what, reason.detail);
    }
    for reason in before.reasons.iter().filter(|r| !has(now, &r.what)) {
        log::info!("over: {}", reason.what);
    }
}

fn facts(metrics: &Metrics, config: &Config) -> Facts {
    let snapshot = metrics.snapshot();
    let dir = &config.spool_dir;
    let (uplink, downlink) = (dir.join("uplink"), dir.join("downlink"));
    let plugin = spool::plugin_counters(dir).unwrap_or_default();
    let sum = |names: &[&str]| {
        names
            .iter()
            .filter_map(|name| plugin.get(*name))
            .sum::<u64>()
    };
    let dead = snapshot.uplink.iter().map(|rule| rule.dead);
    let dead = dead.chain(snapshot.downlink.iter().map(|rule| rule.dead));
    Facts {
        started_ms: snapshot.started_ms,
        probed: metrics.rocketmq.snapshot(),
        sending: metrics.sending.snapshot(),
        reading: metrics.reading.snapshot(),
        uplink: spool::log(&uplink, config.spool_bytes_max),
        downlink: spool::log(&downlink, config.downlink_bytes_max),
        release_delay: config.downlink_release_delay,
        refused: sum(FULL),
        dropped: sum(DROPPED),
        dead: dead.sum::<u64>() + snapshot.unroutable + snapshot.returned,
        damaged: snapshot.corrupt_frames + snapshot.uplink_damaged + sum(DAMAGED),
        mosquitto: mosquitto(dir),
        cluster: None,
    }
}

/// The plugin's counters of what a full spool cost.
const FULL: &[&str] = &[
    "uplink_refused",
    "uplink_dropped_full",
    "uplink_dropped_qos0_full",
];
/// Those of messages that were dropped.
const DROPPED: &[&str] = &[
    "uplink_dropped_full",
    "uplink_dropped_qos0_full",
    "downlink_queue_dropped",
];
/// Those of damage.
const DAMAGED: &[&str] = &["downlink_corrupt", "downlink_damaged"];

/// Why Mosquitto is not at work on this spool, if so.
pub(crate) fn mosquitto(spool_dir: &Path) -> Option<Reason> {
    let detail = match holder(&spool_dir.join("uplink"), "writer") {
        Process::Running(_) => return None,
        Process::Stopped(pid) => format!("Mosquitto (process {pid}) is stopped"),
        Process::Gone => "no Mosquitto has this spool".to_owned(),
    };
    let ticked = spool::plugin_counters(spool_dir)
        .and_then(|counters| counters.get("last_tick_ms").copied())
        .unwrap_or(0);
    Some(Reason::new(what::MOSQUITTO_AWAY, ticked, detail))
}

/// Fills in the counters.
pub(crate) fn fill_rules(
    report: &mut Report,
    snapshot: Snapshot,
    config: Option<&Config>,
    rates: &Rates,
) {
    let now = Instant::now();
    report.uplink.done = snapshot.uplink_done;
    report.uplink.copies = snapshot.uplink_copies;
    report.uplink.damaged_messages = snapshot.uplink_damaged;
    report.uplink.returned = snapshot.returned;
    report.uplink.log_base = snapshot.uplink_base;
    report.downlink.log_base = snapshot.downlink_base;
    report.uplink.corrupt_frames = snapshot.corrupt_frames;
    report.uplink.repaired_frames = snapshot.repaired_frames;
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
            let per_second = rates.per_second(now, &down_key(&counters.rule), counters.handed_over);
            DownRule {
                counters,
                per_second,
            }
        })
        .collect();
    // Rules that no message has come by yet.
    for rule in config.into_iter().flat_map(|config| &config.uplink) {
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
