//! One dead letter: the whole message, and why it is here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use protocol::message::{DownlinkFrame, Identity, Message};
use rocketmq::{Incoming, Outgoing, Queue};
use serde::{Deserialize, Serialize};

use crate::mapping::names;
use crate::metrics::unix_ms;

/// From the device: up to RocketMQ, or down from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// Device → RocketMQ.
    #[default]
    Uplink,
    /// RocketMQ → device.
    Downlink,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Direction::Uplink => "uplink",
            Direction::Downlink => "downlink",
        }
    }
}

/// A line of the files. Fields that a letter does not have are left out; the names are stable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Letter {
    /// `<file>-<line>`; given when it is written, never used again.
    pub(crate) id: String,
    /// When it was written, Unix milliseconds.
    pub(crate) time_ms: u64,
    pub(crate) direction: Direction,
    /// The rule's text; empty when none is known.
    pub(crate) rule: String,
    pub(crate) reason: String,
    /// The MQTT topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rocketmq_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) properties: Option<Vec<(String, String)>>,
    /// The body of a RocketMQ message, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// A frame of a hand-off log that could not become a message of the other side, or damaged bytes of it, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frame: Option<String>,
    /// Where it stood: `node:epoch:position` in a hand-off log, or `broker/queue/offset` in RocketMQ.
    pub(crate) position: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) born_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stored_at_ms: Option<i64>,
    /// Why the body is not what its producer meant: compressed still, or the whole message as RocketMQ keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// What a letter holds, ready to be tried again.
#[derive(Debug)]
pub(crate) enum Content {
    /// RocketMQ refused it: the topic and the message as they were.
    Refused(String, Outgoing),
    /// A frame of the uplink log that no rule could map.
    Unmapped(Vec<u8>),
    /// A message from RocketMQ that no rule could map.
    Unmappable(Box<Incoming>),
    /// A frame of the downlink log that could not be injected.
    NotInjected(Vec<u8>),
}

impl Letter {
    /// A message that RocketMQ refused.
    pub(crate) fn refused(
        rocketmq_topic: &str,
        message: &Outgoing,
        rule: &str,
        reason: &str,
    ) -> Letter {
        let property = |names: &[&str]| {
            let found = message
                .properties
                .iter()
                .find(|(name, _)| names.contains(name));
            found.map(|(_, value)| value.to_owned())
        };
        Letter {
            time_ms: unix_ms(),
            direction: Direction::Uplink,
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            topic: property(&[names::TOPIC, names::apsara::TOPIC]),
            client_id: property(&[names::CLIENT_ID, names::apsara::CLIENT_ID]),
            rocketmq_topic: Some(rocketmq_topic.to_owned()),
            tag: message.tag.clone(),
            keys: message.keys.clone(),
            properties: Some(message.properties.to_pairs()),
            body: Some(STANDARD.encode(&message.body)),
            position: property(&[names::ID]).unwrap_or_default(),
            ..Letter::default()
        }
    }

    /// A frame of a hand-off log that could not be passed on, with what is known of its message.
    pub(crate) fn of_frame(
        direction: Direction,
        identity: &Identity<'_>,
        frame: &[u8],
        message: Option<&Message<'_>>,
        rule: &str,
        reason: &str,
    ) -> Letter {
        Letter {
            time_ms: unix_ms(),
            direction,
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            topic: message.map(|message| message.topic.to_owned()),
            client_id: message
                .map(|message| message.client_id.to_owned())
                .filter(|client_id| !client_id.is_empty()),
            frame: Some(STANDARD.encode(frame)),
            position: identity.to_string(),
            ..Letter::default()
        }
    }

    /// A message from RocketMQ that no rule can map.
    pub(crate) fn unmappable(incoming: &Incoming, rule: &str, reason: &str) -> Letter {
        let queue = &incoming.queue;
        Letter {
            time_ms: unix_ms(),
            direction: Direction::Downlink,
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            rocketmq_topic: Some(queue.topic.clone()),
            tag: incoming.tag.clone(),
            keys: incoming.keys.clone(),
            properties: Some(incoming.properties.clone()),
            body: Some(STANDARD.encode(&incoming.body)),
            position: format!("{}/{}/{}", queue.broker, queue.id, incoming.offset),
            message_id: Some(incoming.message_id.clone()),
            born_at_ms: Some(incoming.born_at_ms),
            stored_at_ms: Some(incoming.stored_at_ms),
            problem: incoming.problem.clone(),
            ..Letter::default()
        }
    }

