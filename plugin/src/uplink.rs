//! A message on its way up: which rules want it, and into the log with it.
//!
//! Runs on Mosquitto's thread inside MESSAGE. It allocates nothing (the buffers are reused; reading MQTT 5 properties
//! is the exception, see `ffi::properties`) and makes no system call while the sidecar is awake: the clock is the
//! vDSO's, the frame is encoded in place in the mapped log.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use handoff::{AppendError, Counters, Position, Writer};
use protocol::config::SpoolFull;
use protocol::counters as count;
use protocol::message::{Message, Properties, PropertyBuffer, QoS, Returned, RuleIds};
use protocol::topic::TOPIC_BYTES_MAX;

use crate::carriers::Carriers;
use crate::events::Publish;
use crate::ledger;
use crate::limit::Limit;
use crate::refusal::GiveBack;
use crate::wanted::Wanted;
use crate::wills::Will;

/// What became of a message. Each but `NotWanted` is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No rule wants it.
    NotWanted,
    /// It is in the log: the sender may get its acknowledgement.
    Kept,
    /// It is not, and its sender need not know.
    Dropped,
    /// It is not, and its sender must not get an acknowledgement.
    Refused,
    /// A native bridge has brought what RocketMQ brings to all nodes: the broker must not take it too.
    Carried,
}

/// The way up.
pub(crate) struct Uplink {
    writer: Writer,
    wanted: Rc<Wanted>,
    carriers: Carriers,
    policy: SpoolFull,
    counters: Rc<Counters>,
    /// The rules that want the topic `matched`.
    ids: Vec<u32>,
    /// Looked up last: its access check asks for the same topic as the message that follows.
    matched: String,
    properties: PropertyBuffer,
    complaints: Complaints,
    /// The disk had no room for the log a moment ago.
    no_room: Option<Instant>,
    injected: Position,
}

/// How long a full disk is taken for full without another try: when nobody may log in, nobody may try.
const NO_ROOM_FOR: Duration = Duration::from_secs(5);

impl Uplink {
    pub(crate) fn new(
        writer: Writer,
        wanted: Rc<Wanted>,
        policy: SpoolFull,
        counters: Rc<Counters>,
    ) -> Uplink {
        Uplink {
            writer,
            wanted,
            carriers: Carriers::default(),
            policy,
            counters,
            ids: Vec::with_capacity(64),
            matched: String::with_capacity(TOPIC_BYTES_MAX),
            properties: PropertyBuffer::with_capacity(4096),
            complaints: Complaints::default(),
            no_room: None,
            injected: 0,
        }
    }

    /// The clients that are native bridges between nodes.
    pub(crate) fn carriers(&mut self) -> &mut Carriers {
        &mut self.carriers
    }

    /// What the downlink log has before this position is injected.
    pub(crate) fn set_injected(&mut self, position: Position) {
        self.injected = position;
    }

    /// The position behind what is in the log.
    pub(crate) fn end(&self) -> Position {
        self.writer.end()
    }

    /// Bytes of the log that wait, and how many it may hold.
    pub(crate) fn fill(&self) -> (u64, u64) {
        (self.writer.used_bytes(), self.writer.bytes_max())
    }

    /// Whether the disk had no room for the log a moment ago.
    pub(crate) fn has_no_room(&self) -> bool {
        self.no_room.is_some_and(|at| at.elapsed() < NO_ROOM_FOR)
    }

    /// The rules in use.
    pub(crate) fn wanted(&self) -> Rc<Wanted> {
        Rc::clone(&self.wanted)
    }

    /// Other rules from now on.
    pub(crate) fn set_wanted(&mut self, wanted: Rc<Wanted>) {
        self.wanted = wanted;
        self.ids.clear();
        self.matched.clear();
    }

    /// Whether any rule wants `topic`.
    pub(crate) fn wants(&mut self, topic: &str) -> bool {
        self.collect(topic)
    }

    /// A publish, with its properties already read where that was done for its access check.
    pub(crate) fn publish(
        &mut self,
        publish: &Publish<'_>,
        read: Option<(&PropertyBuffer, Option<u32>)>,
    ) -> Outcome {
        if !self.collect(publish.topic) {
            return Outcome::NotWanted;
        }
        if self.carriers.has(publish.client.id) && self.wanted.shares(&self.ids) {
            self.counters.add(count::CLUSTER_BRIDGE_DROPPED, 1);
            return Outcome::Carried;
        }
        let mut own = std::mem::take(&mut self.properties);
        let (properties, listed) = match read {
            Some((buffer, expiry)) => (buffer.as_properties(), expiry),
            None if publish.properties.is_empty() => (Properties::EMPTY, None),
            None => {
                let expiry = publish.properties.read_into(&mut own);
                (own.as_properties(), expiry)
            }
        };
        let message = Message {
            topic: publish.topic,
            payload: publish.payload,
            qos: QoS::from_u8(publish.qos).unwrap_or(QoS::AtLeastOnce),
            retain: publish.retain,
            will: false,
            mqtt_version: publish.client.mqtt_version,
            client_id: publish.client.id,
            username: publish.client.username,
            received_at_ms: now_ms(),
            expiry_s: listed.or_else(|| publish.expiry_s()),
            properties,
            injected: None,
            rules: RuleIds::EMPTY,
        };
        let outcome = self.append(message);
        self.properties = own;
        outcome
    }

