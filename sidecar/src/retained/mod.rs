//! Who wrote each retained topic of the cluster last, so that all nodes keep the same message.
//!
//! Nodes get retained messages in different orders, and their own at once. So each has a version (time, node, place in the node's log), the larger
//! one stays, and a node that gets a smaller one delivers it to its subscribers without keeping it. The time is that of the publish, raised
//! above the version that the node's broker kept before it: a clock that is behind can't undo what everyone saw later.
//!
//! One thing no version can decide: what this node's own broker did. It keeps what it gets last, be it a device's publish or a message
//! of another node that was injected. The plugin tells which of the injected ones it had before a publish. When one came after it that should not stay, the
//! publish is injected once more: a *correction*. Its subscribers get it twice then; it takes two nodes that publish on one retained topic within milliseconds.
//!
//! The file `cluster.retained` keeps the versions over a restart of the sidecar. Mosquitto may lose retained messages that it had not saved when it was killed:
//! what was noted since is forgotten then, and read again from RocketMQ.

mod journal;
pub(crate) mod refresh;
#[cfg(test)]
mod tests;
mod version;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::message::{Identity, Message, Properties, RuleIds};

use crate::metrics::unix_ms;
use journal::Journal;
pub(crate) use version::{Kept, Version};

/// Mosquitto may have been given a message this long after it was noted here.
const INJECTED_LATE_MS: u64 = 5_000;
/// A message's time is by its node's clock, and the reading goes by RocketMQ's.
const CLOCKS_APART_MS: u64 = 60_000;

/// See the module.
pub(crate) struct Retained {
    versions: Mutex<Versions>,
    corrections: Mutex<Vec<Vec<u8>>>,
}

struct Versions {
    entries: HashMap<Box<str>, Entry>,
    /// Names of nodes, each once.
    nodes: HashMap<Box<str>, Arc<str>>,
    journal: Journal,
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    version: Version,
    origin: Origin,
    /// When that became known, Unix milliseconds.
    noted_ms: u64,
    /// The message was empty: there is none now.
    is_deleted: bool,
    /// When RocketMQ stored it last, as far as is known, Unix milliseconds.
    stored_ms: u64,
}

/// How this node's broker got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// From a client.
    Client,
    /// By the frame of the downlink log that begins here; `u64::MAX` while that is being appended.
    Frame(u64),
}

/// What to do with a retained message out of RocketMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the newest: to be delivered, and kept.
    Keep,
    /// A newer one is kept already: to be delivered and not kept.
    Deliver,
    /// The broker has had this very message.
    Known,
}

impl Retained {
    /// Reads `cluster.retained` in the spool, or begins a new one. A line that can't be read is left out: its message is read again from RocketMQ sooner or
    /// later, and kept then.
    pub(crate) fn open(spool_dir: &Path) -> io::Result<Retained> {
        let mut nodes = HashMap::new();
        let (journal, entries) = Journal::open(spool_dir, &mut nodes)?;
        Ok(Retained {
            versions: Mutex::new(Versions {
                entries,
                nodes,
                journal,
            }),
            corrections: Mutex::default(),
        })
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mosquitto has started, with what it had saved at this time (0: with nothing). Returns since when retained messages have to be read again, Unix milliseconds, if
    /// it may have lost any.
    pub(crate) fn started(&self, saved_at_ms: u64) -> Option<u64> {
        let mut versions = self.versions();
        let known = saved_at_ms.saturating_sub(INJECTED_LATE_MS);
        let is_lost = |entry: &Entry| entry.noted_ms >= known;
        let lost = versions.entries.values().filter(|entry| is_lost(entry));
        let since_ms = lost.map(|entry| entry.version.at_ms).min()?;
        versions.entries.retain(|_, entry| !is_lost(entry));
        versions.rewrite();
        Some(since_ms.saturating_sub(CLOCKS_APART_MS))
    }

    /// A device has published a retained message here. Returns the time of its version.
    pub(crate) fn publish(&self, message: &Message<'_>, identity: &Identity<'_>) -> u64 {
        let mut versions = self.versions();
        let node = versions.node(identity.node);
        let version = |at_ms| Version {
            at_ms,
            node: Arc::clone(&node),
            epoch: identity.epoch,
            position: identity.position,
        };
        let received = message.received_at_ms;
        let at_ms = match versions.entries.get(message.topic) {
            None => received,
            // The log is read again.
            Some(entry) if entry.version.is_of(identity) => return entry.version.at_ms,
            Some(entry) if entry.is_before(message.injected) => {
                received.max(entry.version.at_ms.saturating_add(1))
            }
            Some(entry) if version(received) < entry.version => return received,
            Some(_) => {
                self.correct(message);
                received
            }
        };
        let entry = Entry {
            version: version(at_ms),
            origin: Origin::Client,
            noted_ms: unix_ms(),
            is_deleted: message.payload.is_empty(),
            stored_ms: at_ms,
        };
        versions.note(message.topic, entry);
        at_ms
    }

    /// The broker keeps another message than this one, or will, and this is the newest.
    fn correct(&self, message: &Message<'_>) {
        let again = Message {
            retain: true,
            will: false,
            mqtt_version: 0,
            client_id: "",
            username: None,
            properties: if message.properties.is_empty() {
                Properties::EMPTY
            } else {
                message.properties
            },
            injected: None,
            rules: RuleIds::EMPTY,
            ..*message
        };
        let mut frame = vec![0; again.encoded_len()];
        again.encode_into(&mut frame);
        self.corrections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(frame);
    }

    /// Frames for the downlink log, behind everything that was judged before.
    pub(crate) fn take_corrections(&self) -> Vec<Vec<u8>> {
        let mut corrections = self
            .corrections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut corrections)
    }

