//! What the nodes of a cluster tell each other through RocketMQ: JSON bodies. Their fields are a format; a reader passes over
//! fields and messages that it doesn't know.

use bytes::Bytes;
use rocketmq::Outgoing;
use serde::{Deserialize, Serialize};

/// The RocketMQ tags of what is told of clients.
pub(super) const ONLINE: &str = "online";
pub(super) const OFFLINE: &str = "offline";
pub(super) const SNAPSHOT: &str = "snapshot";
/// Longer client ids, and those with blanks, are no keys in RocketMQ.
const KEY_BYTES_MAX: usize = 255;

/// Why a client is offline that its own connection doesn't tell: beyond the reason codes of MQTT.
pub(super) mod cause {
    /// The node is silent, and taken for dead.
    pub(crate) const NODE_LOST: u8 = 0xF0;
    /// The node has taken its leave.
    pub(crate) const NODE_LEFT: u8 = 0xF1;
    /// Mosquitto has started again.
    pub(crate) const RESTARTED: u8 = 0xF2;
    /// Its node doesn't have it any more, and has not said why.
    pub(crate) const GONE: u8 = 0xF3;
    /// Another login has taken the session over (MQTT 5).
    pub(crate) const TAKEN_OVER: u8 = 0x8E;
    /// Not known (MQTT 5: unspecified error).
    pub(crate) const UNKNOWN: u8 = 0x80;
}

/// A cause in words.
pub(super) fn cause_text(cause: u8) -> String {
    let text = match cause {
        cause::NODE_LOST => "node lost",
        cause::NODE_LEFT => "node left",
        cause::RESTARTED => "broker restarted",
        cause::GONE => "gone",
        0x00 => "disconnected",
        0x04 => "disconnected with will",
        cause::UNKNOWN => "connection lost",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x87 => "not authorized",
        0x8B => "broker shutting down",
        0x8D => "keep alive timeout",
        cause::TAKEN_OVER => "taken over",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        other => return format!("reason 0x{other:02X}"),
    };
    text.to_owned()
}

/// What is said on the nodes' topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(super) enum NodeMessage {
    /// I am here.
    Beat(Box<Beat>),
    /// I end, on purpose.
    Leave {
        /// Who.
        node: String,
        /// Which process of it.
        instance: String,
    },
    /// Tell which clients you have.
    Ask {
        /// Who asks.
        node: String,
        /// Who is asked.
        of: String,
        /// Its clients were given up as of this epoch: what it tells must be of a later one.
        #[serde(default)]
        above_epoch: u64,
    },
}

/// A heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Beat {
    /// Who.
    pub(super) node: String,
    /// Which spool it works on.
    pub(super) spool: String,
    /// Which process it is.
    pub(super) instance: String,
    /// When that began, by its clock.
    pub(super) started_ms: u64,
    /// See [`News::epoch`].
    pub(super) epoch: u64,
    /// Grows with each beat.
    pub(super) seq: u64,
    /// Of the program.
    pub(super) version: String,
    /// By its clock.
    pub(super) at_ms: u64,
    /// It has found another under its node id, and does not work.
    #[serde(default)]
    pub(super) is_refused: bool,
    /// How much it has to do.
    #[serde(default)]
    pub(super) load: Load,
    /// Stands for the filters that it shares.
    #[serde(default)]
    pub(super) share: u64,
    /// The client ids of its native bridges at the brokers that they connect to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) bridges: Vec<String>,
    /// The shared subscriptions that it has members of, by the hashes of their keys, and since when it takes part in each; 0: since this beat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<(u64, i64)>,
    /// What of the cluster's messages is with its Mosquitto: RocketMQ's broker, queue, and the offset behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) done: Vec<(String, i32, i64)>,
}

/// How much a node has to do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Load {
    /// Clients that are connected.
    pub(crate) clients: u64,
    /// Bytes that wait for RocketMQ.
    pub(crate) uplink_bytes: u64,
    /// Bytes that wait for Mosquitto.
    pub(crate) downlink_bytes: u64,
    /// What is wrong there, by its own judgement.
    pub(crate) degraded: Vec<String>,
}

