//! A message that only some of its subscribers are to get: a frame of the downlink log.
//!
//! ```text
//!  0        1        2        3        4                                   8
//! +--------+--------+--------+--------+-----------------------------------+
//! |version | code   | 0      | kind 4 | audience_len                      |
//! +--------+--------+--------+--------+-----------------------------------+
//! | 0                                                                     | 40
//! +-----------------------------------------------------------------------+
//! | audience | the message, as it stands in a frame of its own            |
//! +-----------------------------------------------------------------------+
//! ```
//! | code | audience |
//! |---|---|
//! | 1 | client ids, each behind its length in two bytes |
//! | 2 | `<group>/<filter>` of a shared subscription |

use super::returned::KIND_AT;
use super::{DecodeError, FORMAT_VERSION, HEADER_LEN, Message, TooLong};

/// The kind of such a frame.
pub(super) const KIND_SELECTED: u8 = 4;
const CODE_CLIENTS: u8 = 1;
const CODE_GROUP: u8 = 2;

/// A message, and who of its subscribers is to get it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selected<'a> {
    /// Who.
    pub audience: Audience<'a>,
    /// What.
    pub message: Message<'a>,
}

/// Some of the subscribers of a message. Who has not subscribed to its topic, or may not read it, gets nothing all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// These clients.
    Clients(ClientIds<'a>),
    /// One member of the shared subscription `<group>/<filter>`.
    Group(&'a str),
}

/// Client ids, as they stand in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIds<'a>(&'a [u8]);

impl<'a> ClientIds<'a> {
    /// No client. The broker is to take the message, as it does a retained one, and no subscriber is to get it.
    pub const NOBODY: ClientIds<'static> = ClientIds(&[]);

    /// The ids, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (id, behind) = next_id(rest)?;
            rest = behind;
            // They were checked when they were read.
            Some(std::str::from_utf8(id).unwrap_or_default())
        })
    }

    /// Whether this client is one of them.
    pub fn contains(&self, client_id: &str) -> bool {
        self.iter().any(|id| id == client_id)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check(bytes: &'a [u8]) -> Result<ClientIds<'a>, DecodeError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (id, behind) = next_id(rest).ok_or(DecodeError::Field {
                field: "length of a client id",
                value: rest.len() as u32,
            })?;
            std::str::from_utf8(id).map_err(|_| DecodeError::Utf8 {
                field: "client id of an audience",
            })?;
            rest = behind;
        }
        Ok(ClientIds(bytes))
    }
}

fn next_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}

/// Collects client ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientIdBuffer(Vec<u8>);

impl ClientIdBuffer {
    /// Adds one.
    ///
    /// # Errors
    /// For one that no MQTT client can have, longer than 65,535 bytes.
    pub fn push(&mut self, client_id: &str) -> Result<(), TooLong> {
        let len = u16::try_from(client_id.len()).map_err(|_| TooLong(client_id.len()))?;
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(client_id.as_bytes());
        Ok(())
    }

    /// Bytes that they take in a frame.
    pub fn byte_len(&self) -> usize {
        self.0.len()
    }

    /// As they stand in a frame.
    pub fn as_ids(&self) -> ClientIds<'_> {
        ClientIds(&self.0)
    }
}

impl<'a> Selected<'a> {
    fn audience_parts(&self) -> (u8, &'a [u8]) {
        match self.audience {
            Audience::Clients(ids) => (CODE_CLIENTS, ids.0),
            Audience::Group(key) => (CODE_GROUP, key.as_bytes()),
        }
    }

