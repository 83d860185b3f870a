//! Building the bridge when Mosquitto loads the plugin. Everything that is wrong ends here, in one line of its log.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use handoff::{Counters, LogOptions, OpenError, SyncPolicy, Writer};
use protocol::config::{Config, ConfigErrors, SidecarMode, SpoolSync};
use protocol::counters as count;
use protocol::rules::{RuleTable, TableError};

use crate::bridge::{Bridge, Parts};
use crate::broker_conf::BrokerConf;
use crate::carriers::{self, Carriers};
use crate::cluster::Cluster;
use crate::downlink::{self, Downlink};
use crate::events::BrokerVersion;
use crate::ledger;
use crate::logger::LogQueue;
use crate::pressure::Pressure;
use crate::sidecar::{self, BinaryError, Command, Supervisor};
use crate::spool::{self, Durability, SpoolError};
use crate::uplink::{Uplink, now_ms};
use crate::wake::Wake;
use crate::wanted::{Wanted, WantedError};

/// Why Mosquitto must not start. Each says what is wrong, with which value, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error(
        "`per_listener_settings true`: Mosquitto {0} never calls a plugin's tick then, so nothing could come from \
         RocketMQ; set `per_listener_settings false`, or upgrade Mosquitto to 2.0.15 or later"
    )]
    NeverTicks(BrokerVersion),
    #[error("{0}")]
    Binary(#[from] BinaryError),
    #[error("{0}")]
    Spool(#[from] SpoolError),
    #[error("option `spool_dir`: {0}")]
    Log(#[from] OpenError),
    #[error("option `spool_dir`: {0}")]
    Table(#[from] TableError),
    #[error("{0}")]
    Wanted(#[from] WantedError),
    #[error(
        "can't start a thread: {0}; raise Mosquitto's limits (`ulimit -u`, systemd's TasksMax)"
    )]
    Thread(#[source] io::Error),
    #[error(
        "can't look up Mosquitto's function ({0}); this plugin is for Mosquitto 2.0.11 and later"
    )]
    Symbols(#[from] libloading::Error),
    #[error(
        "Mosquitto refused to report event {event} (code {code}); this plugin is for Mosquitto 2.0.11 and later"
    )]
    Register { event: u32, code: i32 },
}

/// What is known of the broker before anything is built.
pub(crate) struct Surroundings {
    pub(crate) version: BrokerVersion,
    pub(crate) is_2_1: bool,
    pub(crate) conf: BrokerConf,
    pub(crate) plugin: Option<PathBuf>,
}

/// Builds everything. On an error nothing is left: no thread, no process, no lock.
pub(crate) fn start(
    options: &[(&str, &str)],
    around: &Surroundings,
    logs: Option<LogQueue>,
) -> Result<Bridge, StartError> {
    let config = Config::from_options(options.iter().copied())?;
    if around.conf.never_ticks(around.version) {
        return Err(StartError::NeverTicks(around.version));
    }
    log::set_max_level(level(&config));
    let program = match config.sidecar {
        SidecarMode::Spawn => Some(sidecar::find(
            config.sidecar_path.as_deref(),
            around.plugin.as_deref(),
        )?),
        SidecarMode::External => None,
    };
    spool::make_dir(&config.spool_dir)?;
    downlink::check_version(&config.spool_dir.join("downlink"))?;
    let writer = Writer::open(&config.spool_dir.join("uplink"), &log_options(&config))?;
    // Before anything is taken: positions may have been used already, by messages that a loss of power took from the log.
    spool::begin_epoch(
        &config.spool_dir,
        writer.epoch(),
        writer.released(),
        writer.end(),
    )?;
    let mut table = RuleTable::open(config.spool_dir.join("rules.table"))?;
    let wanted = Rc::new(Wanted::new(&config, &mut table)?);
    let counters = Rc::new(counters(&config, around)?);
    ledger::begin_uplink(&counters, &writer);
    spool::write_options(
        &config.spool_dir,
        &config.effective_options(),
        Durability::Synced,
    )?;

    carriers::tell_own(&config.spool_dir, &around.conf, Durability::Synced)?;
    let mut uplink = Uplink::new(writer, wanted, config.spool_full, Rc::clone(&counters));
    *uplink.carriers() = Carriers::of(&config, &around.conf);
    let downlink = Downlink::new(
        config.spool_dir.join("downlink"),
        config.downlink_release_delay,
        Rc::clone(&counters),
    );
    let limits = around.conf.queue_limits().unwrap_or_default();
    let pressure = Pressure::new(&config, limits, Rc::clone(&counters));
    let cluster = config.cluster.is_some().then(|| {
        Cluster::start(
            &config,
            &around.conf,
            around.is_2_1,
            counters.get(count::LAST_TICK_MS),
        )
    });
    let cluster = cluster.transpose()?;
    let wake = Wake::start(around.is_2_1).map_err(StartError::Thread)?;
    let supervisor = program
        .map(|program| Supervisor::start(sidecar_command(program, &config)))
        .transpose()
        .map_err(StartError::Thread)?;
    Ok(Bridge::new(Parts {
        config,
        table,
        uplink,
        downlink,
        pressure,
        cluster,
        wake,
        supervisor,
        counters,
        logs,
    }))
}

fn counters(config: &Config, around: &Surroundings) -> Result<Counters, OpenError> {
    let counters = Counters::keep(&config.spool_dir.join("plugin.counters"), count::COUNT)?;
    counters.set(count::WAKEUP, 0);
    counters.set(count::BROKER_VERSION, around.version.as_number());
    counters.set(count::STARTED_AT_MS, now_ms());
    Ok(counters)
}

fn log_options(config: &Config) -> LogOptions {
    LogOptions {
        segment_bytes: config.spool_segment_bytes,
        bytes_max: config.spool_bytes_max,
        sync: match config.spool_sync {
            SpoolSync::None => SyncPolicy::None,
            SpoolSync::Interval(every) => SyncPolicy::Interval(every),
            SpoolSync::Always => SyncPolicy::Always,
        },
        may_wait: false,
    }
}

fn sidecar_command(program: PathBuf, config: &Config) -> Command {
    Command {
        program,
        arguments: vec![
            "sidecar".into(),
            "--spool-dir".into(),
            config.spool_dir.clone(),
        ],
        // It ends by itself within the drain time-out; the rest is for its connections.
        patience: config.drain_timeout + std::time::Duration::from_secs(2),
    }
}

fn level(config: &Config) -> log::LevelFilter {
    config
        .log_level
        .as_str()
        .parse()
        .unwrap_or(log::LevelFilter::Info)
}
