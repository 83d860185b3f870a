//! The `sidecar` command: wires the parts, follows `options.conf`, and drains in a bounded time.

mod options;
mod spool;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use protocol::config::{Config, Level};
use rocketmq::{Backbone, Settings};

use crate::cluster::{ClusterHandle, Lost, Prepared};
use crate::dead_letter::DeadLetters;
use crate::dead_letter::replay::Replayer;
use crate::downlink::{self, DownlinkHandle, Outlets};
use crate::inbox::{self, Inbox};
use crate::metrics::{BEAT_EVERY, Metrics};
use crate::missed;
use crate::retained::{Retained, refresh};
use crate::signals::Stop;
use crate::status::{Servers, Source};
use crate::uplink::{self, DrainOutcome, UplinkHandle};
use options::{Change, Watch};

pub(crate) use options::read_config;

/// Anything that is not one of the others.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The configuration or the command line is wrong.
pub(crate) const EXIT_CONFIG: u8 = 2;
/// The time to drain was over with messages left in the spool.
pub(crate) const EXIT_LEFT: u8 = 3;
/// Another sidecar has the spool.
pub(crate) const EXIT_IN_USE: u8 = 4;

/// How often `options.conf` is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How often RocketMQ is probed, and how long it may take to answer: so an outage shows within 3 s also while no messages flow.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// One request to RocketMQ.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);
/// The consumer's last commit and its close.
const DOWNLINK_STOP: Duration = Duration::from_secs(5);
/// The last word to the other nodes.
const CLUSTER_STOP: Duration = Duration::from_secs(5);

/// Why the sidecar can't work, with the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn new(code: u8, reason: impl ToString) -> Failure {
        Failure {
            code,
            reason: reason.to_string(),
        }
    }
}

/// How one run with one configuration ended.
enum End {
    Exit(u8),
    /// Options other than the rules have changed: everything begins again.
    Restart,
}

/// Runs until asked to end. Returns the exit code.
pub(crate) async fn run(spool_dir: &Path) -> u8 {
    if cfg!(feature = "break-on-purpose") {
        log::error!("this is a build that loses messages on purpose (feature break-on-purpose)");
    }
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            log::error!("no signal handlers: {error}");
            return EXIT_FAILED;
        }
    };
    loop {
        match once(spool_dir, &mut stop).await {
            Ok(End::Restart) => log::info!("options have changed: starting again with them"),
            Ok(End::Exit(code)) => return code,
            Err(failure) => {
                log::error!("{}", failure.reason);
                return failure.code;
            }
        }
    }
}

async fn once(spool_dir: &Path, stop: &mut Stop) -> Result<End, Failure> {
    let Some((watch, config)) = Watch::start(spool_dir, stop).await? else {
        return Ok(End::Exit(0));
    };
    log::set_max_level(level(config.log_level));
    let Some(logs) = spool::open(&config, stop).await? else {
        return Ok(End::Exit(0));
    };
    let config = Arc::new(config);
    let mut parts = Parts::start(config, logs).await?;
    log::info!(
        "sidecar {} of node {} is at work",
        env!("CARGO_PKG_VERSION"),
        parts.config.node_id
    );
    let end = parts.follow(watch, stop).await;
    let code = parts.drain().await;
    Ok(if end && !stop.is_requested() {
        End::Restart
    } else {
        End::Exit(code)
    })
}

/// All that runs with one configuration.
struct Parts {
    config: Arc<Config>,
    backbone: Arc<dyn Backbone>,
    uplink: UplinkHandle,
    downlink: DownlinkHandle,
    cluster: Option<ClusterHandle>,
    source: Arc<Source>,
    _servers: Servers,
    monitor: tokio::task::JoinHandle<()>,
}

