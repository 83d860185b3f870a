//! The body of an answer to a pull: messages as the broker stores them.

use std::collections::HashSet;

use bytes::Bytes;
use rocketmq_model::common::message::STRING_HASH_SET;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_protocol::common::message::message_decoder;

use super::{decompress, pull};
use crate::{Incoming, Queue};

/// So much is decoded before it is handed on.
const PART_BYTES: usize = 1 << 20;
/// So much is kept of what can't be decoded.
const UNDECODABLE_BYTES_MAX: usize = 1 << 20;

/// Tags that a subscription wants. The broker filters by their hashes alone, so we look again.
#[derive(Debug)]
pub(super) struct TagFilter(Option<HashSet<String>>);

impl TagFilter {
    /// Every message, with or without a tag.
    pub(super) fn all() -> TagFilter {
        TagFilter(None)
    }

    pub(super) fn of(tags: impl Iterator<Item = String>) -> TagFilter {
        TagFilter(Some(tags.collect()))
    }

    pub(super) fn wants(&self, tag: Option<&str>) -> bool {
        let Some(tags) = &self.0 else { return true };
        tag.is_some_and(|tag| tags.contains(tag))
    }
}

/// An answer, decoded a part at a time: compressed bodies may be many times as large as the answer.
///
/// A message that can't be decoded stops nothing: it is given as it is, with its problem.
pub(super) struct Answer<'a> {
    queue: &'a Queue,
    filter: &'a TagFilter,
    rest: Bytes,
    /// What was asked for.
    asked: i64,
    /// Behind the last message that was looked at.
    next: i64,
    is_cut_off: bool,
}