/// Where a client is: the body of a presence message with the tag `online` or `offline`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct News {
    /// Who.
    pub(super) client: String,
    /// Where.
    pub(super) node: String,
    /// Orders the logins of this client in the whole cluster; about the milliseconds of the Unix epoch.
    pub(super) login: u64,
    /// Which life of the node this is of: it begins a new one when it starts, and when it has been taken for dead.
    pub(super) epoch: u64,
    /// Orders what was told in one epoch; the highest of all when another node tells that this one is lost.
    pub(super) seq: u64,
    /// Whether it is connected.
    pub(super) online: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    /// The same as a number, for nodes.
    #[serde(default)]
    pub(super) cause_code: u8,
    /// Its session is kept while it is away.
    #[serde(default)]
    pub(super) session_stays: bool,
    /// When it came or went.
    pub(super) at_ms: u64,
    /// Who tells it.
    pub(super) by: String,
}

/// All clients that are connected to a node, in parts: the body of a presence message with the tag `snapshot`. What is not in it is not
/// connected there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// Where.
    pub(super) node: String,
    /// As in [`News`].
    pub(super) epoch: u64,
    /// The same for all its parts.
    pub(super) seq: u64,
    /// 0 for the first.
    pub(super) part: u64,
    /// Whether it is the last one.
    pub(super) is_last: bool,
    /// Client id, login, since when.
    pub(super) clients: Vec<(String, u64, u64)>,
    /// Those that are away and may yet miss something: its own with a session, and those of nodes that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) away: Vec<Away>,
}

/// A client that is connected to no node, as a [`Snapshot`] has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Away {
    /// Who.
    pub(super) client: String,
    /// Where it was last; nothing: on the node that tells.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node: String,
    /// As in [`News`].
    pub(super) login: u64,
    /// As in [`News`], for another node's.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) epoch: u64,
    /// As in [`News`], for another node's.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) seq: u64,
    /// As in [`News`].
    pub(super) cause_code: u8,
    /// As in [`News`].
    pub(super) session_stays: bool,
    /// Since when it is away.
    pub(super) at_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The message that has this body.
pub(super) fn outgoing<T: Serialize>(body: &T, tag: &str, key: Option<&str>) -> Outgoing {
    let is_key = |key: &&str| {
        key.len() <= KEY_BYTES_MAX && !key.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    Outgoing {
        // It has no maps with odd keys, and so can't fail.
        body: Bytes::from(serde_json::to_vec(body).unwrap_or_default()),
        tag: Some(tag.to_owned()),
        keys: key.filter(is_key).map(str::to_owned),
        ..Outgoing::default()
    }
}

impl NodeMessage {
    /// As it goes to RocketMQ.
    pub(super) fn outgoing(&self) -> Outgoing {
        let (tag, node) = match self {
            NodeMessage::Beat(beat) => ("beat", &beat.node),
            NodeMessage::Leave { node, .. } => ("leave", node),
            NodeMessage::Ask { node, .. } => ("ask", node),
        };
        outgoing(self, tag, Some(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bodies_are_a_format() {
        let news = News {
            client: "c".into(),
            node: "a".into(),
            login: 5,
            epoch: 6,
            seq: 7,
            online: false,
            cause: Some(cause_text(cause::NODE_LOST)),
            cause_code: cause::NODE_LOST,
            session_stays: true,
            at_ms: 8,
            by: "b".into(),
        };
        let json = serde_json::json!({"client": "c", "node": "a", "login": 5, "epoch": 6, "seq": 7, "online": false,
            "cause": "node lost", "cause_code": 240, "session_stays": true, "at_ms": 8, "by": "b"});
        assert_eq!(serde_json::to_value(&news).unwrap(), json);
        let ask = NodeMessage::Ask {
            node: "a".into(),
            of: "b".into(),
            above_epoch: 3,
        };
        let json = serde_json::json!({"what": "ask", "node": "a", "of": "b", "above_epoch": 3});
        assert_eq!(serde_json::to_value(&ask).unwrap(), json);
        let beat = r#"{"what":"beat","node":"a","spool":"s","instance":"i","started_ms":1,"epoch":2,"seq":3,"version":"9",
            "at_ms":4,"load":{"clients":5},"of a later version":{}}"#;
        let NodeMessage::Beat(beat) = serde_json::from_str(beat).unwrap() else {
            panic!("a beat")
        };
        assert_eq!((beat.load.clients, beat.is_refused), (5, false));
    }

    #[test]
    fn what_can_be_no_key_is_none() {
        let key = |client: &str| outgoing(&1, ONLINE, Some(client)).keys;
        assert_eq!(key("sensor-7").as_deref(), Some("sensor-7"));
        assert_eq!(key("with blank"), None);
        assert_eq!(key(&"x".repeat(256)), None);
    }
}
