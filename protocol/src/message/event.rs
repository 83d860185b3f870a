//! What the plugin tells of clients, sessions and subscriptions, for the cluster: frames of a hand-off log of their own (`events/`), in the order in which it
//! happened. Of their own, because what waits for RocketMQ in the uplink log must not hold them up.
//!
//! ```text
//!  0        1        2        3        4                                   8
//! +--------+--------+--------+--------+-----------------------------------+
//! |version | code   | byte   | kind 2 | flags                             |
//! +--------+--------+--------+--------+-----------------------------------+
//! | at_ms                                                                 | 16
//! +-----------------------------------------------------------------------+
//! | number                                                                | 24
//! +-----------------------------------+-----------------------------------+
//! | client_id_len                     | text_len                          | 32
//! +-----------------------------------+-----------------------------------+
//! | second                                                                | 40
//! +-----------------------------------------------------------------------+
//! | client_id | text                                                      |
//! +-----------------------------------------------------------------------+
//! ```
//! | code | event | byte | flags | number | second | text |
//! |---|---|---|---|---|---|---|
//! | 1 | Started | | | `saved_at_ms` | `ran_until_ms` | |
//! | 2 | Online | MQTT version | 1: clean, 2: has a user name | `login` | | user name |
//! | 3 | Offline | reason code | 1: the session stays | `login` | | |
//! | 4 | Subscribed | QoS | | `downlink_position` | `uplink_position` | filter |
//! | 5 | Unsubscribed | | | | | filter |
//! | 6 | Restored | QoS | | | | filter |
//! | 7 | Deaf | | | | | why |
//! | 8 | Resumed | | | `downlink_position` | `uplink_position` | |

use super::returned::KIND_AT;
use super::{DecodeError, FORMAT_VERSION, HEADER_LEN};

/// The kind of an event.
const KIND_EVENT: u8 = 2;

const FLAG_ONE: u32 = 1;
const FLAG_TWO: u32 = 2;

/// Something that happened in Mosquitto, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Milliseconds of the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub what: What<'a>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// Mosquitto has started: nobody is connected, and only sessions that it had saved are there. `Restored` follows for each
    /// of their subscriptions.
    Started {
        /// When it last saved its sessions and retained messages (the time of its database file); 0: never.
        saved_at_ms: u64,
        /// Until when the process before it gave its clients messages, about; 0: not known.
        ran_until_ms: u64,
    },
    /// A client has logged in.
    Online {
        /// Who.
        client_id: &'a str,
        /// Its user name.
        username: Option<&'a str>,
        /// Tells this login from all others at this node, and grows: about the milliseconds of the Unix epoch.
        login: u64,
        /// 3 (MQTT 3.1), 4 (3.1.1), 5; 0 when not known.
        mqtt_version: u8,
        /// It wants no session of before.
        clean: bool,
    },
    /// A client's connection is over.
    Offline {
        /// Who.
        client_id: &'a str,
        /// The login that ends.
        login: u64,
        /// As MQTT 5 codes it: 0 when the client took its leave, 0x8E when it was taken over, 0x80 when not known.
        cause: u8,
        /// Its session is kept, so it gets what comes meanwhile.
        session_stays: bool,
    },
    /// A client has asked for a subscription. It may yet have been refused.
    Subscribed {
        /// Who.
        client_id: &'a str,
        /// The topic filter, `$share/…` included.
        filter: &'a str,
        /// Its QoS.
        qos: u8,
        /// What the downlink log has before this position was injected before the subscription.
        downlink_position: u64,
        /// What the uplink log has before this position was published before the subscription.
        uplink_position: u64,
    },
    /// A client has given a subscription up.
    Unsubscribed {
        /// Who.
        client_id: &'a str,
        /// The topic filter.
        filter: &'a str,
    },
    /// A subscription of a session that Mosquitto had saved.
    Restored {
        /// Whose.
        client_id: &'a str,
        /// The topic filter.
        filter: &'a str,
        /// Its QoS.
        qos: u8,
    },
    /// A client has logged in again that was on another node ([`super::Command::Moved`]), and its session here gets messages again.
    Resumed {
        /// Who.
        client_id: &'a str,
        /// What the downlink log has before this position was injected before.
        downlink_position: u64,
        /// What the uplink log has before this position was published before.
        uplink_position: u64,
    },
    /// Subscriptions can't all be told, or were not: until Mosquitto starts again, anything may be subscribed to.
    Deaf {
        /// Why.
        why: &'a str,
    },
}

/// The parts of a frame.
#[derive(Default)]
struct Parts<'a> {
    code: u8,
    byte: u8,
    flags: u32,
    number: u64,
    second: u64,
    client_id: &'a str,
    text: &'a str,
}

