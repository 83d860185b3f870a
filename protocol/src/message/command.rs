//! What the sidecar asks of the plugin beside injecting messages: frames of the downlink log.
//!
//! ```text
//!  0        1        2        3        4                                   8
//! +--------+--------+--------+--------+-----------------------------------+
//! |version | code   | reason | kind 3 | client_id_len                     |
//! +--------+--------+--------+--------+-----------------------------------+
//! | at_ms                                                                 | 16
//! +-----------------------------------------------------------------------+
//! | login                                                                 | 24
//! +-----------------------------------------------------------------------+
//! | 0                                                                     | 40
//! +-----------------------------------------------------------------------+
//! | client_id                                                             |
//! +-----------------------------------------------------------------------+
//! ```
//! Code 1 closes, code 2 tells of a client that has moved, code 3 of a native bridge between nodes. Only a closing has a reason; of a bridge the
//! field says whether the client is one (1) or not any more (0).

use super::returned::KIND_AT;
use super::selected::KIND_SELECTED;
use super::{DecodeError, FORMAT_VERSION, HEADER_LEN, Message, Selected};

/// The kind of a command.
const KIND_COMMAND: u8 = 3;
const CODE_CLOSE: u8 = 1;
const CODE_MOVED: u8 = 2;
const CODE_CARRIER: u8 = 3;

/// What is asked, and when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Close a client's connection without its will, if that is still of this login.
    Close {
        /// Whose.
        client_id: &'a str,
        /// The login, as [`super::What::Online`] told it.
        login: u64,
        /// The MQTT 5 reason code that it is to be told where that is possible: 0x8E session taken over, 0x98 administrative action …
        reason: u8,
        /// Milliseconds of the Unix epoch.
        at_ms: u64,
    },
    /// A client is on another node. Its session here, if that is of this login or an earlier one, is to get nothing that is shared until it is back.
    Moved {
        /// Whose.
        client_id: &'a str,
        /// The login, as [`super::What::Online`] told it; 0 for one that was not told.
        login: u64,
        /// Milliseconds of the Unix epoch.
        at_ms: u64,
    },
    /// A client is a native bridge from or to another node of the cluster, or is none any more: what it brings of the shared topics is brought by RocketMQ.
    Carrier {
        /// Which.
        client_id: &'a str,
        /// Whether it is one.
        is_carrier: bool,
        /// Milliseconds of the Unix epoch.
        at_ms: u64,
    },
}

/// What a frame of the downlink log holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DownlinkFrame<'a> {
    /// A message to inject.
    Message(Message<'a>),
    /// One that only some of its subscribers are to get.
    Selected(Selected<'a>),
    /// Something to do.
    Command(Command<'a>),
}

impl<'a> DownlinkFrame<'a> {
    /// Reads what `bytes` hold, which must be exactly one of them. Nothing is copied.
    ///
    /// # Errors
    /// Any bytes that none of [`Message::encode_into`], [`Selected::encode_into`] and [`Command::encode_into`] writes.
    pub fn decode(bytes: &'a [u8]) -> Result<DownlinkFrame<'a>, DecodeError> {
        match bytes {
            [FORMAT_VERSION, _, _, KIND_COMMAND, ..] => {
                Command::decode(bytes).map(DownlinkFrame::Command)
            }
            [FORMAT_VERSION, _, _, KIND_SELECTED, ..] => {
                Selected::decode(bytes).map(DownlinkFrame::Selected)
            }
            _ => Message::decode(bytes).map(DownlinkFrame::Message),
        }
    }

    /// The message in it, whoever is to get it.
    pub fn message(&self) -> Option<&Message<'a>> {
        match self {
            DownlinkFrame::Message(message) | DownlinkFrame::Selected(Selected { message, .. }) => {
                Some(message)
            }
            DownlinkFrame::Command(_) => None,
        }
    }
}

impl<'a> Command<'a> {
    /// Code, reason, client id, login and time.
    fn parts(&self) -> (u8, u8, &'a str, u64, u64) {
        match *self {
            Command::Close {
                client_id,
                login,
                reason,
                at_ms,
            } => (CODE_CLOSE, reason, client_id, login, at_ms),
            Command::Moved {
                client_id,
                login,
                at_ms,
            } => (CODE_MOVED, 0, client_id, login, at_ms),
            Command::Carrier {
                client_id,
                is_carrier,
                at_ms,
            } => (CODE_CARRIER, u8::from(is_carrier), client_id, 0, at_ms),
        }
    }

    /// Exact number of bytes that [`Command::encode_into`] writes.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.parts().2.len()
    }

    /// Writes it into `out`.
    ///
    /// # Panics
    /// When `out` is not exactly [`Command::encoded_len`] long: the caller claimed the wrong size.
    pub fn encode_into(&self, out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.encoded_len(),
            "the frame must have the command's size"
        );
        let (code, reason, client_id, login, at_ms) = self.parts();
        let (header, body) = out.split_at_mut(HEADER_LEN);
        header.fill(0);
        header[0] = FORMAT_VERSION;
        header[1] = code;
        header[2] = reason;
        header[KIND_AT] = KIND_COMMAND;
        header[4..8].copy_from_slice(&(client_id.len() as u32).to_le_bytes());
        header[8..16].copy_from_slice(&at_ms.to_le_bytes());
        header[16..24].copy_from_slice(&login.to_le_bytes());
        body.copy_from_slice(client_id.as_bytes());
    }

    fn decode(bytes: &'a [u8]) -> Result<Command<'a>, DecodeError> {
        let short = |needed| DecodeError::Short {
            found: bytes.len(),
            needed,
        };
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or_else(|| short(HEADER_LEN as u64))?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let len = u32::from_le_bytes(std::array::from_fn(|i| header[4 + i])) as usize;
        if let Some(value) = header[24..].iter().find(|byte| **byte != 0) {
            return Err(DecodeError::Field {
                field: "byte of a command that should be 0",
                value: (*value).into(),
            });
        }
        if body.len() < len {
            return Err(short((HEADER_LEN + len) as u64));
        }
        if body.len() > len {
            let extra = body.len() - len;
            return Err(DecodeError::Trailing { extra });
        }
        let client_id = std::str::from_utf8(body).map_err(|_| DecodeError::Utf8 {
            field: "client id of a command",
        })?;
        let (login, at_ms) = (word(16), word(8));
        match (header[1], header[2]) {
            (CODE_CLOSE, reason) => Ok(Command::Close {
                client_id,
                login,
                reason,
                at_ms,
            }),
            (CODE_MOVED, 0) => Ok(Command::Moved {
                client_id,
                login,
                at_ms,
            }),
            (CODE_CARRIER, is_carrier @ (0 | 1)) if login == 0 => Ok(Command::Carrier {
                client_id,
                is_carrier: is_carrier == 1,
                at_ms,
            }),
            (code, _) => Err(DecodeError::Field {
                field: "code of a command",
                value: code.into(),
            }),
        }
    }
}
