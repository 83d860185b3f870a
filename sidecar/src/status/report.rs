//! What `GET /v1/status` says, and what `mosquitto-rocketmq status` shows. The names are stable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dead_letter::Summary;
use crate::health::Health;
use crate::metrics::{ConnectionSnapshot, DownRuleSnapshot, UpRuleSnapshot};

/// The state of one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Version of this program.
    pub(crate) version: String,
    /// The node.
    pub(crate) node_id: String,
    /// Whether a sidecar answered. Without one only the spool and the plugin's counters are known.
    pub(crate) sidecar_running: bool,
    /// The sidecar's process id.
    pub(crate) pid: Option<u32>,
    /// Seconds since the sidecar started.
    pub(crate) uptime_s: Option<u64>,
    /// Whether messages get through.
    #[serde(default)]
    pub(crate) health: Health,
    /// The connection to RocketMQ.
    pub(crate) rocketmq: Rocketmq,
    /// Device → RocketMQ.
    pub(crate) uplink: Uplink,
    /// RocketMQ → device.
    pub(crate) downlink: Downlink,
    /// The dead letters; nothing while the sidecar starts.
    #[serde(default)]
    pub(crate) dead_letters: Option<Summary>,
    /// The other nodes and the clients; nothing for a node that belongs to no cluster.
    #[serde(default)]
    pub(crate) cluster: Option<crate::cluster::report::Report>,
    /// The plugin's counters by name; nothing when the plugin has not run on this spool.
    pub(crate) plugin: Option<BTreeMap<String, u64>>,
    /// How the broker is woken: `eventfd`, `pingreq`, or `unknown` before its first tick.
    pub(crate) wake: String,
    /// Mosquitto's version as the plugin saw it.
    pub(crate) broker_version: Option<String>,
}

/// See [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rocketmq {
    /// Name servers.
    pub(crate) namesrv: Vec<String>,
    /// Consumer group of this node.
    pub(crate) group: String,
    /// Up or down, since when, and the last error.
    #[serde(flatten)]
    pub(crate) connection: ConnectionSnapshot,
}

/// See [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Uplink {
    /// The hand-off log, which is the spool.
    pub(crate) log: Option<Log>,
    /// How many messages wait in it, exactly: as in `log`.
    pub(crate) waiting_messages: Option<u64>,
    /// Messages (one for all of its rules) that have ended.
    #[serde(default)]
    pub(crate) done: u64,
    /// The same, with each counted once for each of its rules.
    #[serde(default)]
    pub(crate) copies: u64,
    /// Messages that were in damaged stretches of the log.
    #[serde(default)]
    pub(crate) damaged_messages: u64,
    /// Dead letters of what the plugin could not inject and gave back.
    #[serde(default)]
    pub(crate) returned: u64,
    /// `done` and `damaged_messages` less the messages of the log that are: 0 unless the log or the counters were made anew.
    #[serde(default)]
    pub(crate) log_base: i64,
    /// Stretches of the log that failed their checksum.
    pub(crate) corrupt_frames: u64,
    /// Frames and headers of the log of which one byte was damaged, and mended: nothing is lost of these.
    #[serde(default)]
    pub(crate) repaired_frames: u64,
    /// Frames that are dead letters without a rule.
    pub(crate) unroutable: u64,
    /// The rules, those of earlier configurations too if messages of theirs came by.
    pub(crate) rules: Vec<UpRule>,
}

/// See [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Downlink {
    /// The hand-off log.
    pub(crate) log: Option<Log>,
    /// How many messages wait in it for Mosquitto, exactly: as in `log`.
    #[serde(default)]
    pub(crate) waiting_messages: Option<u64>,
    /// `handed_over` of all rules less the messages of the log: 0 unless the log or the counters were made anew.
    #[serde(default)]
    pub(crate) log_base: i64,
    /// Messages that wait in RocketMQ for this node.
    pub(crate) waiting_in_rocketmq: Option<u64>,
    /// Messages left out because they had been handed over before a restart.
    pub(crate) repeated: u64,
    /// The rules.
    pub(crate) rules: Vec<DownRule>,
}

/// A hand-off log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Log {
    /// Bytes on the disk.
    pub(crate) used_bytes: u64,
    /// Its bound; 0 when unknown.
    pub(crate) bytes_max: u64,
    /// Everything before this position is done with.
    pub(crate) released: u64,
    /// Position behind the last frame.
    pub(crate) end: u64,
    /// Bytes between the two: what waits.
    pub(crate) waiting_bytes: u64,
    /// Messages between the two. Nothing when the log's page is damaged: the next start counts them.
    #[serde(default)]
    pub(crate) waiting_messages: Option<u64>,
    /// Messages that were ever appended to it.
    #[serde(default)]
    pub(crate) messages: Option<u64>,
}

/// An uplink rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct UpRule {
    /// Its counters.
    #[serde(flatten)]
    pub(crate) counters: UpRuleSnapshot,
    /// Sent per second in the last minute.
    pub(crate) per_second: f64,
}

/// A downlink rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DownRule {
    /// Its counters.
    #[serde(flatten)]
    pub(crate) counters: DownRuleSnapshot,
    /// Handed over per second in the last minute.
    pub(crate) per_second: f64,
}
