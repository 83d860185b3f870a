//! What the sidecar needs of Apache RocketMQ, behind a trait of ours.
//!
//! This is the only crate that names the RocketMQ client library. Its generic code is instantiated here, behind
//! boxed futures, so that the crates above rebuild in seconds.
//!
//! This is not a general RocketMQ client: no transactions, no delayed messages, no consumer that shares a
//! group with others.

#![forbid(unsafe_code)]
#![recursion_limit = "512"]

mod answer;
mod backbone;
mod client;
mod consumer;
mod encode;
mod error;
mod heartbeat;
mod link;
mod probe;
mod properties;
mod route;

use std::sync::Arc;

pub use backbone::{
    Backbone, Consumer, Incoming, Interest, Outgoing, Queue, Select, Settings, StartAt,
    Subscription,
};
pub use error::Error;
pub use properties::Properties;

/// Makes a backbone out of the client library. Succeeds also while RocketMQ is away: whether it is there shows
/// in the operations.
///
/// # Errors
/// Only for settings that can never work.
pub fn connect(settings: Settings) -> Result<Arc<dyn Backbone>, Error> {
    Ok(Arc::new(client::RocketMq::new(settings)?))
}
