//! The body of an answer to a pull: messages as the broker stores them.

use bytes::Bytes;
use rocketmq_model::common::message::STRING_HASH_SET;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_protocol::common::message::message_decoder;

use crate::{Incoming, Queue};

/// Tags that a subscription wants. The broker filters by their hashes alone, so we look again.
pub(super) struct TagFilter(Option<Vec<String>>);

impl TagFilter {
    pub(super) fn new(expression: &str) -> TagFilter {
        if expression == "*" {
            return TagFilter(None);
        }
        TagFilter(Some(expression.split("||").map(str::to_owned).collect()))
    }

    fn wants(&self, tag: Option<&str>) -> bool {
        let Some(tags) = &self.0 else { return true };
        tag.is_some_and(|tag| tags.iter().any(|wanted| wanted == tag))
    }
}

/// Decodes all messages. One that cannot be decoded is logged and left out: it would stop the queue for ever.
pub(super) fn messages(
    queue: &Queue,
    offset: i64,
    body: Bytes,
    filter: &TagFilter,
) -> Vec<Incoming> {
    let mut out = Vec::new();
    let mut rest = body;
    while rest.len() >= 4 {
        let size = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if size < 4 || size > rest.len() {
            log::error!(
                "{queue:?}: an answer for offset {offset} is cut off after {} messages",
                out.len()
            );
            break;
        }
        let mut one = rest.split_to(size);
        match message_decoder::decode(&mut one, true, true, true, false, false) {
            // Brokers may answer from before the offset asked for when they keep batches as one.
            Some(message) if message.queue_offset < offset => {}
            Some(message) => out.extend(convert(queue, message, filter)),
            None => log::error!(
                "{queue:?}: a message behind offset {offset} cannot be decoded; leaving it out"
            ),
        }
    }
    out
}

pub(super) fn weight(message: &Incoming) -> usize {
    let properties: usize = message
        .properties
        .iter()
        .map(|(name, value)| name.len() + value.len() + 48)
        .sum();
    message.body.len() + properties + 200
}

fn convert(queue: &Queue, message: MessageExt, filter: &TagFilter) -> Option<Incoming> {
    let body = message.body().unwrap_or_default();
    let mut tag = None;
    let mut keys = None;
    let mut id = None;
    let mut properties = Vec::new();
    for (name, value) in message.properties() {
        match name.as_str() {
            "TAGS" => tag = Some(value.to_string()),
            "KEYS" => keys = Some(value.to_string()),
            "UNIQ_KEY" => id = Some(value.to_string()),
            name if is_of_rocketmq(name) => {}
            name => properties.push((name.to_owned(), value.to_string())),
        }
    }
    if !filter.wants(tag.as_deref()) {
        return None;
    }
    // The decoder keeps them in a hash map; an order that stays the same is easier on everybody.
    properties.sort_unstable();
    Some(Incoming {
        queue: queue.clone(),
        offset: message.queue_offset,
        message_id: id.unwrap_or_else(|| message.msg_id().to_string()),
        body,
        tag,
        keys,
        properties,
        born_at_ms: message.born_timestamp,
        stored_at_ms: message.store_timestamp,
    })
}

