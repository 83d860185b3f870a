//! The bytes of a message. All integers are little-endian; the parts follow each other without padding.
//!
//! ```text
//!  0        1        2        3        4                                   8
//! +--------+--------+--------+--------+-----------------------------------+
//! |version | flags  | mqtt   | 0      | expiry_s (0 unless flag EXPIRY)   |
//! +--------+--------+--------+--------+-----------------------------------+
//! | received_at_ms                                                        | 16
//! +-----------------------------------+-----------------------------------+
//! | topic_len                         | client_id_len                     | 24
//! +-----------------------------------+-----------------------------------+
//! | username_len                      | rule_count                        | 32
//! +-----------------------------------+-----------------------------------+
//! | properties_len                    | payload_len                       | 40
//! +-----------------------------------+-----------------------------------+
//! | injected, u64, with INJECTED alone                                    |
//! +-----------------------------------------------------------------------+
//! | topic | client_id | username | rule_count × u32 | properties | payload |
//! +-----------------------------------------------------------------------+
//! flags: bits 0–1 QoS, 2 RETAIN, 3 WILL, 4 USERNAME (there is one), 5 EXPIRY (there is one), 6 INJECTED (there is one), 7 zero
//! ```
//!
//! Properties are in MQTT 5's own wire form (see [`super::Properties`]).

use super::properties::PropertyError;
use super::{Message, Properties, QoS, RuleIds};

/// Version of the byte form; the first byte of every message.
pub const FORMAT_VERSION: u8 = 1;
/// Bytes before the topic.
pub const HEADER_LEN: usize = 40;

const QOS_MASK: u8 = 0b11;
const RETAIN: u8 = 1 << 2;
const WILL: u8 = 1 << 3;
const USERNAME: u8 = 1 << 4;
const EXPIRY: u8 = 1 << 5;
const INJECTED: u8 = 1 << 6;
const RESERVED: u8 = 0b1000_0000;
/// Bytes of the position with INJECTED.
const INJECTED_LEN: usize = 8;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the header, or fewer than the header says follow it.
    #[error("message is cut short: {found} bytes of {needed}")]
    Short {
        /// Bytes that there are.
        found: usize,
        /// Bytes that there should be.
        needed: u64,
    },
    /// More bytes than the header says.
    #[error("{extra} bytes behind the end of the message")]
    Trailing {
        /// How many too many.
        extra: usize,
    },
    /// Written by another version of this software.
    #[error("message format {found}, this version reads {FORMAT_VERSION}")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// A header field has a value that no version 1 writer writes.
    #[error("message header: {field} is {value}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What stands there.
        value: u32,
    },
    /// A string is not UTF-8.
    #[error("{field} is not UTF-8")]
    Utf8 {
        /// Name of the field.
        field: &'static str,
    },
    /// The properties are broken.
    #[error("properties: {0}")]
    Properties(#[from] PropertyError),
}

/// Hands out consecutive parts of a slice whose whole length was checked before.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, len: u32) -> &'a [u8] {
        let (head, tail) = self
            .0
            .split_at_checked(len as usize)
            .unwrap_or((self.0, &[]));
        self.0 = tail;
        head
    }

    fn word(&mut self) -> u64 {
        let bytes = self.take(INJECTED_LEN as u32);
        u64::from_le_bytes(bytes.try_into().unwrap_or_default())
    }

    fn text(&mut self, len: u32, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.take(len)).map_err(|_| DecodeError::Utf8 { field })
    }
}

