//! One MQTT message as it crosses between plugin and sidecar, in both directions.
//!
//! [`Message`] borrows everything: encoding writes straight into the frame that the hand-off log claimed, decoding
//! points into the frame that it lent. Neither copies a payload elsewhere nor allocates.

mod codec;
mod command;
mod epochs;
mod event;
mod identity;
mod properties;
mod returned;
mod rule_ids;
mod selected;

pub use codec::{DecodeError, FORMAT_VERSION, HEADER_LEN};
pub use command::{Command, DownlinkFrame};
pub use epochs::Epochs;
pub use event::{Event, What};
pub use identity::{Identity, IdentityError};
pub use properties::{Properties, Property, PropertyBuffer, PropertyError, PropertyIter, TooLong};
pub use returned::{Returned, UplinkFrame};
pub use rule_ids::{RuleIds, RuleIdsIter};
pub use selected::{Audience, ClientIdBuffer, ClientIds, Selected};

/// MQTT's quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of the number 0, 1 or 2; nothing for any other.
    pub fn from_u8(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// The number 0, 1 or 2.
    pub fn as_u8(self) -> u8 {
        self as u8
    }
}

/// One MQTT message on its way between Mosquitto and RocketMQ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Message<'a> {
    /// The MQTT topic it was, or is to be, published on.
    pub topic: &'a str,
    /// The payload, untouched.
    pub payload: &'a [u8],
    /// Quality of service of the publish.
    pub qos: QoS,
    /// Whether the publish carries the retain flag.
    pub retain: bool,
    /// Whether this is a will that the broker published for a lost client.
    pub will: bool,
    /// Protocol version of the publishing client as MQTT numbers it: 3 (3.1), 4 (3.1.1), 5; 0 when unknown.
    pub mqtt_version: u8,
    /// Uplink: who sent it. Downlink: the one client to deliver to, or empty for delivery by subscription.
    pub client_id: &'a str,
    /// The user name the publishing client logged in with.
    pub username: Option<&'a str>,
    /// When the node took the message: milliseconds of the Unix epoch.
    pub received_at_ms: u64,
    /// MQTT 5 message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// The other MQTT 5 properties.
    pub properties: Properties<'a>,
    /// Uplink: everything that stands in the downlink log before this position was injected before this was published. Told of retained
    /// messages under a shared filter.
    pub injected: Option<u64>,
    /// Ids (of the spool's rule table) of the rules that want this message.
    pub rules: RuleIds<'a>,
}

impl Default for Message<'_> {
    fn default() -> Self {
        Message {
            topic: "",
            payload: &[],
            qos: QoS::AtMostOnce,
            retain: false,
            will: false,
            mqtt_version: 0,
            client_id: "",
            username: None,
            received_at_ms: 0,
            expiry_s: None,
            properties: Properties::EMPTY,
            injected: None,
            rules: RuleIds::EMPTY,
        }
    }
}
