//! What Mosquitto reports, as safe values. They borrow the broker's memory and live until the callback returns.

use std::fmt;

use crate::ffi::properties::BorrowedProperties;

/// A client at the time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client<'a> {
    /// The address of the broker's record: one value per client at a time, used again after the client is gone.
    pub(crate) key: usize,
    /// Its client id; empty when it has none (yet).
    pub(crate) id: &'a str,
    /// Its user name, if it gave one in UTF-8.
    pub(crate) username: Option<&'a str>,
    /// 3 (MQTT 3.1), 4 (3.1.1), 5; 0 when not known.
    pub(crate) mqtt_version: u8,
}

/// A message that comes in, or that an access check is about.
#[derive(Clone, Copy)]
pub(crate) struct Publish<'a> {
    /// Who sends it.
    pub(crate) client: Client<'a>,
    /// The topic as the broker stores it, mount point included.
    pub(crate) topic: &'a str,
    /// The payload, empty included.
    pub(crate) payload: &'a [u8],
    /// 0, 1 or 2.
    pub(crate) qos: u8,
    /// The retain flag.
    pub(crate) retain: bool,
    /// MQTT 5 properties.
    pub(crate) properties: BorrowedProperties<'a>,
    /// Its message expiry, where that is not among the properties.
    pub(crate) expiry: Expiry<'a>,
}

/// Finds the message expiry of a publish, in seconds. To be asked only about what is wanted: it reads in the broker.
pub(crate) type Expiry<'a> = &'a dyn Fn(&Publish<'_>) -> Option<u32>;

/// Of what is not a device's publish, or may yet be none.
pub(crate) const NO_EXPIRY: Expiry<'static> = &|_| None;

impl Publish<'_> {
    /// Its message expiry in seconds, where that is not among the properties.
    pub(crate) fn expiry_s(&self) -> Option<u32> {
        (self.expiry)(self)
    }
}

/// The broker's version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BrokerVersion {
    /// 2 in all that we support.
    pub(crate) major: u32,
    /// 0 or 1.
    pub(crate) minor: u32,
    /// The last part.
    pub(crate) revision: u32,
}

impl BrokerVersion {
    /// As the counters page has it: major × 1,000,000 + minor × 1,000 + revision.
    pub(crate) fn as_number(self) -> u64 {
        u64::from(self.major) * 1_000_000 + u64::from(self.minor) * 1_000 + u64::from(self.revision)
    }
}

impl fmt::Display for BrokerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.revision)
    }
}