fn u32_at(header: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// Lengths are bounded by what the log can claim, far below 4 GiB.
fn len_bytes(len: usize) -> [u8; 4] {
    debug_assert!(u32::try_from(len).is_ok());
    (len as u32).to_le_bytes()
}

impl<'a> Message<'a> {
    /// Exact number of bytes that [`Message::encode_into`] writes.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN
            + self.injected.map_or(0, |_| INJECTED_LEN)
            + self.topic.len()
            + self.client_id.len()
            + self.username.map_or(0, str::len)
            + self.rules.len() * 4
            + self.properties.as_bytes().len()
            + self.payload.len()
    }

    /// Writes the message into `out`. Does not allocate.
    ///
    /// # Panics
    /// When `out` is not exactly [`Message::encoded_len`] long: the caller claimed the wrong size.
    pub fn encode_into(&self, out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.encoded_len(),
            "the frame must have the message's size"
        );
        let username = self.username.unwrap_or("");
        let properties = self.properties.as_bytes();
        out[0] = FORMAT_VERSION;
        out[1] = self.flags();
        out[2] = self.mqtt_version;
        out[3] = 0;
        out[4..8].copy_from_slice(&self.expiry_s.unwrap_or(0).to_le_bytes());
        out[8..16].copy_from_slice(&self.received_at_ms.to_le_bytes());
        out[16..20].copy_from_slice(&len_bytes(self.topic.len()));
        out[20..24].copy_from_slice(&len_bytes(self.client_id.len()));
        out[24..28].copy_from_slice(&len_bytes(username.len()));
        out[28..32].copy_from_slice(&len_bytes(self.rules.len()));
        out[32..36].copy_from_slice(&len_bytes(properties.len()));
        out[36..40].copy_from_slice(&len_bytes(self.payload.len()));
        let mut at = HEADER_LEN;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(position) = self.injected {
            put(&position.to_le_bytes());
        }
        put(self.topic.as_bytes());
        put(self.client_id.as_bytes());
        put(username.as_bytes());
        for rule in self.rules.iter() {
            put(&rule.to_le_bytes());
        }
        put(properties);
        put(self.payload);
    }

    fn flags(&self) -> u8 {
        let mut flags = self.qos.as_u8();
        flags |= if self.retain { RETAIN } else { 0 };
        flags |= if self.will { WILL } else { 0 };
        flags |= if self.username.is_some() { USERNAME } else { 0 };
        flags |= if self.injected.is_some() { INJECTED } else { 0 };
        flags | if self.expiry_s.is_some() { EXPIRY } else { 0 }
    }

    /// Reads a message out of `bytes`, which must hold exactly one. Nothing is copied.
    ///
    /// # Errors
    /// Any bytes that [`Message::encode_into`] does not write, with the field that is wrong.
    pub fn decode(bytes: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        // The version comes first: of another version not even the header's length is known.
        match bytes.first() {
            Some(&FORMAT_VERSION) => {}
            Some(&found) => return Err(DecodeError::Version { found }),
            None => {
                return Err(DecodeError::Short {
                    found: 0,
                    needed: HEADER_LEN as u64,
                });
            }
        }
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(DecodeError::Short {
                found: bytes.len(),
                needed: HEADER_LEN as u64,
            });
        };
        let flags = header[1];
        let expiry = u32_at(header, 4);
        check_header(header, flags, expiry)?;
        let [topic, client_id, username, rules, properties, payload] =
            [16, 20, 24, 28, 32, 36].map(|at| u32_at(header, at));
        let body_len = [topic, client_id, username, properties, payload]
            .iter()
            .map(|len| u64::from(*len))
            .sum::<u64>()
            + u64::from(rules) * 4
            + if flags & INJECTED != 0 {
                INJECTED_LEN as u64
            } else {
                0
            };
        if (body.len() as u64) < body_len {
            return Err(DecodeError::Short {
                found: bytes.len(),
                needed: HEADER_LEN as u64 + body_len,
            });
        }
        // Each length is now known to lie within `body`, so `rules * 4` cannot overflow either.
        let mut parts = Parts(body);
        let injected = (flags & INJECTED != 0).then(|| parts.word());
        let message = Message {
            topic: parts.text(topic, "topic")?,
            client_id: parts.text(client_id, "client id")?,
            username: Some(parts.text(username, "user name")?).filter(|_| flags & USERNAME != 0),
            rules: RuleIds::from_encoded(parts.take(rules * 4)),
            properties: Properties::from_encoded(parts.take(properties))?,
            payload: parts.take(payload),
            qos: QoS::from_u8(flags & QOS_MASK).unwrap_or_default(),
            retain: flags & RETAIN != 0,
            will: flags & WILL != 0,
            mqtt_version: header[2],
            received_at_ms: u64::from_le_bytes([
                header[8], header[9], header[10], header[11], header[12], header[13], header[14],
                header[15],
            ]),
            expiry_s: Some(expiry).filter(|_| flags & EXPIRY != 0),
            injected,
        };
        match parts.0.len() {
            0 => Ok(message),
            extra => Err(DecodeError::Trailing { extra }),
        }
    }
}

/// What is left to check once the version is known: every bit that a writer leaves zero must be zero, so that a later
/// version can give it a meaning without this one misreading it.
fn check_header(header: &[u8; HEADER_LEN], flags: u8, expiry: u32) -> Result<(), DecodeError> {
    let field = |field, value: u32| Err(DecodeError::Field { field, value });
    if flags & RESERVED != 0 || QoS::from_u8(flags & QOS_MASK).is_none() {
        return field("flags", flags.into());
    }
    if header[3] != 0 {
        return field("reserved byte", header[3].into());
    }
    if flags & EXPIRY == 0 && expiry != 0 {
        return field("expiry without its flag", expiry);
    }
    let username_len = u32_at(header, 24);
    if flags & USERNAME == 0 && username_len != 0 {
        return field("user name length without its flag", username_len);
    }
    Ok(())
}
