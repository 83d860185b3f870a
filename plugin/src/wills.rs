//! Finds the wills among the access checks.
//!
//! Mosquitto reports no message for a will. What it does is `ACL_CHECK` with access "write", with the will's topic and
//! payload (`context__send_will`), and publishes it when the check succeeds. An ordinary publish makes the same check,
//! and is followed at once by `MESSAGE` from the same client. So, in the sources of 2.0.11, 2.0.21, 2.0.22 and 2.1.2:
//!
//! 1. **The client is gone** (its `DISCONNECT`, or on 2.1 `CLIENT_OFFLINE`, came before): connection lost, kicked,
//!    session expired, delay over, or taken over while it was away. The check is a will's, unless the next callback is
//!    its `MESSAGE`: then a new client lives at the same address.
//! 2. **Taken over while connected** (`connect__on_authorised`): the check comes first, then the read checks of those
//!    to whom the will is delivered here, and its `DISCONNECT` is the very next callback. A publish would have had its
//!    `MESSAGE` in between.
//! 3. **The broker ends**: checks for all connected clients, no `DISCONNECT`, no tick any more. So what was checked,
//!    allowed and not followed by `MESSAGE` since the last tick is a will when the plugin is cleaned up, and is nothing
//!    (a refused publish) when another tick comes.
//!
//! In each case the verdict of others (an `acl_file`, a later plugin) counts; see `acl`.
//! A will's payload has a 16-bit length, so a longer message is never kept here.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use protocol::message::PropertyBuffer;

use crate::events::{Client, Publish};

/// Payloads of wills have a two-byte length.
const WILL_BYTES_MAX: usize = 65_535;
/// Bound on what case 3 keeps between two ticks. One pass of the broker's loop reads one packet from each of at most
/// 1000 sockets.
const UNCONFIRMED_BYTES_MAX: usize = 64 << 20;

/// A copy of what an access check was about. Reused from check to check: it allocates only while it grows.
#[derive(Clone, Default)]
pub(crate) struct Will {
    client: usize,
    topic: String,
    payload: Vec<u8>,
    client_id: String,
    username: Option<String>,
    qos: u8,
    retain: bool,
    mqtt_version: u8,
    properties: PropertyBuffer,
    properties_of: usize,
    expiry_s: Option<u32>,
}

impl Will {
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn qos(&self) -> u8 {
        self.qos
    }

    pub(crate) fn retain(&self) -> bool {
        self.retain
    }

    pub(crate) fn client(&self) -> Client<'_> {
        Client {
            key: self.client,
            id: &self.client_id,
            username: self.username.as_deref(),
            mqtt_version: self.mqtt_version,
        }
    }

    pub(crate) fn properties(&self) -> &PropertyBuffer {
        &self.properties
    }

    pub(crate) fn expiry_s(&self) -> Option<u32> {
        self.expiry_s
    }

    fn fill(&mut self, publish: &Publish<'_>) {
        self.client = publish.client.key;
        refill(&mut self.topic, publish.topic);
        self.payload.clear();
        self.payload.extend_from_slice(publish.payload);
        refill(&mut self.client_id, publish.client.id);
        match publish.client.username {
            Some(name) => refill(self.username.get_or_insert_default(), name),
            None => self.username = None,
        }
        self.qos = publish.qos;
        self.retain = publish.retain;
        self.mqtt_version = publish.client.mqtt_version;
        self.properties_of = publish.properties.address();
        self.expiry_s = publish.properties.read_into(&mut self.properties);
    }

    fn is_of(&self, publish: &Publish<'_>) -> bool {
        self.client == publish.client.key && self.topic == publish.topic && self.qos == publish.qos
    }

    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.as_properties().as_bytes().len()
    }
}

fn refill(to: &mut String, from: &str) {
    to.clear();
    to.push_str(from);
}

/// Addresses of the broker's heap: a multiplication spreads them well enough.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, value: usize) {
        // Fibonacci hashing (Knuth 6.4); the high bits choose the bucket.
        self.0 = (self.0 ^ value as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(26);
    }
}

/// The clients that have gone, by the address of their record, with a hash of their id.
///
/// Addresses are used again, so what is checked for a record here may be a new client's: one of another id, or the same
/// device once more. Of each id only the newest record counts: a login ends all that its older ones had to say, the will
/// that was delayed too.
#[derive(Default)]
struct Gone {
    ids: HashMap<usize, u64, BuildHasherDefault<AddressHasher>>,
    newest: HashMap<u64, usize>,
    hasher: RandomState,
}

impl Gone {
    fn contains(&self, key: usize) -> bool {
        self.ids.contains_key(&key)
    }

    /// Is it here, and this client? Where another one lives in its place by now, it no longer is.
    fn is(&mut self, key: usize, id: &str) -> bool {
        let Some(known) = self.ids.get(&key) else {
            return false;
        };
        let same = *known == self.hasher.hash_one(id);
        if !same {
            self.remove(key);
        }
        same
    }

    fn insert(&mut self, key: usize, id: &str) {
        self.remove(key);
        // Without an id nobody has logged in: a connection that was only opened and closed has no will.
        if id.is_empty() {
            return;
        }
        let hash = self.hasher.hash_one(id);
        self.ids.insert(key, hash);
        if let Some(older) = self.newest.insert(hash, key) {
            self.ids.remove(&older);
        }
    }