impl<'a> Answer<'a> {
    pub(super) fn new(
        queue: &'a Queue,
        offset: i64,
        body: Bytes,
        filter: &'a TagFilter,
    ) -> Answer<'a> {
        Answer {
            queue,
            filter,
            rest: body,
            asked: offset,
            next: offset,
            is_cut_off: false,
        }
    }

    /// The next messages, about [`PART_BYTES`] of them. None when the answer is at its end.
    pub(super) fn part(&mut self) -> Option<Vec<Incoming>> {
        let mut out = Vec::new();
        let mut bytes = 0;
        while bytes < PART_BYTES {
            let Some(one) = self.split() else { break };
            if let Some(message) = self.decode(one) {
                bytes += weight(&message);
                out.push(message);
            }
        }
        (!out.is_empty() || !self.rest.is_empty()).then_some(out)
    }

    /// Where to go on when the answer broke off: behind the last message that was whole.
    pub(super) fn broke_off_at(&self) -> Option<i64> {
        self.is_cut_off.then_some(self.next)
    }

    /// The bytes of the next message.
    fn split(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        let size = self
            .rest
            .first_chunk()
            .map(|word| u32::from_be_bytes(*word));
        match size.map(|size| size as usize) {
            Some(size) if (4..=self.rest.len()).contains(&size) => Some(self.rest.split_to(size)),
            _ => {
                self.is_cut_off = true;
                let rest = std::mem::take(&mut self.rest);
                if self.next == self.asked {
                    // Asked for once more, it would be the same.
                    return Some(rest);
                }
                log::error!(
                    "{}: an answer is cut off behind offset {}",
                    pull::name(self.queue),
                    self.next - 1
                );
                None
            }
        }
    }

    fn decode(&mut self, mut one: Bytes) -> Option<Incoming> {
        let raw = one.clone();
        let Some(message) = message_decoder::decode(&mut one, true, false, true, false, false)
        else {
            return Some(self.undecodable(raw));
        };
        if message.queue_offset < self.asked {
            // Brokers may answer from before the offset asked for when they keep batches as one.
            return None;
        }
        self.next = message.queue_offset + 1;
        convert(self.queue, message, self.filter)
    }

    /// Whether its tag is wanted is not known then: the broker took it for one that is.
    fn undecodable(&mut self, raw: Bytes) -> Incoming {
        let offset = self.next;
        self.next += 1;
        let problem = "it is not in the form in which RocketMQ keeps messages".to_owned();
        log::error!("{}, offset {offset}: {problem}", pull::name(self.queue));
        let len = raw.len().min(UNDECODABLE_BYTES_MAX);
        Incoming {
            queue: self.queue.clone(),
            offset,
            body: raw.slice(..len),
            problem: Some(problem),
            ..Incoming::default()
        }
    }
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
    let stored = message.body().unwrap_or_default();
    let (body, problem) = match decompress::body(message.sys_flag, &stored) {
        Ok(body) => (body, None),
        Err(problem) => (
            stored,
            Some(format!("its body can't be decompressed: {problem}")),
        ),
    };
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
        is_read_back: false,
        problem,
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
    use rocketmq_model::common::compression::compression_type::CompressionType;

    use super::*;

    fn queue() -> Queue {
        Queue {
            topic: "T".to_owned(),
            broker: "a".to_owned(),
            id: 0,
        }
    }

    fn only(tags: &[&str]) -> TagFilter {
        TagFilter::of(tags.iter().map(|tag| (*tag).to_owned()))
    }

    /// All messages of an answer.
    fn messages(offset: i64, body: Vec<u8>, filter: &TagFilter) -> Vec<Incoming> {
        let queue = queue();
        let mut answer = Answer::new(&queue, offset, body.into(), filter);
        std::iter::from_fn(|| answer.part()).flatten().collect()
    }

    /// A message as a broker stores it, in version 1 of the format.
    fn stored(offset: i64, body: &[u8], properties: &str) -> Vec<u8> {
        stored_with_flag(0, offset, body, properties)
    }

    fn stored_with_flag(sys_flag: u32, offset: i64, body: &[u8], properties: &str) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(0xDAA3_20A7_u32.to_be_bytes());
        out.extend(0_u32.to_be_bytes()); // body CRC
        out.extend(0_u32.to_be_bytes()); // queue id
        out.extend(0_u32.to_be_bytes()); // flag
        out.extend(offset.to_be_bytes());
        out.extend(4711_i64.to_be_bytes()); // position in the commit log
        out.extend(sys_flag.to_be_bytes());
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
        let decoded = messages(5, stored(5, b"body", text), &TagFilter::all());
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
    fn a_message_that_cannot_be_decoded_is_given_as_it_is_and_stops_nothing() {
        let mut bytes = stored(1, b"one", "");
        let mut broken = stored(2, b"two", "");
        broken[4] = 0; // no magic
        bytes.extend(&broken);
        bytes.extend(stored(3, b"three", ""));
        let found = messages(1, bytes, &only(&["only"]));
        assert_eq!(found.len(), 1, "the others have no tag");
        assert_eq!((found[0].offset, &found[0].body[..]), (2, &broken[..]));
        assert!(found[0].problem.is_some());
    }

    #[test]
    fn a_body_that_cannot_be_decompressed_comes_with_its_problem() {
        let made = include_bytes!("../../testdata/java-client.lz4");
        let flag = 0x101; // compressed, LZ4
        let bytes = [
            stored_with_flag(flag, 1, made, ""),
            stored_with_flag(flag, 2, &made[..made.len() / 2], "a\u{1}b\u{2}"),
        ]
        .concat();
        let found = messages(1, bytes, &TagFilter::all());
        assert!(found[0].body.starts_with(b"temperature 0; temperature 1; "));
        assert_eq!(found[0].problem, None);
        assert_eq!(&found[1].body[..], &made[..made.len() / 2]);
        assert_eq!(found[1].properties.len(), 1);
        let problem = found[1].problem.as_deref().expect("a problem");
        assert!(problem.contains("decompressed: it is damaged"), "{problem}");
    }

    #[test]
    fn an_answer_that_breaks_off_is_gone_on_with_behind_the_last_whole_message() {
        let (queue, filter) = (queue(), TagFilter::all());
        let mut bytes = [stored(7, b"one", ""), stored(8, b"two", "")].concat();
        bytes.truncate(bytes.len() - 1);
        let second = bytes.split_off(stored(7, b"one", "").len());
        let mut answer = Answer::new(&queue, 7, [bytes, second.clone()].concat().into(), &filter);
        assert_eq!(answer.part().map(|part| part.len()), Some(1));
        assert_eq!(answer.part(), None);
        assert_eq!(answer.broke_off_at(), Some(8));
        // And when that is all there is, it is one that can't be decoded.
        let mut answer = Answer::new(&queue, 8, second.into(), &filter);
        let part = answer.part().expect("a message");
        assert_eq!((part.len(), part[0].offset), (1, 8));
        assert!(part[0].problem.is_some());
        assert_eq!(answer.broke_off_at(), Some(9));
    }

    #[test]
    fn large_bodies_come_in_parts() {
        let zeros = vec![0; PART_BYTES];
        let small = CompressionType::Zlib
            .try_compression(&zeros)
            .expect("compresses");
        let bytes: Vec<u8> = (0..3)
            .flat_map(|offset| stored_with_flag(0x301, offset, &small, ""))
            .collect();
        let (queue, filter) = (queue(), TagFilter::all());
        let mut answer = Answer::new(&queue, 0, bytes.into(), &filter);
        for _ in 0..3 {
            assert_eq!(answer.part().map(|part| part.len()), Some(1));
        }
        assert_eq!((answer.part(), answer.broke_off_at()), (None, None));
    }

    #[test]
    fn any_bytes_decode_without_a_panic() {
        let whole = stored(1, b"one", "a\u{1}b\u{2}");
        for cut in 0..whole.len() {
            messages(0, whole[..cut].to_vec(), &TagFilter::all());
            let mut flipped = whole.clone();
            flipped[cut] ^= 0xff;
            messages(0, flipped, &TagFilter::all());
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
        let offsets = |filter: &TagFilter| -> Vec<i64> {
            let decoded = messages(0, bytes.clone(), filter);
            decoded.iter().map(|message| message.offset).collect()
        };
        assert_eq!(offsets(&TagFilter::all()), [1, 2, 3]);
        assert_eq!(offsets(&only(&["b", "c"])), [2]);
        assert!(offsets(&only(&[])).is_empty());
    }
}
