//! The table of options: how each is read, what is allowed, and how its value is written back.

use std::path::PathBuf;
use std::time::Duration;

use super::choices::{Layout, Level, SidecarMode, SpoolFull, SpoolSync, StartFrom, Wake};
use super::values::{
    absolute, cluster, count, group, http_listen, name_servers, node_id, not_among, percent,
    presence, segment, show_path, size, spool_dir, time,
};
use super::{Config, node, units};
use crate::rules::{DownlinkRule, RuleError, ShareRule, UplinkRule};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Segments are mapped: whole pages.
pub(super) const PAGE: u64 = 4096;

/// What is wrong with a value; the option's own `allowed` says what would be right, unless the problem knows better.
pub(super) enum Problem {
    Text(String),
    Rule(RuleError),
}

impl From<RuleError> for Problem {
    fn from(error: RuleError) -> Self {
        Problem::Rule(error)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Problem::Text(text.to_owned())
    }
}

/// One option.
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// Whether it may stand several times.
    pub(super) repeats: bool,
    pub(super) allowed: &'static str,
    pub(super) apply: fn(&mut Config, &str) -> Result<(), Problem>,
    /// The value (or values) as the configuration would have it; nothing for an option that is not set.
    pub(super) show: fn(&Config) -> Vec<String>,
}

impl Spec {
    /// Whether it may stand in a rules file.
    pub(super) fn is_rule(&self) -> bool {
        self.repeats && self.name != "cluster_bridge"
    }
}

macro_rules! option {
    ($name:ident, $allowed:expr, |$value:ident| $parse:expr, |$config:ident| $show:expr) => {
        Spec {
            name: stringify!($name),
            repeats: false,
            allowed: $allowed,
            apply: |config, $value| {
                config.$name = $parse;
                Ok(())
            },
            show: |$config| $show,
        }
    };
}

macro_rules! word_option {
    ($name:ident, $words:ty, $allowed:literal) => {
        option!(
            $name,
            $allowed,
            |value| <$words>::parse(value).ok_or_else(|| not_among(value, <$words>::WORDS))?,
            |config| vec![config.$name.to_string()]
        )
    };
}

macro_rules! size_option {
    ($name:ident, $range:expr, $allowed:literal) => {
        option!(
            $name,
            $allowed,
            |value| size(value, $range)?,
            |config| vec![units::format_size(config.$name)]
        )
    };
}

macro_rules! time_option {
    ($name:ident, $max:expr, $allowed:literal) => {
        option!(
            $name,
            $allowed,
            |value| time(value, Duration::from_secs($max))?,
            |config| vec![units::format_duration(config.$name)]
        )
    };
}

macro_rules! count_option {
    ($name:ident, $range:expr, $allowed:literal) => {
        option!(
            $name,
            $allowed,
            |value| count(value, $range)?,
            |config| vec![config.$name.to_string()]
        )
    };
}

macro_rules! rule_option {
    ($name:ident, $rule:ty, $allowed:literal) => {
        Spec {
            name: stringify!($name),
            repeats: true,
            allowed: $allowed,
            apply: |config, value| {
                config.$name.push(<$rule>::parse(value)?);
                Ok(())
            },
            show: |config| config.$name.iter().map(|rule| rule.text.clone()).collect(),
        }
    };
}

