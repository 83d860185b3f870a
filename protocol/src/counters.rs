//! The plugin's counters: indices into the counter page `plugin.counters` in the spool directory, which the plugin
//! writes and the sidecar reads. The order is part of the page's format: new ones go to the end.

/// Publishes that at least one uplink rule wanted.
pub const UPLINK_MATCHED: usize = 0;
/// Messages appended to the uplink log.
pub const UPLINK_APPENDED: usize = 1;
/// Encoded bytes appended to the uplink log.
pub const UPLINK_BYTES: usize = 2;
/// QoS 0 messages not bridged because the spool was full; delivered locally all the same.
pub const UPLINK_DROPPED_QOS0_FULL: usize = 3;
/// QoS 1 and 2 messages not bridged because the spool was full and `spool_full` is `drop`.
pub const UPLINK_DROPPED_FULL: usize = 4;
/// QoS 1 and 2 messages refused because the spool was full: the client got no acknowledgement.
pub const UPLINK_REFUSED: usize = 5;
/// Messages larger than a segment of the spool.
pub const UPLINK_TOO_LARGE: usize = 6;
/// Messages that could not be appended for any other reason.
pub const UPLINK_ERRORS: usize = 7;
/// Wills appended to the uplink log (counted in `UPLINK_APPENDED` too).
pub const WILLS_APPENDED: usize = 8;
/// Downlink messages that the broker took.
pub const DOWNLINK_INJECTED: usize = 9;
/// Downlink messages that the broker refused or that could not be read: returned over the uplink log, to become dead letters.
pub const DOWNLINK_FAILED: usize = 10;
/// Stretches of the downlink log that did not verify.
pub const DOWNLINK_CORRUPT: usize = 11;
/// Panics caught at Mosquitto's boundary.
pub const PLUGIN_PANICS: usize = 12;
/// How the broker's thread is woken: 0 not yet known, 1 eventfd, 2 PINGREQ connection.
pub const WAKEUP: usize = 13;
/// How often the plugin started a sidecar.
pub const SIDECAR_STARTS: usize = 14;
/// Reloads of the rules file that took effect.
pub const RELOADS_OK: usize = 15;
/// Reloads of the rules file that were refused: the old rules stayed at work.
pub const RELOADS_FAILED: usize = 16;
/// Mosquitto's version: major × 1,000,000 + minor × 1,000 + revision.
pub const BROKER_VERSION: usize = 17;
/// When the plugin started: milliseconds of the Unix epoch.
pub const STARTED_AT_MS: usize = 18;
/// Logins refused because the spool was filled beyond its high-water mark.
pub const LOGINS_REFUSED: usize = 19;
/// Deliveries of downlink messages that Mosquitto dropped because the queue of the client was full.
pub const DOWNLINK_QUEUE_DROPPED: usize = 20;
/// How often the downlink was held because the queue of a connected client was full.
pub const DOWNLINK_HOLDS: usize = 21;
/// Downlink messages whose expiry passed while they waited in the log.
pub const DOWNLINK_EXPIRED: usize = 22;
/// Messages that came down and could not be injected, given back over the uplink log.
pub const UPLINK_RETURNED: usize = 23;
/// Publishes in the midst of which Mosquitto was killed: neither kept nor acknowledged.
pub const UPLINK_INTERRUPTED: usize = 24;
/// Messages counted as appended or returned that the uplink log no longer had at the next start: lost with the machine's power.
pub const UPLINK_LOST: usize = 25;
/// Messages that were in damaged stretches of the downlink log.
pub const DOWNLINK_DAMAGED: usize = 26;
/// When the broker ticked last: milliseconds of the Unix epoch. An idle broker need not.
pub const LAST_TICK_MS: usize = 27;
/// The uplink log that is counted, by its epoch.
pub const UPLINK_LOG_EPOCH: usize = 28;
/// How many frames of it are counted.
pub const UPLINK_LOG_FRAMES: usize = 29;
/// `UPLINK_APPENDED` + `UPLINK_RETURNED` − `UPLINK_LOST` − the frames of the log, wrapping: 0 unless logs or counters were made anew.
pub const UPLINK_LOG_BASE: usize = 30;
/// The downlink log that is counted, by its epoch.
pub const DOWNLINK_LOG_EPOCH: usize = 31;
/// Everything before this position of it is counted.
pub const DOWNLINK_LOG_POSITION: usize = 32;
/// How many of its frames are counted.
pub const DOWNLINK_LOG_FRAMES: usize = 33;
/// The downlink's final counters less the frames of the log, wrapping: as `UPLINK_LOG_BASE`.
pub const DOWNLINK_LOG_BASE: usize = 34;
/// Commands of the sidecar that came down the downlink log.
pub const DOWNLINK_COMMANDS: usize = 35;

/// What native bridges between nodes of the cluster brought, and RocketMQ brings: not delivered.
pub const CLUSTER_BRIDGE_DROPPED: usize = 36;

/// What a publish ends in, which `UPLINK_MATCHED` has counted when it began. Exactly one of them.
pub const UPLINK_ENDS: &[usize] = &[
    UPLINK_APPENDED,
    UPLINK_DROPPED_QOS0_FULL,
    UPLINK_DROPPED_FULL,
    UPLINK_REFUSED,
    UPLINK_TOO_LARGE,
    UPLINK_ERRORS,
    UPLINK_INTERRUPTED,
];
/// What a frame of the downlink log ends in. Exactly one of them.
pub const DOWNLINK_ENDS: &[usize] = &[
    DOWNLINK_INJECTED,
    DOWNLINK_EXPIRED,
    DOWNLINK_FAILED,
    DOWNLINK_DAMAGED,
    DOWNLINK_COMMANDS,
];

/// Names of the counters, by index.
pub const NAMES: &[&str] = &[
    "uplink_matched",
    "uplink_appended",
    "uplink_bytes",
    "uplink_dropped_qos0_full",
    "uplink_dropped_full",
    "uplink_refused",
    "uplink_too_large",
    "uplink_errors",
    "wills_appended",
    "downlink_injected",
    "downlink_failed",
    "downlink_corrupt",
    "plugin_panics",
    "wakeup",
    "sidecar_starts",
    "reloads_ok",
    "reloads_failed",
    "broker_version",
    "started_at_ms",
    "logins_refused",
    "downlink_queue_dropped",
    "downlink_holds",
    "downlink_expired",
    "uplink_returned",
    "uplink_interrupted",
    "uplink_lost",
    "downlink_damaged",
    "last_tick_ms",
    "uplink_log_epoch",
    "uplink_log_frames",
    "uplink_log_base",
    "downlink_log_epoch",
    "downlink_log_position",
    "downlink_log_frames",
    "downlink_log_base",
    "downlink_commands",
    "cluster_bridge_dropped",
];

const _: () = assert!(NAMES.len() == CLUSTER_BRIDGE_DROPPED + 1);

/// How many counters there are: the size to create the page with.
pub const COUNT: usize = NAMES.len();