impl Parts {
    async fn start(config: Arc<Config>, logs: spool::Logs) -> Result<Parts, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(EXIT_FAILED, error);
        let metrics = Metrics::open(&config.spool_dir).map_err(|error| failed(&error))?;
        let metrics = Arc::new(metrics);
        let source = Arc::new(Source::new(Arc::clone(&config), Arc::clone(&metrics)));
        let servers = Servers::start(Arc::clone(&source), &config.spool_dir, config.http_listen)
            .await
            .map_err(|error| Failure::new(EXIT_CONFIG, error))?;
        let backbone = rocketmq::connect(Settings {
            namesrv: config.namesrv.join(";"),
            producer_group: config.producer_group.clone(),
            instance: format!("{}-{}", config.node_id, std::process::id()),
            send_timeout: SEND_TIMEOUT,
        })
        .map_err(|error| failed(&error))?;
        let monitor = tokio::spawn(monitor(Arc::clone(&backbone), Arc::clone(&metrics)));
        let dead = DeadLetters::open(
            &config.spool_dir.join(crate::dead_letter::FOLDER),
            config.dead_letter_bytes_max,
        )
        .map_err(|error| failed(&error))?;
        let sink = down_sink(dead.clone());
        let prepared = Prepared::open(&config).map_err(|error| {
            failed(&format!(
                "cluster.sessions in {}: {error}",
                config.spool_dir.display()
            ))
        })?;
        let (inbox, logins) = Inbox::new(&config).unzip();
        let inbox = inbox.map(Arc::new);
        let shared = prepared
            .as_ref()
            .map(|prepared| shared(&config, prepared, inbox.clone()))
            .transpose()?;
        let uplink = uplink::start(
            Arc::clone(&config),
            uplink::Log {
                reader: logs.uplink,
                epochs: logs.epochs,
                rules: logs.rules,
            },
            Arc::clone(&backbone),
            Arc::clone(&metrics),
            dead.clone(),
            shared
                .as_ref()
                .zip(config.shared_uplink())
                .zip(config.cluster_topics())
                .map(|((shared, rule), topics)| uplink::Shared {
                    topic: topics.messages,
                    rule,
                    retained: Arc::clone(&shared.retained),
                }),
        );
        let downlink = downlink::start(
            Arc::clone(&config),
            logs.downlink,
            Arc::clone(&backbone),
            Arc::clone(&metrics),
            Outlets {
                dead: sink,
                shared: shared.clone(),
            },
        )
        .map_err(|error| {
            failed(&format!(
                "downlink.offsets in {}: {error}",
                config.spool_dir.display()
            ))
        })?;
        if let (Some(inbox), Some(logins)) = (inbox, logins) {
            let replays = downlink.replays();
            inbox::start(&config, Arc::clone(&backbone), inbox, replays, logins);
        }
        let begin = |(prepared, shared): (Prepared, downlink::Shared)| {
            let lost = Lost {
                inbox: shared.inbox,
                retained: shared.retained,
                missed: missed::start(
                    &config,
                    Arc::clone(&backbone),
                    shared.handed,
                    shared.groups,
                    downlink.replays(),
                )?,
            };
            prepared.start(Arc::clone(&backbone), metrics, downlink.replays(), lost)
        };
        let cluster = prepared
            .zip(shared.clone())
            .map(begin)
            .transpose()
            .map_err(|error| failed(&error))?;
        if let Some(cluster) = &cluster {
            source.set_cluster(cluster.shared());
        }
        if let (Some(cluster), Some(shared)) = (&cluster, &shared) {
            let retained = Arc::clone(&shared.retained);
            refresh::start(&config, Arc::clone(&backbone), retained, cluster.shared());
        }
        source.set_replayer(Replayer::new(
            Arc::clone(&config),
            dead,
            Arc::clone(&backbone),
            downlink.replays(),
        ));
        Ok(Parts {
            config,
            backbone,
            uplink,
            downlink,
            cluster,
            source,
            _servers: servers,
            monitor,
        })
    }

    /// Follows the configuration until the sidecar shall end (false) or begin again (true).
    async fn follow(&mut self, mut watch: Watch, stop: &mut Stop) -> bool {
        loop {
            tokio::select! {
                () = stop.requested() => return false,
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
            match watch.look(&self.config) {
                Change::None => {}
                Change::Rules(config) => {
                    log::info!(
                        "rules have changed: {} uplink, {} downlink",
                        config.uplink.len(),
                        config.downlink.len()
                    );
                    self.config = config;
                    self.downlink.reload(Arc::clone(&self.config));
                    self.source.reload(Arc::clone(&self.config));
                    if let Some(cluster) = &self.cluster {
                        cluster.shared().reload(&self.config);
                    }
                }
                Change::Options => return true,
                Change::Bad(error) => log::error!("new options.conf is not used: {error}"),
            }
        }
    }

    async fn drain(self) -> u8 {
        let cluster = async {
            match self.cluster {
                Some(cluster) => cluster.stop(CLUSTER_STOP).await,
                None => true,
            }
        };
        let (outcome, is_downlink_done, is_cluster_done) = tokio::join!(
            self.uplink.drain(self.config.drain_timeout),
            self.downlink.stop(DOWNLINK_STOP),
            cluster
        );
        self.monitor.abort();
        self.backbone.shutdown().await;
        if !is_downlink_done {
            log::warn!(
                "the downlink did not end in time; it goes on where it was at the next start"
            );
        }
        if !is_cluster_done {
            log::warn!("the cluster's part did not end in time; nothing is lost by that");
        }
        match outcome {
            DrainOutcome::Drained => 0,
            DrainOutcome::TimedOut { left } => {
                // The bytes are unknown when the thread hangs on its disk.
                let left = if left == u64::MAX {
                    "messages".to_owned()
                } else {
                    format!("{left} bytes")
                };
                log::warn!(
                    "{left} are left in the spool after {:?}; they are sent at the next start",
                    self.config.drain_timeout
                );
                EXIT_LEFT
            }
        }
    }
}

