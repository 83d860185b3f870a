//! The configuration: the `plugin_opt_` lines of `mosquitto.conf` and the rules file.
//!
//! [`Config::from_options`] checks everything and tells all that is wrong at once. The plugin writes
//! [`Config::effective_options`] into the spool as `options.conf`, from which the sidecar reads the same configuration
//! back. Each option is described in `docs/configuration.md`.

mod choices;
mod draft;
mod effective;
mod errors;
mod lines;
pub mod mosquitto_conf;
mod nearest;
mod node;
mod options;
mod sealed;
pub(crate) mod units;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use choices::{Layout, Level, SidecarMode, SpoolFull, SpoolSync, StartFrom, Wake};
pub use errors::{ConfigError, ConfigErrors};
pub use lines::parse_options_file;
pub use options::names as option_names;
pub use sealed::{is_sound, seal};

use crate::cluster::Topics;
use crate::rules::{DownlinkRule, ShareRule, UplinkRule};

/// A checked configuration. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// RocketMQ's name servers, each `host:port`.
    pub namesrv: Vec<String>,
    /// Name of this node, unique among the nodes of one RocketMQ.
    pub node_id: String,
    /// Directory of the hand-off logs.
    pub spool_dir: PathBuf,
    /// Bound of the uplink log.
    pub spool_bytes_max: u64,
    /// Size of a segment of the uplink log: also bounds a message.
    pub spool_segment_bytes: u64,
    /// When the spool is synced.
    pub spool_sync: SpoolSync,
    /// What happens when the spool is full.
    pub spool_full: SpoolFull,
    /// Percent of `spool_bytes_max` beyond which new logins are refused; 100: never.
    pub spool_high_water: u8,
    /// Bound of the downlink log.
    pub downlink_bytes_max: u64,
    /// Messages handed to the broker in one turn of its loop, at most.
    pub downlink_per_tick: u32,
    /// How long one connected client that takes nothing may hold up the others.
    pub downlink_hold: Duration,
    /// How long what was injected is kept, to be injected again if Mosquitto is killed before it has saved its sessions.
    pub downlink_release_delay: Duration,
    /// Where a downlink starts when the group has no offset.
    pub downlink_from: StartFrom,
    /// Name of the cluster that this node belongs to; nothing: to none.
    pub cluster: Option<String>,
    /// What the nodes of the cluster have in common, those of the rules file last.
    pub share: Vec<ShareRule>,
    /// Client ids of native bridges between nodes of the cluster.
    pub cluster_bridge: Vec<String>,
    /// How long a node may be silent before the others take it for dead.
    pub cluster_node_timeout: Duration,
    /// How long a message for a client that is nowhere in the cluster is kept; 0: not at all.
    pub cluster_keep_time: Duration,
    /// How many of them are kept for one client: the newest.
    pub cluster_keep_messages: u32,
    /// After how long a retained message is stored once more; 0: never.
    pub cluster_retained_refresh: Duration,
    /// Where it is published which client is there, before `/<client id>`; nothing: nowhere.
    pub cluster_presence: Option<String>,
    /// MQTT → RocketMQ, those of the rules file last.
    pub uplink: Vec<UplinkRule>,
    /// RocketMQ → MQTT, those of the rules file last.
    pub downlink: Vec<DownlinkRule>,
    /// File of further rules.
    pub rules_file: Option<PathBuf>,
    /// Who starts the sidecar.
    pub sidecar: SidecarMode,
    /// The sidecar's binary; nothing: it is looked for.
    pub sidecar_path: Option<PathBuf>,
    /// How the broker is woken.
    pub wake: Wake,
    /// Names used in RocketMQ messages.
    pub layout: Layout,
    /// Consumer group of this node.
    pub group: String,
    /// Producer group of this node.
    pub producer_group: String,
    /// Body bytes of a batch, at most.
    pub batch_bytes_max: u64,
    /// Messages of a batch, at most.
    pub batch_messages_max: u32,
    /// Bytes the sidecar holds in memory on the way up, at most.
    pub in_flight_bytes_max: u64,
    /// How long the sidecar may go on sending when it is to end.
    pub drain_timeout: Duration,
    /// How long RocketMQ must say that a topic does not exist before messages for it are dead letters.
    pub topic_missing_timeout: Duration,
    /// How long a message is sent again that RocketMQ has stored on the master alone, before that counts as stored.
    pub replica_timeout: Duration,
    /// Bound of the dead letters.
    pub dead_letter_bytes_max: u64,
    /// Where the sidecar's HTTP listens beside its socket in the spool; nothing: nowhere.
    pub http_listen: Option<SocketAddr>,
    /// What is logged.
    pub log_level: Level,
    /// The options as they were given, for [`Config::reload_rules`].
    source: Vec<(String, String)>,
}

impl Config {
    /// Reads the options as Mosquitto hands them over (keys without `plugin_opt_`), and the rules file that they name.
    ///
    /// # Errors
    /// With everything that is wrong, not only the first.
    pub fn from_options<'a>(
        options: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Config, ConfigErrors> {
        draft::Draft::read(
            options
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// The same configuration with the rules file read again. Without a rules file it is the same altogether.
    ///
    /// # Errors
    /// With everything that is wrong with the file; this configuration stays good.
    pub fn reload_rules(&self) -> Result<Config, ConfigErrors> {
        let fresh = draft::Draft::read(self.source.clone())?;
        // Only the rules: a default such as the host name may meanwhile have become another.
        Ok(Config {
            uplink: fresh.uplink,
            downlink: fresh.downlink,
            share: fresh.share,
            ..self.clone()
        })
    }

    /// The RocketMQ topics of the cluster, when the node belongs to one.
    pub fn cluster_topics(&self) -> Option<Topics> {
        self.cluster.as_deref().map(Topics::of)
    }

    /// The one rule by which all that is shared goes up, whatever filter wants it; its own filter says nothing.
    pub fn shared_uplink(&self) -> Option<UplinkRule> {
        let topics = self.cluster_topics().filter(|_| !self.share.is_empty())?;
        Some(ShareRule::uplink(&topics))
    }

    /// The one rule by which all that is shared comes down.
    pub fn shared_downlink(&self) -> Option<DownlinkRule> {
        let topics = self.cluster_topics().filter(|_| !self.share.is_empty())?;
        Some(ShareRule::downlink(&topics))
    }

    /// Segment size of the downlink log: an eighth of its bound, and no more than the uplink's.
    pub fn downlink_segment_bytes(&self) -> u64 {
        let eighth = self.downlink_bytes_max / 8;
        self.spool_segment_bytes
            .min(eighth - eighth % options::PAGE)
    }
}
