//! Harness of the end-to-end tests: real Mosquitto brokers with the plugin, a real RocketMQ, and clients that aren't ours.
//!
//! It sees built artifacts only. Where they are, the environment says (see [`environment`]); `scripts/test` sets it.
//! Each child process dies with its guard, and with the test process when that is killed. Waiting is polling with a deadline:
//! [`eventually`].
//!
//! This is no part of the product, and shares no code with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness of tests: what it can't do ends the test"
)]
// The plugin's and the sidecar's processes are ended by process id.
#![deny(unsafe_code)]

pub mod broker;
pub mod child;
pub mod cluster;
pub mod environment;
pub mod ledger;
pub mod mqtt;
pub mod probe;
pub mod proc;
pub mod rig;
pub mod rocketmq;
pub mod sums;
pub mod wait;

pub use broker::{Broker, BrokerSpec, Mosquitto};
pub use cluster::{Cluster, ClusterSpec};
pub use mqtt::{Client, ClientOptions, Publication, Version, Will};
pub use probe::{Produced, Stored, Topic};
pub use wait::{DEADLINE, eventually};
