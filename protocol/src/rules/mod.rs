//! Rules: which MQTT messages go to which RocketMQ topic, and which RocketMQ messages to which MQTT topic.
//!
//! ```text
//! uplink:   <filter> <TOPIC template>         [tag=T] [key=T] [order=T] [prop.NAME=T]…
//! downlink: <TOPIC>  <MQTT topic template>    [tags=A||B] [qos=0|1|2] [retain=true|false] [expiry=30s] [client=T]
//! share:    <filter>
//! ```
//!
//! Tokens are split at blanks; `"double quotes"` keep blanks, with `\"` and `\\` inside them. A rule's canonical text
//! (its `text`) parses to the same rule again: rules are stored and compared by it.

mod downlink;
pub mod rocketmq_name;
mod share;
mod table;
mod table_lines;
mod tags;
mod template;
mod tokens;
mod uplink;

pub use downlink::DownlinkRule;
pub use share::ShareRule;
pub use table::{RuleTable, TableError};
pub use tags::Tags;
pub use template::{Direction, Lookup, Missing, Template, Variable};
pub use uplink::UplinkRule;

/// Why a text is not a rule: what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (allowed: {allowed})")]
pub struct RuleError {
    /// What is wrong, with the value.
    pub problem: String,
    /// What is allowed there.
    pub allowed: String,
}

impl RuleError {
    pub(crate) fn new(problem: impl Into<String>, allowed: impl Into<String>) -> RuleError {
        RuleError {
            problem: problem.into(),
            allowed: allowed.into(),
        }
    }

    /// The same error, saying which part of the rule it is about.
    pub(crate) fn within(mut self, part: &str) -> RuleError {
        self.problem = format!("{part}: {}", self.problem);
        self
    }
}