    /// What to do with a message. After [`Verdict::Keep`] either [`Retained::handed_over`] or [`Retained::not_handed_over`] has to be called.
    pub(crate) fn judge(&self, kept: &Kept<'_>) -> Verdict {
        let mut versions = self.versions();
        let node = versions.node(kept.identity.node);
        let version = kept.version(node);
        match versions.entries.get_mut(kept.topic.as_ref()) {
            Some(entry) if entry.version.is_of(&kept.identity) => {
                entry.stored_ms = entry.stored_ms.max(kept.stored_ms);
                Verdict::Known
            }
            Some(entry) if version < entry.version => Verdict::Deliver,
            _ => {
                let entry = Entry {
                    version,
                    origin: Origin::Frame(u64::MAX),
                    noted_ms: unix_ms(),
                    is_deleted: kept.is_deleted,
                    stored_ms: kept.stored_ms,
                };
                // Not yet into the file: the frame may not come to be.
                versions.entries.insert(kept.topic.as_ref().into(), entry);
                Verdict::Keep
            }
        }
    }

    /// The message that was to be kept begins here in the downlink log.
    pub(crate) fn handed_over(&self, kept: &Kept<'_>, position: u64) {
        let mut versions = self.versions();
        let noted = versions.entries.get(kept.topic.as_ref()).cloned();
        if let Some(entry) = noted.filter(|entry| entry.version.is_of(&kept.identity)) {
            let entry = Entry {
                origin: Origin::Frame(position),
                ..entry
            };
            versions.note(kept.topic.as_ref(), entry);
        }
    }

    /// The message that was to be kept is a dead letter, or comes again.
    pub(crate) fn not_handed_over(&self, kept: &Kept<'_>) {
        let mut versions = self.versions();
        let noted = versions.entries.get(kept.topic.as_ref());
        if noted.is_some_and(|entry| entry.version.is_of(&kept.identity)) {
            versions.entries.remove(kept.topic.as_ref());
        }
    }

    /// Whether it is the newest of its topic, and was not stored since this time.
    pub(crate) fn is_stored_before(&self, kept: &Kept<'_>, before_ms: u64) -> bool {
        let versions = self.versions();
        let entry = versions.entries.get(kept.topic.as_ref());
        let entry = entry.filter(|entry| entry.version.is_of(&kept.identity) && !entry.is_deleted);
        entry.is_some_and(|entry| entry.stored_ms.max(kept.stored_ms) < before_ms)
    }

    /// It was stored once more.
    pub(crate) fn was_stored(&self, kept: &Kept<'_>, at_ms: u64) {
        let mut versions = self.versions();
        let entry = versions.entries.get_mut(kept.topic.as_ref());
        if let Some(entry) = entry.filter(|entry| entry.version.is_of(&kept.identity)) {
            entry.stored_ms = entry.stored_ms.max(at_ms);
        }
    }

    /// How many topics have a retained message.
    pub(crate) fn len(&self) -> usize {
        let versions = self.versions();
        let entries = versions.entries.values();
        entries.filter(|entry| !entry.is_deleted).count()
    }
}

impl Versions {
    fn node(&mut self, name: &str) -> Arc<str> {
        journal::intern(&mut self.nodes, name)
    }

    fn note(&mut self, topic: &str, entry: Entry) {
        let written = self.journal.append(topic, &entry);
        self.entries.insert(topic.into(), entry);
        // A version that the next run does not know costs a repetition, never a message.
        if let Err(error) = written {
            log::warn!("cluster.retained can't be written: {error}");
        } else if self.journal.is_long(self.entries.len()) {
            self.rewrite();
        }
    }

    fn rewrite(&mut self) {
        if let Err(error) = self.journal.rewrite(&mut self.entries) {
            log::warn!("cluster.retained can't be written: {error}");
        }
    }
}

impl Entry {
    /// The broker had it before a publish before which everything up to `injected` was injected.
    fn is_before(&self, injected: Option<u64>) -> bool {
        match (self.origin, injected) {
            (Origin::Frame(position), Some(injected)) => position < injected,
            _ => true,
        }
    }
}
