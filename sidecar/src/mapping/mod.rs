//! From MQTT to RocketMQ and back. `docs/mapping.md` has the tables.
//!
//! Pure functions: no clocks, no network, no state. What can't be mapped is a [`MapError`], which no retry mends: the message
//! becomes a dead letter with that text as its reason.

mod apsara;
pub(crate) mod downlink;
mod escape;
mod facts;
pub(crate) mod names;
pub(crate) mod seal;
#[cfg(test)]
mod tests;
pub(crate) mod uplink;

pub(crate) use escape::{escape, unescape};

/// Why a message can't be mapped by a rule. Permanent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MapError {
    /// A template asks for something that the message does not have.
    #[error("{what} of the rule can't be made: {missing}")]
    Template {
        /// Which part of the rule: `topic`, `client`.
        what: &'static str,
        /// What the message lacks.
        missing: String,
    },
    /// The topic that the template made is not one that RocketMQ takes.
    #[error("the rule makes the RocketMQ topic {topic:?}, which RocketMQ refuses: {problem}")]
    RocketmqTopic {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The topic that the template made is not one that can be published on.
    #[error("the rule makes the MQTT topic {topic:?}, which {problem}")]
    MqttTopic {
        /// The topic, cut after 200 characters.
        topic: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More properties than RocketMQ stores with a message.
    #[error(
        "topic, names and properties take {bytes} bytes as RocketMQ properties; at most {max} fit"
    )]
    PropertiesTooLarge {
        /// Bytes needed.
        bytes: usize,
        /// Bytes there are.
        max: usize,
    },
}

/// RocketMQ keeps the length of all properties of a message in a signed 16-bit number. Some room is for those that the client
/// adds itself (UNIQ_KEY, WAIT, CLUSTER …), and some for those that are added when the message is sent (`mqtt_lane`,
/// `mqtt_copy`, `mqtt_retained_at`).
const PROPERTIES_BYTES_MAX: usize = 32_767 - 512 - 128;

/// Text that Mosquitto takes as an MQTT string: at most 65,535 bytes, no control characters and no non-characters.
fn is_mqtt_text(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX)
        && text.chars().all(|c| {
            let code = u32::from(c);
            !c.is_control() && !(0xFDD0..=0xFDEF).contains(&code) && code & 0xFFFE != 0xFFFE
        })
}

/// At most 200 characters of a text that somebody else wrote, for messages.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