    /// A will. Nobody waits for an acknowledgement of it: what can't be kept is counted as a drop.
    pub(crate) fn will(&mut self, will: &Will) {
        if !self.collect(will.topic()) {
            return;
        }
        let client = will.client();
        let message = Message {
            topic: will.topic(),
            payload: will.payload(),
            qos: QoS::from_u8(will.qos()).unwrap_or(QoS::AtLeastOnce),
            retain: will.retain(),
            will: true,
            mqtt_version: client.mqtt_version,
            client_id: client.id,
            username: client.username,
            received_at_ms: now_ms(),
            expiry_s: will.expiry_s(),
            properties: will.properties().as_properties(),
            injected: None,
            rules: RuleIds::EMPTY,
        };
        if self.append(message) == Outcome::Kept {
            self.counters.add(count::WILLS_APPENDED, 1);
        }
    }

    /// Fills `ids` with the rules that want `topic`, each once and in order.
    fn collect(&mut self, topic: &str) -> bool {
        if self.matched == topic {
            return !self.ids.is_empty();
        }
        self.matched.clear();
        self.matched.push_str(topic);
        self.ids.clear();
        let ids = &mut self.ids;
        self.wanted.matches(topic, |id| ids.push(id));
        if ids.len() > 1 {
            // All share rules have the same number: what several of them match goes once.
            ids.sort_unstable();
            ids.dedup();
        }
        !ids.is_empty()
    }

    fn append(&mut self, message: Message<'_>) -> Outcome {
        // Taken out and put back, so that `message` borrows a local: an empty Vec costs no allocation.
        let ids = std::mem::take(&mut self.ids);
        // A shared value comes down from other nodes too, and the last one must win: what had come by then tells.
        let last_wins = message.retain && self.wanted.shares(&ids);
        let outcome = self.append_for(&Message {
            injected: last_wins.then_some(self.injected),
            rules: RuleIds::from_slice(&ids),
            ..message
        });
        self.ids = ids;
        outcome
    }

    fn append_for(&mut self, message: &Message<'_>) -> Outcome {
        self.counters.add(count::UPLINK_MATCHED, 1);
        let len = message.encoded_len();
        let result = if len > self.writer.frame_len_max() {
            Err(AppendError::TooLarge {
                len,
                max: self.writer.frame_len_max(),
            })
        } else {
            self.writer
                .append_with(len, |frame| message.encode_into(frame))
        };
        match self.in_the_log(result) {
            Ok(()) => {
                ledger::appended(&self.counters, len as u64, &self.writer);
                self.complaints.full = false;
                self.no_room = None;
                Outcome::Kept
            }
            Err(error) => self.not_kept(message, &error),
        }
    }

    /// What can't be synced is in the log all the same and on its way: told, and a success.
    fn in_the_log(&mut self, appended: Result<Position, AppendError>) -> Result<(), AppendError> {
        match appended {
            Err(error @ AppendError::NotSynced { .. }) => {
                self.complaints.not_synced(&error);
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Exactly one counter for each message that could not be kept.
    fn not_kept(&mut self, message: &Message<'_>, error: &AppendError) -> Outcome {
        let acknowledged = message.qos != QoS::AtMostOnce && !message.will;
        let full = matches!(error, AppendError::Full | AppendError::NoSpace(_));
        if matches!(error, AppendError::NoSpace(_)) {
            self.no_room = Some(Instant::now());
        }
        let (counter, outcome) = match (full, acknowledged) {
            (true, true) if self.policy == SpoolFull::Drop => {
                (count::UPLINK_DROPPED_FULL, Outcome::Dropped)
            }
            (true, true) => (count::UPLINK_REFUSED, Outcome::Refused),
            (true, false) if message.qos == QoS::AtMostOnce => {
                (count::UPLINK_DROPPED_QOS0_FULL, Outcome::Dropped)
            }
            (true, false) => (count::UPLINK_DROPPED_FULL, Outcome::Dropped),
            (false, _) => {
                let too_large = matches!(error, AppendError::TooLarge { .. });
                let counter = if too_large {
                    count::UPLINK_TOO_LARGE
                } else {
                    count::UPLINK_ERRORS
                };
                (
                    counter,
                    if acknowledged {
                        Outcome::Refused
                    } else {
                        Outcome::Dropped
                    },
                )
            }
        };
        self.counters.add(counter, 1);
        self.complaints.about(message, error, full, outcome);
        outcome
    }

    /// Syncs the log to the disk.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.writer.sync()
    }
}

impl GiveBack for Uplink {
    fn give_back(&mut self, returned: &Returned<'_>) -> Result<(), AppendError> {
        let (len, max) = (returned.encoded_len(), self.writer.frame_len_max());
        if len > max {
            return Err(AppendError::TooLarge { len, max });
        }
        let appended = self
            .writer
            .append_with(len, |frame| returned.encode_into(frame));
        self.in_the_log(appended)?;
        ledger::returned(&self.counters, &self.writer);
        Ok(())
    }
}

/// Says once that the spool is full, until it is not, and other failures at most once a second.
#[derive(Default)]
struct Complaints {
    full: bool,
    others: Limit,
}

impl Complaints {
    fn not_synced(&mut self, error: &AppendError) {
        if self.others.allows() {
            log::error!("a message is bridged, but a loss of power could take it: {error}");
        }
    }

    fn about(&mut self, message: &Message<'_>, error: &AppendError, full: bool, outcome: Outcome) {
        let silent = if full {
            std::mem::replace(&mut self.full, true)
        } else {
            !self.others.allows()
        };
        if silent {
            return;
        }
        let what = if outcome == Outcome::Refused {
            "refused"
        } else {
            "not bridged"
        };
        log::error!(
            "a message of `{}` on `{}` was {what}: {error} (further ones are counted, see `status`)",
            message.client_id,
            message.topic,
        );
    }
}

/// Milliseconds of the Unix epoch, without a system call.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "uplink_tests.rs"]
mod tests;