    /// About how much memory it holds.
    pub(super) fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let pairs = self.properties.iter().flatten();
        let properties: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
        text(&self.body) + text(&self.frame) + properties + self.rule.len() + self.reason.len()
    }

    /// The line, with its end.
    pub(super) fn line(&self) -> Vec<u8> {
        // Strings, numbers and pairs of strings always serialize.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// What can be tried again, or why nothing can.
    pub(crate) fn content(&self) -> Result<Content, String> {
        let bytes = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|error| format!("the letter is damaged: {error}"))
        };
        if let Some(frame) = &self.frame {
            let frame = bytes(frame)?;
            return Ok(match self.direction {
                Direction::Uplink => Content::Unmapped(frame),
                Direction::Downlink => Content::NotInjected(frame),
            });
        }
        let (Some(topic), Some(body)) = (&self.rocketmq_topic, &self.body) else {
            return Err("the letter holds neither a frame nor a body".to_owned());
        };
        let body = Bytes::from(bytes(body)?);
        let properties = self.properties.clone().unwrap_or_default();
        match self.direction {
            Direction::Uplink => Ok(Content::Refused(
                topic.clone(),
                Outgoing {
                    body,
                    tag: self.tag.clone(),
                    keys: self.keys.clone(),
                    properties: properties.into_iter().collect(),
                },
            )),
            Direction::Downlink => {
                let (queue, offset) = self.queue(topic)?;
                Ok(Content::Unmappable(Box::new(Incoming {
                    queue,
                    offset,
                    message_id: self.message_id.clone().unwrap_or_default(),
                    body,
                    tag: self.tag.clone(),
                    keys: self.keys.clone(),
                    properties,
                    born_at_ms: self.born_at_ms.unwrap_or(0),
                    stored_at_ms: self.stored_at_ms.unwrap_or(0),
                    is_read_back: false,
                    problem: self.problem.clone(),
                })))
            }
        }
    }

    /// `broker/queue/offset`; a broker's name may have slashes.
    fn queue(&self, topic: &str) -> Result<(Queue, i64), String> {
        let parsed = || {
            let (rest, offset) = self.position.rsplit_once('/')?;
            let (broker, id) = rest.rsplit_once('/')?;
            let queue = Queue {
                topic: topic.to_owned(),
                broker: broker.to_owned(),
                id: id.parse().ok()?,
            };
            Some((queue, offset.parse().ok()?))
        };
        parsed()
            .ok_or_else(|| format!("its position {:?} is no broker/queue/offset", self.position))
    }

    /// The MQTT payload, or what there is instead: the whole frame of one that can't be read.
    pub(crate) fn payload(&self) -> Result<Vec<u8>, String> {
        Ok(match self.content()? {
            Content::Refused(_, message) => {
                payload_of_body(&message.body, message.properties.iter())
            }
            Content::Unmappable(incoming) => {
                let properties = incoming.properties.iter();
                payload_of_body(
                    &incoming.body,
                    properties.map(|(n, v)| (n.as_str(), v.as_str())),
                )
            }
            Content::Unmapped(frame) | Content::NotInjected(frame) => {
                let decoded = DownlinkFrame::decode(&frame).ok();
                let message = decoded.as_ref().and_then(DownlinkFrame::message);
                match message.map(|message| message.payload.to_vec()) {
                    Some(payload) => payload,
                    None => frame,
                }
            }
        })
    }
}

/// RocketMQ has no empty bodies: those are marked.
fn payload_of_body<'a>(
    body: &Bytes,
    mut properties: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<u8> {
    let is_empty = properties.any(|(name, value)| {
        [names::EMPTY, names::apsara::EMPTY].contains(&name) && ["1", "true"].contains(&value)
    });
    if is_empty { Vec::new() } else { body.to_vec() }
}

/// `<file>-<line>`.
pub(crate) fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (file, line) = id.split_once('-')?;
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_plain)
    };
    Some((number(file)?, number(line)?))
}