    /// Exact number of bytes that [`Selected::encode_into`] writes.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.audience_parts().1.len() + self.message.encoded_len()
    }

    /// Writes it into `out`.
    ///
    /// # Panics
    /// When `out` is not exactly [`Selected::encoded_len`] long: the caller claimed the wrong size.
    pub fn encode_into(&self, out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.encoded_len(),
            "the frame must have the size of the selected message"
        );
        let (code, audience) = self.audience_parts();
        let (header, body) = out.split_at_mut(HEADER_LEN);
        header.fill(0);
        header[0] = FORMAT_VERSION;
        header[1] = code;
        header[KIND_AT] = KIND_SELECTED;
        header[4..8].copy_from_slice(&(audience.len() as u32).to_le_bytes());
        let (before, message) = body.split_at_mut(audience.len());
        before.copy_from_slice(audience);
        self.message.encode_into(message);
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Selected<'a>, DecodeError> {
        let short = |needed| DecodeError::Short {
            found: bytes.len(),
            needed,
        };
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or_else(|| short(HEADER_LEN as u64))?;
        let zeroes = header[2..3].iter().chain(&header[8..]);
        if let Some(value) = zeroes.copied().find(|byte| *byte != 0) {
            return Err(DecodeError::Field {
                field: "byte of a selected message that should be 0",
                value: value.into(),
            });
        }
        let len = u32::from_le_bytes(std::array::from_fn(|i| header[4 + i])) as usize;
        let (audience, message) = body
            .split_at_checked(len)
            .ok_or_else(|| short(HEADER_LEN as u64 + len as u64))?;
        let audience =
            match header[1] {
                CODE_CLIENTS => Audience::Clients(ClientIds::check(audience)?),
                CODE_GROUP => Audience::Group(std::str::from_utf8(audience).map_err(|_| {
                    DecodeError::Utf8 {
                        field: "group of a selected message",
                    }
                })?),
                code => {
                    return Err(DecodeError::Field {
                        field: "code of a selected message",
                        value: code.into(),
                    });
                }
            };
        Ok(Selected {
            audience,
            message: Message::decode(message)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::DownlinkFrame;

    fn encoded(audience: Audience<'_>) -> Vec<u8> {
        let selected = Selected {
            audience,
            message: Message {
                topic: "news/today",
                payload: b"x",
                ..Message::default()
            },
        };
        let mut bytes = vec![0xFF; selected.encoded_len()];
        selected.encode_into(&mut bytes);
        assert_eq!(
            DownlinkFrame::decode(&bytes),
            Ok(DownlinkFrame::Selected(selected))
        );
        bytes
    }

    #[test]
    fn the_audience_stands_before_the_message() {
        let mut ids = ClientIdBuffer::default();
        for id in ["a", "", "größer"] {
            ids.push(id).unwrap();
        }
        let found: Vec<_> = ids.as_ids().iter().collect();
        assert_eq!(found, ["a", "", "größer"]);
        assert!(ids.as_ids().contains("größer") && !ids.as_ids().contains("b"));
        let bytes = encoded(Audience::Clients(ids.as_ids()));
        assert_eq!(bytes[..5], [FORMAT_VERSION, 1, 0, 4, ids.byte_len() as u8]);
        let bytes = encoded(Audience::Group("g/news/#"));
        assert_eq!(bytes[..5], [FORMAT_VERSION, 2, 0, 4, 8]);
        assert_eq!(bytes[HEADER_LEN..HEADER_LEN + 8], *b"g/news/#");
        assert!(ids.push(&"x".repeat(65_536)).is_err());
    }

    #[test]
    fn nothing_that_was_not_written_is_read() {
        let mut ids = ClientIdBuffer::default();
        ids.push("abc").unwrap();
        let good = encoded(Audience::Clients(ids.as_ids()));
        for len in 4..good.len() {
            assert!(DownlinkFrame::decode(&good[..len]).is_err(), "{len}");
        }
        // Another code, a byte that should be 0, a client id that is longer than what there is.
        for at in [1, 2, 8, HEADER_LEN] {
            let mut bad = good.clone();
            bad[at] = 9;
            assert!(DownlinkFrame::decode(&bad).is_err(), "{at}");
        }
        let mut bad = good.clone();
        bad[HEADER_LEN + 2] = 0xFF;
        assert!(matches!(
            DownlinkFrame::decode(&bad),
            Err(DecodeError::Utf8 { .. })
        ));
        let mut longer = good;
        longer.push(0);
        assert!(DownlinkFrame::decode(&longer).is_err());
    }
}
