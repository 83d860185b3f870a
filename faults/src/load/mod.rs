//! The load under which a fault happens: devices that publish, producers and subscribers, each keeping its own account.

mod downlink;
mod listeners;
mod payload;
mod producer;
mod publisher;
mod subscriber;
mod uplink;

use std::time::{SystemTime, UNIX_EPOCH};

use harness::Version;
use harness::ledger::Number;

pub use downlink::{DownlinkLoad, Stored};
pub use listeners::Listeners;
pub(crate) use listeners::for_each_listener;
pub(crate) use payload::read_up;
pub use uplink::{Published, UplinkLoad};

/// How many devices publish, and how many others receive.
pub const DEVICES: usize = 4;

/// How much load.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Messages that each publishing device sends at once, ten times a second.
    pub burst: usize,
    /// Length of an uplink payload.
    pub payload_bytes: usize,
    /// Messages a second to each receiving device.
    pub downlink_per_s: u32,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate {
            burst: 6,
            payload_bytes: 128,
            downlink_per_s: 25,
        }
    }
}

/// Half of the devices speak MQTT 3.1.1, half MQTT 5.
pub(crate) fn version_of(device: usize) -> Version {
    Version::ALL[device % 2]
}

/// Half use QoS 1, half QoS 2, each in both versions.
pub(crate) fn qos_of(device: usize) -> u8 {
    if (device / 2).is_multiple_of(2) { 1 } else { 2 }
}

/// Which of two brokers a device is at: each has both MQTT versions and both levels of service.
pub(crate) fn home_of(device: usize) -> usize {
    (device + device / 2) % 2
}

/// What a listener hears of a publisher is counted by itself.
pub(crate) fn pair(listener: usize, publisher: usize) -> usize {
    listener * DEVICES + publisher
}

/// One arrival of a message, whole and on its own topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Device and sequence number, from the payload.
    pub number: Number,
    /// What tells one sending of it from another: up, the identity that our plugin gave it; down, the producer's attempt.
    pub identity: String,
    /// It carries MQTT's DUP flag: a repetition that MQTT asks for when a connection was lost.
    pub again: bool,
    /// Unix ms.
    pub at_ms: i64,
}

/// Now, in Unix ms.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// The client id of a publishing device.
pub(crate) fn publisher_id(device: usize) -> String {
    format!("publisher-{device}")
}

/// Where a publishing device publishes.
pub(crate) fn up_topic(device: usize) -> String {
    format!("load/{device}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_used_at_both_levels_of_service() {
        let mixes: std::collections::BTreeSet<_> = (0..DEVICES)
            .map(|device| (version_of(device).number(), qos_of(device)))
            .collect();
        assert_eq!(mixes.len(), 4);
        for home in 0..2 {
            let there = || (0..DEVICES).filter(move |device| home_of(*device) == home);
            let versions: std::collections::BTreeSet<_> =
                there().map(|device| version_of(device).number()).collect();
            let levels: std::collections::BTreeSet<_> = there().map(qos_of).collect();
            assert_eq!((versions.len(), levels.len()), (2, 2));
        }
    }
}
