//! See `Cargo.toml`.
#[path = "../../../rocketmq/src/backbone.rs"]
mod backbone;
#[path = "../../../rocketmq/src/error.rs"]
mod error;

pub use backbone::*;
pub use error::Error;
