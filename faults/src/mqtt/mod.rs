//! MQTT connections in which sessions are resumed by the book, so that every repetition is one that MQTT asks for.

/// A packet of either version, whose types have the same names, in [`Packet`]'s vocabulary. Of PUBACK and PUBREC the version says by
/// which reason they refuse.
macro_rules! heard {
    ($packet:expr, $Version:ident, $puback:expr, $pubrec:expr) => {
        match $packet {
            $Version::ConnAck(ack) => Packet::Connected {
                accepted: ack.code == ConnectReturnCode::Success,
                session_present: ack.session_present,
            },
            $Version::PubAck(ack) => Packet::Acknowledged {
                packet: ack.pkid,
                refused: $puback(&ack),
            },
            $Version::PubRec(ack) => Packet::Received {
                packet: ack.pkid,
                refused: $pubrec(&ack),
            },
            $Version::PubComp(ack) => Packet::Completed { packet: ack.pkid },
            $Version::SubAck(ack) => Packet::Granted {
                granted: ack
                    .return_codes
                    .iter()
                    .all(|code| matches!(code, SubscribeReasonCode::Success(_))),
            },
            $Version::Publish(message) => Packet::Message {
                packet: message.pkid,
                topic: Vec::from(message.topic),
                again: message.dup,
                payload: message.payload.to_vec(),
            },
            // Also what it says before it closes: the next read says that it has.
            _ => Packet::Other,
        }
    };
}

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
        topic: Vec<u8>,
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
