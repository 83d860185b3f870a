//! MQTT connections in which sessions are resumed by the book, so that every repetition is one that MQTT asks for.

mod five;
mod four;
mod link;

pub(crate) use link::Link;

/// What a broker says, in one vocabulary for both versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// CONNACK.
    Connected {
        accepted: bool,
        session_present: bool,
    },
    /// PUBACK; `refused` with the reason's name.
    Acknowledged {
        packet: u16,
        refused: Option<String>,
    },
    /// PUBREC; `refused` with the reason's name.
    Received {
        packet: u16,
        refused: Option<String>,
    },
    /// PUBCOMP.
    Completed { packet: u16 },
    /// SUBACK.
    Granted { granted: bool },
    /// PUBLISH.
    Message {
        packet: u16,
        qos: u8,
        again: bool,
        payload: Vec<u8>,
    },
    /// Anything else.
    Other,
}

/// Of both versions, no longer than any message of the load.
const PACKET_BYTES_MAX: u32 = 1024 * 1024;
const KEEP_ALIVE_S: u16 = 60;
const SESSION_EXPIRY_S: u32 = 3600;
