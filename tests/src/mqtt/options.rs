//! How a client connects.

use std::net::Ipv4Addr;

/// The MQTT version a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1
    V311,
    /// 5
    V5,
}

impl Version {
    /// Both.
    pub const ALL: [Version; 2] = [Version::V311, Version::V5];

    /// As `mqtt_version` has it.
    pub fn number(self) -> &'static str {
        match self {
            Version::V311 => "4",
            Version::V5 => "5",
        }
    }
}

/// A will.
#[derive(Debug, Clone, Default)]
pub struct Will {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// MQTT 5: seconds after which it is published.
    pub delay_s: Option<u32>,
    /// MQTT 5: content type.
    pub content_type: Option<String>,
    /// MQTT 5: user properties.
    pub user_properties: Vec<(String, String)>,
}

impl Will {
    /// A will of QoS 1.
    pub fn new(topic: &str, payload: &str) -> Will {
        Will {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos: 1,
            ..Will::default()
        }
    }

    /// Sets the delay.
    pub fn delay_s(mut self, seconds: u32) -> Will {
        self.delay_s = Some(seconds);
        self
    }
}

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// MQTT version.
    pub version: Version,
    /// Client id.
    pub id: String,
    /// Whether the session of the last connection goes on, and this one lives on.
    pub persistent: bool,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Will.
    pub will: Option<Will>,
    /// How many publishes of QoS 1 and 2 may wait for their acknowledgement.
    pub in_flight_max: u16,
    /// Where the broker is.
    pub address: Ipv4Addr,
}

impl ClientOptions {
    /// A client with a clean session.
    pub fn new(version: Version, id: &str) -> ClientOptions {
        ClientOptions {
            version,
            id: id.to_owned(),
            persistent: false,
            credentials: None,
            will: None,
            in_flight_max: 20,
            address: Ipv4Addr::LOCALHOST,
        }
    }

    /// Connects to this address rather than to 127.0.0.1.
    pub fn address(mut self, address: Ipv4Addr) -> ClientOptions {
        self.address = address;
        self
    }

    /// Keeps the session.
    pub fn persistent(mut self) -> ClientOptions {
        self.persistent = true;
        self
    }

    /// Sets the will.
    pub fn will(mut self, will: Will) -> ClientOptions {
        self.will = Some(will);
        self
    }

    /// Logs in.
    pub fn credentials(mut self, user: &str, password: &str) -> ClientOptions {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }
}
