//! The Mosquitto plugin of the bridge: `mosquitto_rocketmq.so`.
//!
//! It runs on Mosquitto's only thread: it hands what devices publish to the sidecar through a log in shared memory,
//! before the broker acknowledges it, and injects what the sidecar hands back. It never blocks, never allocates on the
//! way up, and does no network.
//!
//! This is **not** where messages are mapped to RocketMQ, retried or batched: the sidecar does that, in a process of
//! its own, which can crash, hang or be upgraded without Mosquitto noticing.
//!
//! `TRAPS.md` beside this crate lists what Mosquitto's API does unexpectedly, and what answers each.
#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod acl;
mod acl_file;
mod bridge;
mod broker_conf;
mod broker_version;
mod carriers;
mod cluster;
mod downlink;
mod events;
#[allow(unsafe_code)]
mod ffi;
mod inject;
mod ledger;
mod limit;
mod logger;
mod login_gate;
mod pressure;
mod publish_packet;
mod refusal;
mod reject;
mod selecting;
#[allow(unsafe_code)] // one `pre_exec`
mod sidecar;
mod spool;
mod start;
#[cfg(test)]
#[allow(unsafe_code)]
mod test_alloc;
mod unreleased;
mod uplink;
mod wake;
mod wanted;
mod wills;

pub use ffi::entry::{mosquitto_plugin_cleanup, mosquitto_plugin_init, mosquitto_plugin_version};
