//! The lines of `downlink.seen`.

use rocketmq::Queue;

use super::place::{Key, Order, ReplayKey};

/// What a line of a replayed message begins with.
pub(super) const REPLAYED: &str = "replayed ";

/// The place up to which everything of one sender was handed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) at: u64,
    pub(super) order: Order,
    pub(super) offset: i64,
    pub(super) used_s: u64,
    /// The file does not say so yet.
    pub(super) is_dirty: bool,
}

impl Mark {
    /// Always of the same length.
    pub(super) fn text(&self) -> String {
        let ((position, copy), offset) = (self.order, self.offset.max(0));
        format!("{position:020} {copy:010} {offset:020} {:020}", self.used_s)
    }
}

pub(super) fn mark_line(text: &str, key: &Key) -> String {
    let queue = &key.queue;
    format!(
        "{text} {} {} {} {} {}\n",
        key.lane, queue.id, queue.broker, queue.topic, key.origin
    )
}

pub(super) fn parse_mark(line: &str) -> Option<(Key, Mark)> {
    let mut fields = line.split(' ');
    let mark = Mark {
        at: 0,
        order: (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?),
        offset: fields.next()?.parse().ok()?,
        used_s: fields.next()?.parse().ok()?,
        is_dirty: false,
    };
    let lane = fields.next()?.to_owned();
    let queue = parse_queue(&mut fields)?;
    let origin = fields.next().filter(|text| !text.is_empty())?.to_owned();
    Some((
        Key {
            queue,
            lane,
            origin,
        },
        mark,
    ))
}

pub(super) fn parse_replay(text: &str) -> Option<(ReplayKey, Queue, i64)> {
    let mut fields = text.split(' ');
    let offset = fields.next()?.parse().ok()?;
    let copy = fields.next()?.parse().ok()?;
    let queue = parse_queue(&mut fields)?;
    let id = fields.next().filter(|text| !text.is_empty())?.to_owned();
    Some(((queue.topic.clone(), id, copy), queue, offset))
}

fn parse_queue<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<Queue> {
    Some(Queue {
        id: fields.next()?.parse().ok()?,
        broker: fields.next()?.to_owned(),
        topic: fields.next()?.to_owned(),
    })
}

pub(super) fn replay_line((topic, id, copy): &ReplayKey, queue: &Queue, offset: i64) -> String {
    format!(
        "{REPLAYED}{offset} {copy} {} {} {topic} {id}\n",
        queue.id, queue.broker
    )
}
