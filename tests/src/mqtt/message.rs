//! What is published, what comes, and what becomes of it.

use std::time::Instant;

use super::PublishProperties;

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// MQTT 5 properties.
    pub properties: Option<PublishProperties>,
}

impl Publication {
    /// A message of QoS 1.
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>) -> Publication {
        Publication {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos: 1,
            retain: false,
            properties: None,
        }
    }

    /// Sets the QoS.
    pub fn qos(mut self, qos: u8) -> Publication {
        self.qos = qos;
        self
    }

    /// Sets the retain flag.
    pub fn retain(mut self) -> Publication {
        self.retain = true;
        self
    }

    /// Sets MQTT 5 properties.
    pub fn properties(mut self, properties: PublishProperties) -> Publication {
        self.properties = Some(properties);
        self
    }
}

/// A message that came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS of the delivery.
    pub qos: u8,
    /// Whether it was delivered as a retained message.
    pub retain: bool,
    /// MQTT 5 properties; default for 3.1.1.
    pub properties: PublishProperties,
    /// When it came.
    pub at: Instant,
}

impl Received {
    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// What the broker did with a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// QoS 0: written to the socket; nothing more is known.
    Sent,
    /// QoS 1 and 2: acknowledged with this reason, as rumqttc names it. QoS 2: at PUBCOMP, or at the PUBREC that refused it.
    Acknowledged(String),
    /// The connection ended before, with what rumqttc says of it.
    Closed(String),
}

impl Outcome {
    /// Acknowledged, and taken. For QoS 0: sent.
    pub fn is_taken(&self) -> bool {
        match self {
            Outcome::Sent => true,
            Outcome::Acknowledged(reason) => {
                reason == "Success" || reason == "NoMatchingSubscribers"
            }
            Outcome::Closed(_) => false,
        }
    }
}