    fn remove(&mut self, key: usize) {
        if !self.ids.is_empty()
            && let Some(hash) = self.ids.remove(&key)
        {
            self.newest.remove(&hash);
        }
    }
}

/// What a later access check would say; asked only where somebody else decides.
pub(crate) type Verdict<'a> = &'a dyn Fn(&Will) -> bool;

/// Tells wills from publishes.
pub(crate) struct WillTracker {
    gone: Gone,
    check: Will,
    checked: bool,
    unconfirmed: Vec<Will>,
    unconfirmed_bytes: usize,
    overflowed: u64,
}

impl WillTracker {
    pub(crate) fn new() -> WillTracker {
        let check = Will {
            topic: String::with_capacity(1024),
            payload: Vec::with_capacity(WILL_BYTES_MAX),
            client_id: String::with_capacity(1024),
            username: None,
            properties: PropertyBuffer::with_capacity(4096),
            ..Will::default()
        };
        WillTracker {
            gone: Gone::default(),
            check,
            checked: false,
            unconfirmed: Vec::new(),
            unconfirmed_bytes: 0,
            overflowed: 0,
        }
    }

    /// A write access check. `allowed` is asked at once for a client that is gone: its record may not live until the
    /// next callback.
    pub(crate) fn on_write_check(
        &mut self,
        publish: &Publish<'_>,
        allowed: impl FnOnce() -> bool,
        verdict: Verdict<'_>,
        emit: &mut dyn FnMut(&Will),
    ) {
        self.settle(verdict, emit);
        if publish.payload.len() > WILL_BYTES_MAX {
            return;
        }
        if self.gone.is(publish.client.key, publish.client.id) && !allowed() {
            return;
        }
        self.check.fill(publish);
        self.checked = true;
    }

    /// A message: its check, the last callback, was no will's. Returns whether the properties that the check read are
    /// this message's (`checked_properties`), which spares reading them twice.
    pub(crate) fn on_message(
        &mut self,
        publish: &Publish<'_>,
        verdict: Verdict<'_>,
        emit: &mut dyn FnMut(&Will),
    ) -> bool {
        let mut same_properties = false;
        if self.checked && self.check.is_of(publish) {
            self.checked = false;
            same_properties = self.check.properties_of == publish.properties.address();
        } else {
            self.settle(verdict, emit);
        }
        self.on_alive(publish.client.key);
        same_properties
    }

    /// The properties of the last check.
    pub(crate) fn checked_properties(&self) -> (&PropertyBuffer, Option<u32>) {
        (&self.check.properties, self.check.expiry_s)
    }

    /// A client disconnected, whether its session ends or not. `id` is empty for one that never logged in.
    pub(crate) fn on_gone(
        &mut self,
        key: usize,
        id: &str,
        verdict: Verdict<'_>,
        emit: &mut dyn FnMut(&Will),
    ) {
        let taken_over = self.checked && self.check.client == key && !self.gone.contains(key);
        if taken_over {
            self.checked = false;
            if verdict(&self.check) {
                emit(&self.check);
            }
        } else {
            self.settle(verdict, emit);
        }
        self.gone.insert(key, id);
    }

    /// Only a connected client does this (subscribing, or on 2.1 `CONNECT`).
    pub(crate) fn on_alive(&mut self, key: usize) {
        self.gone.remove(key);
    }

    /// A tick: the broker still runs.
    pub(crate) fn on_tick(&mut self, verdict: Verdict<'_>, emit: &mut dyn FnMut(&Will)) {
        self.settle(verdict, emit);
        self.unconfirmed.clear();
        self.unconfirmed_bytes = 0;
    }

    /// A read check on this topic: is it the delivery of what the last callback asked about? A publish would have had its
    /// `MESSAGE` before that.
    pub(crate) fn is_being_delivered(&self, topic: &str) -> bool {
        self.checked && self.check.topic == topic
    }

    /// Any other callback.
    pub(crate) fn settle(&mut self, verdict: Verdict<'_>, emit: &mut dyn FnMut(&Will)) {
        if !std::mem::take(&mut self.checked) {
            return;
        }
        if self.gone.contains(self.check.client) {
            emit(&self.check);
            return;
        }
        let bytes = self.check.bytes();
        if self.unconfirmed_bytes + bytes > UNCONFIRMED_BYTES_MAX {
            self.overflowed += 1;
        } else if verdict(&self.check) {
            self.unconfirmed_bytes += bytes;
            self.unconfirmed.push(self.check.clone());
        }
    }

    /// The plugin is cleaned up: the broker has sent the wills of all its clients.
    ///
    /// Returns how many checks could not be kept for want of room.
    pub(crate) fn on_cleanup(&mut self, verdict: Verdict<'_>, emit: &mut dyn FnMut(&Will)) -> u64 {
        self.settle(verdict, emit);
        for will in self.unconfirmed.drain(..) {
            emit(&will);
        }
        self.overflowed
    }
}

#[cfg(test)]
#[path = "wills_tests.rs"]
mod tests;
