//! What the core has to say: to the other nodes through RocketMQ, and to this node's Mosquitto through the downlink log.
//!
//! Of a client that comes and goes while it can't be told, only how it stands at last is told: so what waits is bounded by the number of
//! clients, however long RocketMQ is away.

use std::collections::VecDeque;

use protocol::message::{Command, Message, QoS};
use rocketmq::Outgoing;
use serde::Serialize;

use super::core::{Core, Telling};
use super::members::Now;
use super::presence::{Entry, Table};
use super::wire::{Away, News, OFFLINE, ONLINE, SNAPSHOT, Snapshot, cause, cause_text, outgoing};

/// Clients in one part of a snapshot, and about its bytes, at most.
const PART_CLIENTS: usize = 500;
const PART_BYTES: usize = 128 << 10;
/// Bytes of messages that go at once.
const BATCH_BYTES: usize = 256 << 10;

/// A frame for the downlink log.
#[derive(Debug)]
pub(super) struct Frame {
    client: Box<str>,
    what: Says,
    pub(super) bytes: Vec<u8>,
}

/// What a frame says of its client.
#[derive(Debug, Clone, Copy)]
enum Says {
    /// This login is to be closed.
    Close(u64),
    /// It is on another node since this login.
    Moved(u64),
    /// It is a native bridge between nodes (true), or is none any more.
    Carrier(bool),
    /// Where it is, for everybody.
    Place,
}

/// The payload of a retained MQTT message.
#[derive(Debug, Serialize)]
struct Published<'a> {
    client: &'a str,
    node: &'a str,
    online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    at_ms: u64,
    login: u64,
}

impl Core {
    /// What is to be told of clients next; nothing while there is nothing, or this node must not take part.
    pub(super) fn next_presence(&mut self, max: usize, now: Now) -> Vec<Outgoing> {
        let mut batch = Vec::new();
        // Who has not been heard for a while may be taken for dead, and must begin a new epoch first.
        if !self.members.is_at_work(now) || !self.members.is_hearing() {
            return batch;
        }
        let mut bytes = 0;
        while batch.len() < max && bytes < BATCH_BYTES {
            let Some((client, entry)) = self.table.next_to_tell() else {
                break;
            };
            let message = self.tell(&client, &entry);
            bytes += message.weight();
            batch.push(message);
        }
        batch.extend(self.next_part());
        batch
    }

    fn tell(&mut self, client: &str, entry: &Entry) -> Outgoing {
        let node = self.table.node_of(entry).to_owned();
        let (epoch, seq) = if node == self.node {
            self.seq += 1;
            (self.epoch, self.seq)
        } else {
            (entry.epoch, entry.seq)
        };
        let news = News {
            client: client.to_owned(),
            node,
            login: entry.version,
            epoch,
            seq,
            online: entry.is_online,
            cause: (!entry.is_online).then(|| cause_text(entry.cause)),
            cause_code: entry.cause,
            session_stays: entry.session_stays,
            at_ms: entry.at_ms,
            by: self.node.clone(),
        };
        let tag = if news.online { ONLINE } else { OFFLINE };
        outgoing(&news, tag, Some(client))
    }

    fn next_part(&mut self) -> Option<Outgoing> {
        if self.telling.is_none() {
            if !std::mem::take(&mut self.is_snapshot_wanted) {
                return None;
            }
            self.seq += 1;
            let left = self.table.online_at(&self.node);
            let left: VecDeque<Box<str>> = left.map(|(client, _)| client.into()).collect();
            let away = self.table.away(|node| self.members.is_living(node));
            let away: VecDeque<Box<str>> = away.map(|(client, _)| client.into()).collect();
            self.telling = Some(Telling {
                left,
                away,
                seq: self.seq,
                part: 0,
            });
        }
        let mut telling = self.telling.take()?;
        let mut clients = Vec::new();
        let mut bytes = 0;
        while clients.len() < PART_CLIENTS && bytes < PART_BYTES {
            let Some(client) = telling.left.pop_front() else {
                break;
            };
            // One that has gone meanwhile is told of by itself.
            let ours = self.table.get(&client).filter(|entry| entry.is_online);
            if let Some(entry) = ours.filter(|entry| Table::is_ours(entry)) {
                bytes += client.len() + 40;
                clients.push((client.into_string(), entry.version, entry.at_ms));
            }
        }
        let mut away = Vec::new();
        while telling.left.is_empty() && away.len() < PART_CLIENTS && bytes < PART_BYTES {
            let Some(client) = telling.away.pop_front() else {
                break;
            };
            if let Some(entry) = self.table.get(&client).filter(|entry| !entry.is_online) {
                bytes += client.len() + 120;
                away.push(self.away(client.into_string(), entry));
            }
        }
        let snapshot = Snapshot {
            node: self.node.clone(),
            epoch: self.epoch,
            seq: telling.seq,
            part: telling.part,
            is_last: telling.left.is_empty() && telling.away.is_empty(),
            clients,
            away,
        };
        if snapshot.is_last {
            self.counters.snapshots_sent += 1;
        } else {
            telling.part += 1;
            self.telling = Some(telling);
        }
        Some(outgoing(&snapshot, SNAPSHOT, Some(&self.node)))
    }

