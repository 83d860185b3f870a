//! The bridge that one would write today (`bench/java/Bridge.java`): Paho on the one side, RocketMQ's own client on the other.

use anyhow::Result;

use crate::child;
use crate::java::Java;
use crate::mosquitto::Setup;

/// Name of this reference in the table.
pub(crate) const NAME: &str = "Paho and RocketMQ's client in Java";
/// As a user would give it: it is never short of memory, and the collector has two cores.
const HEAP: [&str; 2] = ["-Xms128m", "-Xmx512m"];

/// A running reference bridge. It ends with this value.
pub(crate) struct ReferenceBridge {
    java: Java,
}

impl ReferenceBridge {
    /// From devices to RocketMQ.
    pub(crate) fn up(setup: &Setup, port: u16, filter: &str, topic: &str) -> Result<Self> {
        Self::start(setup, "up", port, filter, topic)
    }

    /// From RocketMQ to devices, from the oldest message on.
    pub(crate) fn down(setup: &Setup, port: u16, mqtt_topic: &str, topic: &str) -> Result<Self> {
        Self::start(setup, "down", port, mqtt_topic, topic)
    }

    fn start(setup: &Setup, mode: &str, port: u16, mqtt_topic: &str, topic: &str) -> Result<Self> {
        let port = port.to_string();
        let arguments = ["Bridge", mode, &port, mqtt_topic, &setup.namesrv, topic];
        let arguments = arguments.map(str::to_owned);
        let mut java = Java::start(setup, "reference-bridge", &HEAP, &arguments)?;
        java.expect("ready")?;
        Ok(ReferenceBridge { java })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.java.pid()
    }

    /// The most memory that it ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        child::peak_mib(self.pid())
    }
}

/// Lines of Mosquitto's configuration with which a bridge's client gets everything: no limit of what waits for it or is in flight.
pub(crate) fn mosquitto_lines() -> Vec<String> {
    vec![
        "max_inflight_messages 0".to_owned(),
        "max_queued_messages 0".to_owned(),
    ]
}
