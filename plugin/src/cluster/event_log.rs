//! The log of events, and what becomes of it when the sidecar does not read it.

use std::path::Path;
use std::time::Duration;

use handoff::{LogOptions, OpenError, SyncPolicy, Writer};
use protocol::message::{Event, What};

use super::groups::Groups;
use crate::uplink::now_ms;

/// Some two thousand events.
const SEGMENT_BYTES: u64 = 256 << 10;
const BYTES_MAX: u64 = 16 << 20;
/// How long an event may wait for the next segment to be made: rare, and far better than telling that something was missed.
const WAIT: Duration = Duration::from_millis(20);
const WHY: &str = "the log of events was full: the sidecar did not read it in time";

/// Where events go.
pub(crate) struct EventLog {
    writer: Writer,
    /// What follows from the events here.
    groups: Groups,
    /// When Mosquitto last saved its sessions.
    saved_at_ms: u64,
    /// Something could not be told: all is told anew as soon as there is room.
    missed: bool,
    /// Clients have to be told anew.
    anew: bool,
}

impl EventLog {
    pub(crate) fn open(
        dir: &Path,
        saved_at_ms: u64,
        groups: Groups,
    ) -> Result<EventLog, OpenError> {
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            bytes_max: BYTES_MAX,
            // What a loss of power takes, the start behind it makes void.
            sync: SyncPolicy::None,
            may_wait: false,
        };
        Ok(EventLog {
            writer: Writer::open(dir, &options)?,
            groups,
            saved_at_ms,
            missed: false,
            anew: false,
        })
    }

    /// The shared subscriptions, by what was told.
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The same, to be changed by what the sidecar says.
    pub(crate) fn groups_mut(&mut self) -> &mut Groups {
        &mut self.groups
    }

    /// Tells of the start. `ran_until_ms`: the last tick of the process before this one; 0: not known.
    pub(crate) fn begin(&mut self, ran_until_ms: u64) {
        let started = What::Started {
            saved_at_ms: self.saved_at_ms,
            ran_until_ms,
        };
        self.tell(now_ms(), started);
    }

    /// Appends an event, if nothing before it is missing.
    pub(crate) fn tell(&mut self, at_ms: u64, what: What<'_>) {
        self.groups.follow(&what);
        if self.settle() && !self.append(at_ms, what) {
            log::error!("{WHY}; clients and subscriptions will be told anew");
            self.missed = true;
        }
    }

    /// The same before Mosquitto serves: it may take a while, but not for ever.
    pub(crate) fn tell_patiently(&mut self, what: What<'_>, patience: Duration) {
        let event = Event {
            at_ms: now_ms(),
            what,
        };
        let len = event.encoded_len();
        if !self.missed && len <= self.writer.frame_len_max() {
            self.writer.wait_for_room(len, patience);
        }
        self.tell(event.at_ms, what);
    }

    /// Whether nothing is missing, by now: what was is made good by telling of a start, after which nobody is there, and that
    /// anything may be subscribed to.
    pub(crate) fn settle(&mut self) -> bool {
        if self.missed {
            let started = What::Started {
                saved_at_ms: self.saved_at_ms,
                // They are all there yet.
                ran_until_ms: 0,
            };
            if self.append(now_ms(), started) {
                self.missed = !self.append(now_ms(), What::Deaf { why: WHY });
                self.anew = true;
            }
        }
        !self.missed
    }

    /// Whether all clients have to be told anew. Asked once.
    pub(crate) fn take_anew(&mut self) -> bool {
        std::mem::take(&mut self.anew)
    }

    fn append(&mut self, at_ms: u64, what: What<'_>) -> bool {
        let event = Event { at_ms, what };
        let len = event.encoded_len();
        let mut append = || {
            self.writer
                .append_with(len, |frame| event.encode_into(frame))
        };
        match append() {
            Ok(_) => return true,
            Err(_) if self.missed => return false,
            Err(_) => {}
        }
        self.writer.wait_for_room(len, WAIT)
            && self
                .writer
                .append_with(len, |frame| event.encode_into(frame))
                .is_ok()
    }
}