    fn away(&self, client: String, entry: &Entry) -> Away {
        let is_ours = Table::is_ours(entry);
        let of_other = |value: u64| if is_ours { 0 } else { value };
        Away {
            client,
            node: match is_ours {
                true => String::new(),
                false => self.table.node_of(entry).to_owned(),
            },
            login: entry.version,
            epoch: of_other(entry.epoch),
            seq: of_other(entry.seq),
            cause_code: entry.cause,
            session_stays: entry.session_stays,
            at_ms: entry.at_ms,
        }
    }

    /// What Mosquitto is to be given next.
    pub(super) fn next_frames(&mut self, max: usize, now: Now) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.members.is_refused {
            return frames;
        }
        while frames.len() < max {
            if let Some((client, login)) = self.closes.pop_front() {
                frames.push(close(client, login, now.unix_ms));
            } else if let Some((client, login)) = self.moves.pop_front() {
                frames.push(moved(client, login, now.unix_ms));
            } else if let Some((client, is_carrier)) = self.carriers.next_to_tell() {
                frames.push(carrier(client, is_carrier, now.unix_ms));
            } else if let Some((client, entry)) = self.table.next_to_publish() {
                frames.extend(self.publish(client, entry.as_ref(), now));
            } else {
                break;
            }
        }
        frames
    }

    /// Nothing for a client id that can't be part of a topic.
    fn publish(&self, client: Box<str>, entry: Option<&Entry>, now: Now) -> Option<Frame> {
        let prefix = self.presence_topic.as_deref()?;
        let topic = format!("{prefix}/{}", topic_level(&client));
        protocol::topic::validate_topic(&topic).ok()?;
        let payload = entry.map(|entry| {
            let published = Published {
                client: &client,
                node: self.table.node_of(entry),
                online: entry.is_online,
                cause: (!entry.is_online).then(|| cause_text(entry.cause)),
                at_ms: entry.at_ms,
                login: entry.version,
            };
            // It has no maps, and so can't fail.
            serde_json::to_vec(&published).unwrap_or_default()
        });
        let message = Message {
            topic: &topic,
            payload: payload.as_deref().unwrap_or_default(),
            qos: QoS::AtLeastOnce,
            retain: true,
            received_at_ms: now.unix_ms,
            ..Message::default()
        };
        let mut bytes = vec![0; message.encoded_len()];
        message.encode_into(&mut bytes);
        Some(Frame {
            client,
            what: Says::Place,
            bytes,
        })
    }

    /// A frame did not get into the log.
    pub(super) fn frame_again(&mut self, frame: Frame) {
        match frame.what {
            Says::Close(login) => self.closes.push_back((frame.client, login)),
            Says::Moved(login) => self.moves.push_back((frame.client, login)),
            Says::Carrier(is_carrier) => self.carriers.tell_again(frame.client, is_carrier),
            Says::Place => self.table.publish_again(&frame.client),
        }
    }
}

fn close(client: Box<str>, login: u64, at_ms: u64) -> Frame {
    let command = Command::Close {
        client_id: &client,
        login,
        reason: cause::TAKEN_OVER,
        at_ms,
    };
    let bytes = encoded(&command);
    Frame {
        client,
        what: Says::Close(login),
        bytes,
    }
}

fn moved(client: Box<str>, login: u64, at_ms: u64) -> Frame {
    let command = Command::Moved {
        client_id: &client,
        login,
        at_ms,
    };
    let bytes = encoded(&command);
    Frame {
        client,
        what: Says::Moved(login),
        bytes,
    }
}

fn carrier(client: Box<str>, is_carrier: bool, at_ms: u64) -> Frame {
    let command = Command::Carrier {
        client_id: &client,
        is_carrier,
        at_ms,
    };
    let bytes = encoded(&command);
    Frame {
        client,
        what: Says::Carrier(is_carrier),
        bytes,
    }
}

fn encoded(command: &Command<'_>) -> Vec<u8> {
    let mut bytes = vec![0; command.encoded_len()];
    command.encode_into(&mut bytes);
    bytes
}

/// A client id where `+` and `#`, which no topic may have, are written as `%2B` and `%23`.
fn topic_level(client: &str) -> String {
    client.replace('+', "%2B").replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_becomes_part_of_a_topic() {
        assert_eq!(topic_level("site/7"), "site/7");
        assert_eq!(topic_level("a+b#"), "a%2Bb%23");
    }
}
