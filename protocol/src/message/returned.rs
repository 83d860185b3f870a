//! A frame of the downlink log that the plugin could not inject, on its way back over the uplink log to the dead letters.
//!
//! ```text
//!  0        1        2        3        4                                   8
//! +--------+--------+--------+--------+-----------------------------------+
//! |version | 0      | 0      | kind 1 | reason_len                        |
//! +--------+--------+--------+--------+-----------------------------------+
//! | returned_at_ms                                                        | 16
//! +-----------------------------------------------------------------------+
//! | epoch of the downlink log                                             | 24
//! +-----------------------------------------------------------------------+
//! | position in the downlink log                                          | 32
//! +-----------------------------------+-----------------------------------+
//! | payload_len                       | 0                                 | 40
//! +-----------------------------------+-----------------------------------+
//! | reason | payload: the frame as it was, whether or not it is a message |
//! +-----------------------------------------------------------------------+
//! ```
//! Byte 3 is the kind of an uplink frame. It is 0 in a message, and a version that knows no other kind says so by name and keeps the
//! whole frame as a dead letter.

use super::{DecodeError, FORMAT_VERSION, HEADER_LEN, Message};

/// Where the kind stands.
pub(super) const KIND_AT: usize = 3;
/// The kind of what is returned. A message's is 0.
const KIND_RETURNED: u8 = 1;

/// A frame of the downlink log that could not be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned<'a> {
    /// Why not, in words.
    pub reason: &'a str,
    /// When: milliseconds of the Unix epoch.
    pub returned_at_ms: u64,
    /// Epoch of the downlink log.
    pub epoch: u64,
    /// Where the frame stood in it.
    pub position: u64,
    /// The frame's payload as it was: a [`Message`] unless it was damaged.
    pub payload: &'a [u8],
}

/// What a frame of the uplink log holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UplinkFrame<'a> {
    /// A message on its way to RocketMQ.
    Message(Message<'a>),
    /// What came down and could not be injected.
    Returned(Returned<'a>),
}

impl<'a> UplinkFrame<'a> {
    /// Reads what `bytes` hold, which must be exactly one of them. Nothing is copied.
    ///
    /// # Errors
    /// Any bytes that neither [`Message::encode_into`] nor [`Returned::encode_into`] writes.
    pub fn decode(bytes: &'a [u8]) -> Result<UplinkFrame<'a>, DecodeError> {
        match bytes {
            [FORMAT_VERSION, _, _, KIND_RETURNED, ..] => {
                Returned::decode(bytes).map(UplinkFrame::Returned)
            }
            _ => Message::decode(bytes).map(UplinkFrame::Message),
        }
    }
}

impl<'a> Returned<'a> {
    /// Exact number of bytes that [`Returned::encode_into`] writes.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.reason.len() + self.payload.len()
    }

    /// Writes it into `out`. Does not allocate.
    ///
    /// # Panics
    /// When `out` is not exactly [`Returned::encoded_len`] long: the caller claimed the wrong size.
    pub fn encode_into(&self, out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.encoded_len(),
            "the frame must have the size of what is returned"
        );
        let (header, body) = out.split_at_mut(HEADER_LEN);
        header.fill(0);
        header[0] = FORMAT_VERSION;
        header[KIND_AT] = KIND_RETURNED;
        header[4..8].copy_from_slice(&(self.reason.len() as u32).to_le_bytes());
        header[8..16].copy_from_slice(&self.returned_at_ms.to_le_bytes());
        header[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        header[24..32].copy_from_slice(&self.position.to_le_bytes());
        header[32..36].copy_from_slice(&(self.payload.len() as u32).to_le_bytes());
        let (reason, payload) = body.split_at_mut(self.reason.len());
        reason.copy_from_slice(self.reason.as_bytes());
        payload.copy_from_slice(self.payload);
    }

    fn decode(bytes: &'a [u8]) -> Result<Returned<'a>, DecodeError> {
        let short = |needed| DecodeError::Short {
            found: bytes.len(),
            needed,
        };
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or_else(|| short(HEADER_LEN as u64))?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        for (field, value) in [
            ("flags of what is returned", u32::from(header[1])),
            ("MQTT version of what is returned", u32::from(header[2])),
            ("reserved word of what is returned", half(36)),
        ] {
            if value != 0 {
                return Err(DecodeError::Field { field, value });
            }
        }
        let (reason_len, payload_len) = (half(4), half(32));
        let body_len = u64::from(reason_len) + u64::from(payload_len);
        let found = body.len() as u64;
        if found < body_len {
            return Err(short(HEADER_LEN as u64 + body_len));
        }
        if found > body_len {
            let extra = body.len() - body_len as usize;
            return Err(DecodeError::Trailing { extra });
        }
        let (reason, payload) = body.split_at(reason_len as usize);
        Ok(Returned {
            reason: std::str::from_utf8(reason)
                .map_err(|_| DecodeError::Utf8 { field: "reason" })?,
            returned_at_ms: word(8),
            epoch: word(16),
            position: word(24),
            payload,
        })
    }
}
