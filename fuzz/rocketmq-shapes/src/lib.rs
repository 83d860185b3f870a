//! See `Cargo.toml`.
#[path = "../../../rocketmq/src/backbone.rs"]
mod backbone;
#[path = "../../../rocketmq/src/error.rs"]
mod error;
#[path = "../../../rocketmq/src/properties.rs"]
mod properties;

pub use backbone::*;
pub use error::Error;
pub use properties::Properties;