/// Properties that RocketMQ's clients and brokers set for their own use.
fn is_of_rocketmq(name: &str) -> bool {
    STRING_HASH_SET.contains(name)
        || matches!(
            name,
            "MIN_OFFSET" | "MAX_OFFSET" | "CLUSTER" | "MSG_REGION" | "TRACE_ON" | "WAIT"
        )
        || name.starts_with("__CRC32#")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue {
            topic: "T".to_owned(),
            broker: "a".to_owned(),
            id: 0,
        }
    }

    /// A message as a broker stores it, in version 1 of the format.
    fn stored(offset: i64, body: &[u8], properties: &str) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(0xDAA3_20A7_u32.to_be_bytes());
        out.extend(0_u32.to_be_bytes()); // body CRC
        out.extend(0_u32.to_be_bytes()); // queue id
        out.extend(0_u32.to_be_bytes()); // flag
        out.extend(offset.to_be_bytes());
        out.extend(4711_i64.to_be_bytes()); // position in the commit log
        out.extend(0_u32.to_be_bytes()); // system flag
        out.extend(1_000_i64.to_be_bytes());
        out.extend([127, 0, 0, 1, 0, 0, 0, 1]);
        out.extend(2_000_i64.to_be_bytes());
        out.extend([127, 0, 0, 1, 0, 0, 0, 2]);
        out.extend(0_u32.to_be_bytes()); // reconsumed
        out.extend(0_i64.to_be_bytes()); // transaction
        out.extend(u32::try_from(body.len()).expect("short").to_be_bytes());
        out.extend(body);
        out.push(1);
        out.extend(b"T");
        out.extend(
            u16::try_from(properties.len())
                .expect("short")
                .to_be_bytes(),
        );
        out.extend(properties.as_bytes());
        let total = u32::try_from(out.len() + 4).expect("short");
        [total.to_be_bytes().to_vec(), out].concat()
    }

    #[test]
    fn user_properties_are_told_from_rocketmqs_own() {
        let text = "TAGS\u{1}red\u{2}KEYS\u{1}k\u{2}UNIQ_KEY\u{1}id7\u{2}mqtt_topic\u{1}a/b\u{2}WAIT\u{1}true\u{2}CLUSTER\u{1}c\u{2}";
        let decoded = messages(
            &queue(),
            5,
            stored(5, b"body", text).into(),
            &TagFilter::new("*"),
        );
        let [message] = decoded.as_slice() else {
            panic!("one message, not {decoded:?}")
        };
        assert_eq!(message.message_id, "id7");
        assert_eq!(
            (message.tag.as_deref(), message.keys.as_deref()),
            (Some("red"), Some("k"))
        );
        assert_eq!(
            message.properties,
            [("mqtt_topic".to_owned(), "a/b".to_owned())]
        );
        assert_eq!(
            (message.offset, message.born_at_ms, message.stored_at_ms),
            (5, 1_000, 2_000)
        );
        assert_eq!(message.body.as_ref(), b"body");
    }

    #[test]
    fn a_message_that_cannot_be_decoded_does_not_stop_the_others() {
        let mut bytes = stored(1, b"one", "");
        let mut broken = stored(2, b"two", "");
        broken[4] = 0; // no magic
        bytes.extend(broken);
        bytes.extend(stored(3, b"three", ""));
        let offsets: Vec<_> = messages(&queue(), 1, bytes.into(), &TagFilter::new("*"))
            .iter()
            .map(|message| message.offset)
            .collect();
        assert_eq!(offsets, [1, 3]);
    }

    #[test]
    fn any_bytes_decode_without_a_panic() {
        let whole = stored(1, b"one", "a\u{1}b\u{2}");
        for cut in 0..whole.len() {
            messages(
                &queue(),
                0,
                whole[..cut].to_vec().into(),
                &TagFilter::new("*"),
            );
            let mut flipped = whole.clone();
            flipped[cut] ^= 0xff;
            messages(&queue(), 0, flipped.into(), &TagFilter::new("*"));
        }
    }

    #[test]
    fn tags_are_looked_at_again() {
        let bytes = [
            stored(1, b"x", "TAGS\u{1}a\u{2}"),
            stored(2, b"x", "TAGS\u{1}b\u{2}"),
            stored(3, b"x", ""),
        ]
        .concat();
        let offsets = |tags: &str| -> Vec<i64> {
            let decoded = messages(&queue(), 0, bytes.clone().into(), &TagFilter::new(tags));
            decoded.iter().map(|message| message.offset).collect()
        };
        assert_eq!(offsets("*"), [1, 2, 3]);
        assert_eq!(offsets("b||c"), [2]);
    }
}