/// Every option of this version.
pub(super) const OPTIONS: &[Spec] = &[
    option!(
        namesrv,
        "host:port, several joined by a semicolon: 10.0.0.1:9876;10.0.0.2:9876",
        |value| name_servers(value)?,
        |config| vec![config.namesrv.join(";")]
    ),
    option!(
        node_id,
        node::ALLOWED,
        |value| node_id(value)?,
        |config| vec![config.node_id.clone()]
    ),
    option!(
        spool_dir,
        "an absolute path of at most 94 bytes",
        |value| spool_dir(value)?,
        |config| show_path(Some(&config.spool_dir))
    ),
    size_option!(
        spool_bytes_max,
        192 * KIB..=64 * TIB,
        "192KiB to 64TiB, at least 3 segments (spool_segment_bytes)"
    ),
    option!(
        spool_segment_bytes,
        "64KiB to 1GiB, a multiple of 4096",
        |value| segment(value)?,
        |config| vec![units::format_size(config.spool_segment_bytes)]
    ),
    option!(
        spool_sync,
        SpoolSync::ALLOWED,
        |value| SpoolSync::parse(value).ok_or("is no sync policy")?,
        |config| vec![config.spool_sync.to_string()]
    ),
    word_option!(spool_full, SpoolFull, "refuse, drop"),
    option!(
        spool_high_water,
        "1% to 100%, such as 90%",
        |value| percent(value)?,
        |config| vec![format!("{}%", config.spool_high_water)]
    ),
    size_option!(downlink_bytes_max, MIB..=TIB, "1MiB to 1TiB"),
    count_option!(downlink_per_tick, 1..=100_000, "1 to 100000"),
    time_option!(
        downlink_hold,
        600,
        "0 to 10min with a unit: 500ms, 10s, 1min"
    ),
    time_option!(
        downlink_release_delay,
        600,
        "0 to 10min with a unit: 500ms, 10s, 1min"
    ),
    word_option!(downlink_from, StartFrom, "latest, earliest"),
    option!(
        rules_file,
        "an absolute path",
        |value| Some(absolute(value)?),
        |config| show_path(config.rules_file.as_ref())
    ),
    word_option!(sidecar, SidecarMode, "spawn, external"),
    option!(
        sidecar_path,
        "an absolute path",
        |value| Some(absolute(value)?),
        |config| show_path(config.sidecar_path.as_ref())
    ),
    word_option!(wake, Wake, "auto, eventfd, pingreq"),
    word_option!(layout, Layout, "native, apsara"),
    option!(group, GROUP_ALLOWED, |value| group(value)?, |config| vec![
        config.group.clone()
    ]),
    option!(
        producer_group,
        GROUP_ALLOWED,
        |value| group(value)?,
        |config| vec![config.producer_group.clone()]
    ),
    size_option!(batch_bytes_max, KIB..=4 * MIB, "1KiB to 4MiB"),
    count_option!(batch_messages_max, 1..=4096, "1 to 4096"),
    size_option!(
        in_flight_bytes_max,
        64 * KIB..=4 * GIB,
        "64KiB to 4GiB, at least batch_bytes_max"
    ),
    time_option!(drain_timeout, 3_600, "0 to 1h with a unit: 500ms, 5s, 2min"),
    time_option!(
        topic_missing_timeout,
        86_400,
        "0 to 24h with a unit: 500ms, 10s, 5min"
    ),
    time_option!(
        replica_timeout,
        86_400,
        "0 to 24h with a unit: 500ms, 10s, 5min"
    ),
    size_option!(dead_letter_bytes_max, MIB..=TIB, "1MiB to 1TiB"),
    option!(
        http_listen,
        "off, or a loopback address and a port: 127.0.0.1:8080, [::1]:8080",
        |value| http_listen(value)?,
        |config| vec![
            config
                .http_listen
                .map_or_else(|| "off".to_owned(), |address| address.to_string())
        ]
    ),
    option!(
        cluster,
        CLUSTER_ALLOWED,
        |value| Some(cluster(value)?),
        |config| config.cluster.iter().cloned().collect()
    ),
    Spec {
        name: "cluster_bridge",
        repeats: true,
        allowed: "the client id of a native bridge, as the node that it connects to sees it",
        apply: |config, value| {
            config.cluster_bridge.push(value.to_owned());
            Ok(())
        },
        show: |config| config.cluster_bridge.clone(),
    },
    time_option!(
        cluster_node_timeout,
        600,
        "1s to 10min with a unit: 5s, 1min"
    ),
    time_option!(
        cluster_keep_time,
        30 * 86_400,
        "0 to 720h with a unit: 24h, 90min"
    ),
    time_option!(
        cluster_retained_refresh,
        30 * 86_400,
        "0 to 720h with a unit: 24h, 90min"
    ),
    count_option!(cluster_keep_messages, 1..=100_000, "1 to 100000"),
    option!(
        cluster_presence,
        "off, or an MQTT topic without wildcards: $presence, site/clients",
        |value| presence(value)?,
        |config| vec![
            config
                .cluster_presence
                .clone()
                .unwrap_or_else(|| "off".to_owned())
        ]
    ),
    word_option!(log_level, Level, "error, warn, info, debug, trace"),
    rule_option!(
        uplink,
        UplinkRule,
        "<filter> <TOPIC> [tag=T] [key=T] [order=T] [prop.NAME=T]…"
    ),
    rule_option!(share, ShareRule, "<filter>"),
    rule_option!(
        downlink,
        DownlinkRule,
        "<TOPIC> <mqtt topic> [tags=A||B] [qos=0|1|2] [retain=true|false] [expiry=30s] [client=T]"
    ),
];

const CLUSTER_ALLOWED: &str = "1 to 64 letters (a-z, A-Z), digits, _ and -";
const GROUP_ALLOWED: &str = "a RocketMQ group: 1 to 120 letters, digits, and % | _ -";

/// Names of all options of this version, without `plugin_opt_`.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|spec| spec.name)
}

/// The configuration when nothing is given. `namesrv`, `node_id` and the groups are filled in or missed later.
pub(super) fn defaults() -> Config {
    Config {
        namesrv: Vec::new(),
        node_id: String::new(),
        spool_dir: PathBuf::from("/var/lib/mosquitto/rocketmq"),
        spool_bytes_max: GIB,
        spool_segment_bytes: 16 * MIB,
        spool_sync: SpoolSync::Interval(SpoolSync::DEFAULT_INTERVAL),
        spool_full: SpoolFull::Refuse,
        spool_high_water: 90,
        downlink_bytes_max: 64 * MIB,
        downlink_per_tick: 256,
        downlink_hold: Duration::from_secs(10),
        downlink_release_delay: Duration::ZERO,
        downlink_from: StartFrom::Latest,
        cluster: None,
        share: Vec::new(),
        cluster_bridge: Vec::new(),
        cluster_node_timeout: Duration::from_secs(5),
        cluster_keep_time: Duration::from_secs(24 * 3600),
        cluster_keep_messages: 100,
        cluster_retained_refresh: Duration::from_secs(24 * 3600),
        cluster_presence: Some("$presence".to_owned()),
        uplink: Vec::new(),
        downlink: Vec::new(),
        rules_file: None,
        sidecar: SidecarMode::Spawn,
        sidecar_path: None,
        wake: Wake::Auto,
        layout: Layout::Native,
        group: String::new(),
        producer_group: String::new(),
        batch_bytes_max: MIB,
        batch_messages_max: 64,
        in_flight_bytes_max: 16 * MIB,
        drain_timeout: Duration::from_secs(5),
        // Twice the 30 s at which RocketMQ's brokers register anew with a name server that was restarted.
        topic_missing_timeout: Duration::from_secs(60),
        replica_timeout: Duration::from_secs(10),
        dead_letter_bytes_max: 64 * MIB,
        http_listen: None,
        log_level: Level::Info,
        source: Vec::new(),
    }
}
