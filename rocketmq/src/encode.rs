//! Messages as RocketMQ's broker reads them, and the limits that it would refuse them by.
//!
//! ```text
//! one message of a batch (big-endian):
//! | 4 total length | 4 magic 0 | 4 body CRC 0 | 4 flag 0 | 4 body length | body | 2 properties length | properties |
//! properties: name U+0001 value U+0002 …
//! ```
//! From `MessageDecoder.encodeMessage` of RocketMQ 5.5.0; the broker computes the CRC by itself.

use std::sync::atomic::{AtomicU16, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use rocketmq_model::common::message::message_client_id_setter::MessageClientIDSetter;

use crate::{Error, Outgoing};

/// `maxMessageSize` of a broker with default settings.
pub(crate) const BODY_MAX: usize = 4 * 1024 * 1024;
/// The broker stores the length as a Java `short`, and adds properties of its own (cluster, region, trace).
pub(crate) const PROPERTIES_MAX: usize = 32 * 1024 - 1 - 512;
/// RocketMQ's `MESSAGE_ILLEGAL`.
const ILLEGAL: i32 = 13;

/// Refuses what every broker would refuse, before it costs a round trip.
pub(crate) fn check(message: &Outgoing) -> Result<(), Error> {
    let refuse = |reason: String| {
        Err(Error::Refused {
            code: ILLEGAL,
            reason,
        })
    };
    if message.body.is_empty() {
        return refuse("the body is empty".to_owned());
    }
    if message.body.len() > BODY_MAX {
        return refuse(format!(
            "the body has {} bytes, RocketMQ takes {BODY_MAX}",
            message.body.len()
        ));
    }
    if !message.properties.is_legal() {
        return refuse("a property has no name, or holds U+0001 or U+0002".to_owned());
    }
    if [&message.tag, &message.keys]
        .into_iter()
        .flatten()
        .any(|text| has_separator(text))
    {
        return refuse("the tag or the keys hold U+0001 or U+0002".to_owned());
    }
    let length = properties_length(message);
    if length > PROPERTIES_MAX {
        return refuse(format!(
            "the properties have {length} bytes, RocketMQ takes {PROPERTIES_MAX}"
        ));
    }
    Ok(())
}

/// Refuses several messages in one request that are too many, in RocketMQ's words for one that is too large: in two halves they
/// may fit. Neither the client library nor the broker takes a longer body, and they don't say so in a way that ends the retries.
pub(crate) fn check_batch(messages: &[Outgoing]) -> Result<(), Error> {
    let length = batch_length(messages);
    if messages.len() > 1 && length > BODY_MAX {
        return Err(Error::Refused {
            code: ILLEGAL,
            reason: format!(
                "{} messages have {length} bytes together, RocketMQ takes {BODY_MAX}",
                messages.len()
            ),
        });
    }
    Ok(())
}

fn batch_length(messages: &[Outgoing]) -> usize {
    messages
        .iter()
        .map(|message| 22 + message.body.len() + properties_length(message))
        .sum()
}

/// The properties of a message on its own, as the header of a send carries them.
pub(crate) fn properties(message: &Outgoing) -> String {
    let mut out = Vec::with_capacity(properties_length(message));
    put_properties(message, &Ids::of_now(), &mut out);
    // Only whole strings were written.
    String::from_utf8(out).unwrap_or_default()
}

/// The messages of a batch, one behind the other.
pub(crate) fn batch(messages: &[Outgoing]) -> Bytes {
    let mut out = BytesMut::with_capacity(batch_length(messages));
    let ids = Ids::of_now();
    for message in messages {
        let properties = properties_length(message);
        let total = 22 + message.body.len() + properties;
        // `check` keeps each of them far below these types' ranges.
        out.put_u32(u32::try_from(total).unwrap_or(u32::MAX));
        out.put_u32(0);
        out.put_u32(0);
        out.put_u32(0);
        out.put_u32(u32::try_from(message.body.len()).unwrap_or(u32::MAX));
        out.put_slice(&message.body);
        out.put_u16(u16::try_from(properties).unwrap_or(u16::MAX));
        put_properties(message, &ids, &mut out);
    }
    out.freeze()
}

const ID_LENGTH: usize = 32;
/// Digits at its end that count the messages of a millisecond.
const ID_COUNTER_LENGTH: usize = 4;
static MESSAGES: AtomicU16 = AtomicU16::new(0);

/// What consoles and tools call the message id, in RocketMQ's form: address, process, time, and a counter. It does not survive a retry: for
/// that there is our own identity.
///
/// The library makes all but the counter, once for a batch: for each message it would take as long as all else that is encoded.
struct Ids(String);

impl Ids {
    fn of_now() -> Ids {
        let mut id = MessageClientIDSetter::create_uniq_id();
        if id.len() != ID_LENGTH {
            // A host with IPv6 alone gets a longer one.
            id = format!("{id:0>ID_LENGTH$}");
            id = id.split_off(id.len() - ID_LENGTH);
        }
        id.truncate(ID_LENGTH - ID_COUNTER_LENGTH);
        Ids(id)
    }

    fn put_next(&self, out: &mut impl BufMut) {
        // The order among threads does not matter, only that nobody gets the same.
        let count = MESSAGES.fetch_add(1, Ordering::Relaxed);
        out.put_slice(self.0.as_bytes());
        for digit in (0..ID_COUNTER_LENGTH).rev() {
            let digit = usize::from(count >> (4 * digit)) & 0xF;
            out.put_u8(b"0123456789ABCDEF"[digit]);
        }
    }
}

fn properties_length(message: &Outgoing) -> usize {
    let pair = |name: usize, value: usize| name + value + 2;
    let own = message.properties.as_str().len();
    let tag = message
        .tag
        .as_ref()
        .map_or(0, |tag| pair("TAGS".len(), tag.len()));
    let keys = message
        .keys
        .as_ref()
        .map_or(0, |keys| pair("KEYS".len(), keys.len()));
    own + tag + keys + pair("UNIQ_KEY".len(), ID_LENGTH)
}

fn put_properties(message: &Outgoing, ids: &Ids, out: &mut impl BufMut) {
    let mut put = |name: &str, value: &str| {
        out.put_slice(name.as_bytes());
        out.put_u8(1);
        out.put_slice(value.as_bytes());
        out.put_u8(2);
    };
    if let Some(tag) = &message.tag {
        put("TAGS", tag);
    }
    if let Some(keys) = &message.keys {
        put("KEYS", keys);
    }
    out.put_slice(b"UNIQ_KEY\x01");
    ids.put_next(out);
    out.put_u8(2);
    out.put_slice(message.properties.as_str().as_bytes());
}

fn has_separator(text: &str) -> bool {
    text.bytes().any(|byte| byte == 1 || byte == 2)
}

#[cfg(test)]
mod tests {
    use rocketmq_model::common::message::MessageTrait;
    use rocketmq_protocol::common::message::message_decoder;

    use super::*;

    fn message(body: &'static [u8]) -> Outgoing {
        Outgoing {
            body: Bytes::from_static(body),
            tag: Some("t".to_owned()),
            keys: Some("k1 k2".to_owned()),
            properties: [("mqtt_topic", "a/ü"), ("empty", "")].into_iter().collect(),
        }
    }

    #[test]
    fn the_librarys_own_decoder_reads_a_batch() {
        let mut bytes = batch(&[message(b"one"), message(b"\0\x01\x02")]);
        let decoded = message_decoder::decode_messages(&mut bytes);
        assert_eq!(decoded.len(), 2);
        for (found, body) in decoded.iter().zip([b"one".as_slice(), b"\0\x01\x02"]) {
            assert_eq!(found.get_body().expect("a body").as_ref(), body);
            let properties = found.properties().as_map();
            let get = |name: &str| {
                properties
                    .iter()
                    .find(|(key, _)| key.as_str() == name)
                    .map(|(_, v)| v.to_string())
            };
            assert_eq!(get("TAGS").as_deref(), Some("t"));
            assert_eq!(get("KEYS").as_deref(), Some("k1 k2"));
            assert_eq!(get("mqtt_topic").as_deref(), Some("a/ü"));
            assert_eq!(get("UNIQ_KEY").map(|id| id.len()), Some(ID_LENGTH));
        }
    }

    #[test]
    fn a_batch_that_is_too_large_is_refused_and_its_halves_are_not() {
        let large = || Outgoing {
            body: Bytes::from(vec![1; BODY_MAX / 2]),
            ..message(b"")
        };
        let two = [large(), large()];
        assert!(matches!(
            check_batch(&two),
            Err(Error::Refused { code: 13, .. })
        ));
        assert_eq!(check_batch(&two[..1]), Ok(()));
        let small = [message(b"x"), message(b"y")];
        assert_eq!(check_batch(&small), Ok(()));
        assert_eq!(batch(&small).len(), batch_length(&small));
    }

    #[test]
    fn every_message_has_an_id_of_its_own() {
        let mut bytes = batch(&[message(b"one"), message(b"two")]);
        let ids: Vec<String> = message_decoder::decode_messages(&mut bytes)
            .iter()
            .filter_map(MessageClientIDSetter::get_uniq_id)
            .map(|id| id.to_string())
            .collect();
        assert_eq!(ids.len(), 2);
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            assert!(
                MessageClientIDSetter::get_nearly_time_from_id(&id).is_ok(),
                "{id}"
            );
        }
    }

    #[test]
    fn the_length_of_the_properties_is_exact() {
        assert_eq!(
            properties(&message(b"x")).len(),
            properties_length(&message(b"x"))
        );
    }

    #[test]
    fn what_no_broker_takes_is_refused_here() {
        assert_eq!(check(&message(b"x")), Ok(()));
        let refused = |change: fn(&mut Outgoing)| {
            let mut message = message(b"x");
            change(&mut message);
            matches!(check(&message), Err(Error::Refused { .. }))
        };
        assert!(refused(|m| m.body = Bytes::new()));
        assert!(refused(|m| m.body = Bytes::from(vec![0; BODY_MAX + 1])));
        assert!(refused(|m| m
            .properties
            .push("x", &"x".repeat(PROPERTIES_MAX))));
        assert!(refused(|m| m.properties.push("x", "a\u{1}b")));
        assert!(refused(|m| m.keys = Some("a\u{2}b".to_owned())));
    }
}