impl<'a> Event<'a> {
    fn parts(&self) -> Parts<'a> {
        let none = Parts::default();
        match self.what {
            What::Started {
                saved_at_ms,
                ran_until_ms,
            } => Parts {
                code: 1,
                number: saved_at_ms,
                second: ran_until_ms,
                ..none
            },
            What::Online {
                client_id,
                username,
                login,
                mqtt_version,
                clean,
            } => Parts {
                code: 2,
                second: 0,
                byte: mqtt_version,
                flags: if clean { FLAG_ONE } else { 0 }
                    | if username.is_some() { FLAG_TWO } else { 0 },
                number: login,
                client_id,
                text: username.unwrap_or(""),
            },
            What::Offline {
                client_id,
                login,
                cause,
                session_stays,
            } => Parts {
                code: 3,
                byte: cause,
                flags: if session_stays { FLAG_ONE } else { 0 },
                number: login,
                client_id,
                ..none
            },
            What::Subscribed {
                client_id,
                filter,
                qos,
                downlink_position,
                uplink_position,
            } => Parts {
                code: 4,
                byte: qos,
                number: downlink_position,
                second: uplink_position,
                client_id,
                text: filter,
                ..none
            },
            What::Unsubscribed { client_id, filter } => Parts {
                code: 5,
                client_id,
                text: filter,
                ..none
            },
            What::Restored {
                client_id,
                filter,
                qos,
            } => Parts {
                code: 6,
                byte: qos,
                client_id,
                text: filter,
                ..none
            },
            What::Deaf { why } => Parts {
                code: 7,
                text: why,
                ..none
            },
            What::Resumed {
                client_id,
                downlink_position,
                uplink_position,
            } => Parts {
                code: 8,
                number: downlink_position,
                second: uplink_position,
                client_id,
                ..none
            },
        }
    }

    /// Exact number of bytes that [`Event::encode_into`] writes.
    pub fn encoded_len(&self) -> usize {
        let parts = self.parts();
        HEADER_LEN + parts.client_id.len() + parts.text.len()
    }

    /// Writes it into `out`. Does not allocate.
    ///
    /// # Panics
    /// When `out` is not exactly [`Event::encoded_len`] long: the caller claimed the wrong size.
    pub fn encode_into(&self, out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.encoded_len(),
            "the frame must have the event's size"
        );
        let parts = self.parts();
        let (header, body) = out.split_at_mut(HEADER_LEN);
        header.fill(0);
        header[0] = FORMAT_VERSION;
        header[1] = parts.code;
        header[2] = parts.byte;
        header[KIND_AT] = KIND_EVENT;
        header[4..8].copy_from_slice(&parts.flags.to_le_bytes());
        header[8..16].copy_from_slice(&self.at_ms.to_le_bytes());
        header[16..24].copy_from_slice(&parts.number.to_le_bytes());
        header[24..28].copy_from_slice(&(parts.client_id.len() as u32).to_le_bytes());
        header[28..32].copy_from_slice(&(parts.text.len() as u32).to_le_bytes());
        header[32..40].copy_from_slice(&parts.second.to_le_bytes());
        let (client_id, text) = body.split_at_mut(parts.client_id.len());
        client_id.copy_from_slice(parts.client_id.as_bytes());
        text.copy_from_slice(parts.text.as_bytes());
    }

    /// Reads what `bytes` hold, which must be exactly one event. Nothing is copied.
    ///
    /// # Errors
    /// Any bytes that [`Event::encode_into`] does not write.
    pub fn decode(bytes: &'a [u8]) -> Result<Event<'a>, DecodeError> {
        if let Some(&found) = bytes.first()
            && found != FORMAT_VERSION
        {
            return Err(DecodeError::Version { found });
        }
        let short = |needed| DecodeError::Short {
            found: bytes.len(),
            needed,
        };
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or_else(|| short(HEADER_LEN as u64))?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        if header[KIND_AT] != KIND_EVENT {
            return Err(DecodeError::Field {
                field: "kind of an event",
                value: header[KIND_AT].into(),
            });
        }
        let (client_len, text_len) = (half(24), half(28));
        let body_len = u64::from(client_len) + u64::from(text_len);
        let found = body.len() as u64;
        if found < body_len {
            return Err(short(HEADER_LEN as u64 + body_len));
        }
        if found > body_len {
            let extra = body.len() - body_len as usize;
            return Err(DecodeError::Trailing { extra });
        }
        let (client_id, text) = body.split_at(client_len as usize);
        let utf8 =
            |bytes, field| std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 { field });
        let parts = Parts {
            code: header[1],
            byte: header[2],
            flags: half(4),
            number: word(16),
            second: word(32),
            client_id: utf8(client_id, "client id of an event")?,
            text: utf8(text, "text of an event")?,
        };
        let event = Event {
            at_ms: word(8),
            what: what(&parts)?,
        };
        // What a later version may put where this one puts nothing must not be misread.
        let mut again = vec![0; event.encoded_len()];
        event.encode_into(&mut again);
        let differs = again.iter().zip(bytes).find(|(ours, there)| ours != there);
        match differs {
            None if again.len() == bytes.len() => Ok(event),
            _ => Err(DecodeError::Field {
                field: "byte of an event that should be 0",
                value: differs.map_or(0, |(_, there)| u32::from(*there)),
            }),
        }
    }
}

fn what<'a>(parts: &Parts<'a>) -> Result<What<'a>, DecodeError> {
    let Parts {
        byte,
        flags,
        number,
        second,
        client_id,
        text,
        ..
    } = *parts;
    let (one, two) = (flags & FLAG_ONE != 0, flags & FLAG_TWO != 0);
    Ok(match parts.code {
        1 => What::Started {
            saved_at_ms: number,
            ran_until_ms: second,
        },
        2 => What::Online {
            client_id,
            username: two.then_some(text),
            login: number,
            mqtt_version: byte,
            clean: one,
        },
        3 => What::Offline {
            client_id,
            login: number,
            cause: byte,
            session_stays: one,
        },
        4 => What::Subscribed {
            client_id,
            filter: text,
            qos: byte,
            downlink_position: number,
            uplink_position: second,
        },
        5 => What::Unsubscribed {
            client_id,
            filter: text,
        },
        6 => What::Restored {
            client_id,
            filter: text,
            qos: byte,
        },
        7 => What::Deaf { why: text },
        8 => What::Resumed {
            client_id,
            downlink_position: number,
            uplink_position: second,
        },
        code => {
            return Err(DecodeError::Field {
                field: "code of an event",
                value: code.into(),
            });
        }
    })
}