/// What both ways have of the cluster.
fn shared(
    config: &Config,
    prepared: &Prepared,
    inbox: Option<Arc<Inbox>>,
) -> Result<downlink::Shared, Failure> {
    let retained = Retained::open(&config.spool_dir)
        .map_err(|error| Failure::new(EXIT_FAILED, format!("cluster.retained: {error}")))?;
    Ok(downlink::Shared {
        retained: Arc::new(retained),
        handed: Arc::default(),
        groups: prepared.groups(),
        inbox,
        interest: prepared.interest(),
    })
}

fn down_sink(dead: DeadLetters) -> downlink::DeadLetter {
    Box::new(move |incoming, rule, reason| dead.downlink(incoming, rule, reason))
}

/// Keeps the state of the connection true while no messages flow, and says in the spool that the sidecar is alive.
async fn monitor(backbone: Arc<dyn Backbone>, metrics: Arc<Metrics>) {
    let beats = async {
        loop {
            metrics.beat();
            tokio::time::sleep(BEAT_EVERY).await;
        }
    };
    let probes = async {
        loop {
            probe(backbone.as_ref(), &metrics).await;
            tokio::time::sleep(PROBE_EVERY).await;
        }
    };
    tokio::join!(beats, probes);
}

async fn probe(backbone: &dyn Backbone, metrics: &Metrics) {
    let failure = match tokio::time::timeout(PROBE_TIMEOUT, backbone.probe()).await {
        Ok(Ok(())) => {
            if metrics.rocketmq.up() {
                log::info!("RocketMQ is there");
            }
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("RocketMQ does not answer within {PROBE_TIMEOUT:?}"),
    };
    if metrics.rocketmq.down(&failure) {
        log::warn!("{failure}; trying again");
    }
}

fn level(level: Level) -> log::LevelFilter {
    match level {
        Level::Error => log::LevelFilter::Error,
        Level::Warn => log::LevelFilter::Warn,
        Level::Info => log::LevelFilter::Info,
        Level::Debug => log::LevelFilter::Debug,
        Level::Trace => log::LevelFilter::Trace,
    }
}

/// A panic anywhere is logged and ends the process: whoever started it starts it again, and nothing is lost by that. A
/// sidecar with a dead lane would look alive and carry nothing.
pub(crate) fn exit_on_panic() {
    static IS_PANICKING: AtomicBool = AtomicBool::new(false);
    std::panic::set_hook(Box::new(|info| {
        if !IS_PANICKING.swap(true, std::sync::atomic::Ordering::SeqCst) {
            log::error!("internal error, please report it: {info}");
        }
        std::process::exit(i32::from(EXIT_FAILED));
    }));
}
