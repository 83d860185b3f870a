//! What plugin and sidecar share: the message and its bytes, the configuration with its rules, the topic trie, and the
//! list of the plugin's counters.
//!
//! This is not the transport (that is the crate `handoff`) and not the mapping onto RocketMQ (that is the sidecar's).
//! Everything here works on untrusted bytes and text: it answers with a value or with an error that names what is
//! wrong, and never panics on input.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod config;
pub mod counters;
pub mod message;
pub mod rules;
pub mod topic;
pub mod trie;
