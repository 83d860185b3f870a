//! Messages on their way down: out of the log and into the broker, on Mosquitto's thread, a bounded number a tick.
//!
//! `mosquitto_broker_publish` only queues; the broker hands the queue out at the start of its next pass, so before the
//! next tick. What one tick injected is therefore given back to the sidecar in the *next* one, or after
//! `downlink_release_delay`: a broker killed in between gets it again, and nothing is lost.
//!
//! What can't be injected goes back to the sidecar over the uplink log before its frame is given back: see `refusal`.
//! While there is no room for it, everything behind it waits.
//!
//! Nothing is injected before the listeners are up and the persistent sessions are loaded: ticks begin after both.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use handoff::{Counters, OpenError, Position, ReadError, Reader, ReaderOptions, Waiter};
use protocol::counters as count;

use crate::inject::Injector;
use crate::ledger;
use crate::limit::Limit;
use crate::pressure::Allowance;
use crate::refusal::GiveBack;
use crate::selecting::Selecting;
use crate::unreleased::Unreleased;

mod taking;

pub(crate) use taking::{Commands, Members};
use taking::{Taken, Taking};

/// How often to look for the log while the sidecar has not made it yet.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How soon to try again with a message that could neither be injected nor given back.
const STUCK_PAUSE: Duration = Duration::from_millis(100);

/// Whether the log that is there, if any, is one of another version: nothing that ticks could change would make that good.
pub(crate) fn check_version(dir: &Path) -> Result<(), OpenError> {
    match Reader::open(dir, &ReaderOptions::guarded()) {
        Err(error @ OpenError::Version { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// The way down.
pub(crate) struct Downlink {
    dir: PathBuf,
    counters: Rc<Counters>,
    reader: Option<Reader>,
    next_look: Option<Instant>,
    open_failure: Option<String>,
    complaints: Limit,
    unreleased: Unreleased,
    /// What some subscribers alone are to get.
    pub(crate) selecting: Selecting,
    /// Whether that can be had here.
    selects: bool,
    pub(crate) commands: Commands,
    /// The next message could neither be injected nor given back: not again before then.
    stuck_until: Option<Instant>,
}

/// What a tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drained {
    /// The broker has something to hand out, or something has to be given back: the loop should turn once more.
    pub(crate) again: bool,
    /// The log was opened just now.
    pub(crate) opened: bool,
}

impl Downlink {
    /// Of the log in `dir`; what was injected is given back after `release_delay`, and not before the next tick.
    pub(crate) fn new(dir: PathBuf, release_delay: Duration, counters: Rc<Counters>) -> Downlink {
        Downlink {
            dir,
            counters,
            reader: None,
            next_look: None,
            open_failure: None,
            complaints: Limit::default(),
            unreleased: Unreleased::new(release_delay),
            selecting: Selecting::new(),
            selects: false,
            commands: Commands::default(),
            stuck_until: None,
        }
    }

    /// For the thread that waits for news.
    pub(crate) fn waiter(&self) -> Option<Waiter> {
        self.reader.as_ref().map(Reader::waiter)
    }

    /// Everything before it was injected. 0 until the log was found.
    pub(crate) fn position(&self) -> Position {
        self.reader.as_ref().map_or(0, Reader::position)
    }

    /// Whether a message can be kept from those whom it is not for.
    pub(crate) fn set_selects(&mut self, selects: bool) {
        self.selects = selects;
    }

    /// Whether the log has more that can be looked at now.
    pub(crate) fn has_more(&self) -> bool {
        self.stuck_until.is_none()
            && self
                .reader
                .as_ref()
                .is_some_and(|reader| reader.end() > reader.position())
    }

    /// One tick: gives back what earlier ones injected, then injects as much as is allowed (the last message may have
    /// more bytes). `uplink` takes what can't be. `members` finds those of shared subscriptions, in a cluster.
    pub(crate) fn tick(
        &mut self,
        broker: &impl Injector,
        uplink: &mut impl GiveBack,
        allowed: Allowance,
        members: Option<&mut (dyn Members + '_)>,
    ) -> Drained {
        let opened = self.open();
        let stuck = self.stuck_until.is_some_and(|until| Instant::now() < until);
        self.selecting.begin_tick();
        let Some(reader) = &mut self.reader else {
            return Drained::default();
        };
        if let Some(position) = self.unreleased.due(Instant::now()) {
            reader.release(position);
            ledger::damaged(&self.counters, reader);
        }
        let before = reader.position();
        if !stuck {
            let mut taking = Taking {
                epoch: reader.epoch(),
                selecting: &mut self.selecting,
                selects: self.selects,
                members,
                commands: &mut self.commands,
                counters: &self.counters,
                complaints: &mut self.complaints,
            };
            let is_stuck = drain(reader, &mut taking, broker, uplink, allowed);
            self.stuck_until = is_stuck.then(|| Instant::now() + STUCK_PAUSE);
        }
        let position = reader.position();
        if position > before {
            self.unreleased.injected(position, Instant::now());
        }
        Drained {
            again: position > before,
            opened,
        }
    }

    /// Mosquitto ends in order, and has saved its sessions: gives back what it has had time to hand out.
    pub(crate) fn stop(&mut self) {
        if let (Some(reader), Some(position)) = (&mut self.reader, self.unreleased.due_at_end()) {
            reader.release(position);
            ledger::damaged(&self.counters, reader);
        }
    }

    fn open(&mut self) -> bool {
        let now = Instant::now();
        if self.reader.is_some() || self.next_look.is_some_and(|at| now < at) {
            return false;
        }
        self.next_look = Some(now + LOOK_EVERY);
        match Reader::open(&self.dir, &ReaderOptions::guarded()) {
            Ok(reader) => {
                ledger::begin_downlink(&self.counters, &reader);
                self.reader = Some(reader);
                self.open_failure = None;
                true
            }
            Err(OpenError::NotThere { .. }) => false,
            Err(error) => {
                let text = error.to_string();
                if self.open_failure.as_ref() != Some(&text) {
                    log::error!("nothing can come from RocketMQ: {text}");
                    self.open_failure = Some(text);
                }
                false
            }
        }
    }
}

/// Takes what the log has, as much as is allowed. True when there is no use in looking again at once.
fn drain(
    reader: &mut Reader,
    taking: &mut Taking<'_, '_>,
    broker: &impl Injector,
    uplink: &mut impl GiveBack,
    allowed: Allowance,
) -> bool {
    let (mut left, mut bytes_left) = (allowed.messages, allowed.bytes);
    // Damage costs up to some milliseconds: one of them a tick, then the devices have their turn.
    let mut costly = false;
    while left > 0 && bytes_left > 0 && !costly {
        match reader.poll() {
            // Stranded: the end says that there is more, and the segment is not there.
            Ok(None) => return reader.is_stranded(),
            Ok(Some(frame)) => {
                let position = frame.position;
                costly = frame.repaired;
                bytes_left = bytes_left.saturating_sub(frame.payload.len() as u64);
                let taken = taking.take(&frame, broker, uplink);
                if taken != Taken::Done {
                    reader.rewind(position);
                    return taken == Taken::Stuck;
                }
            }
            Err(ReadError::Corrupt {
                from, to, reason, ..
            }) => {
                costly = true;
                taking.counters.add(count::DOWNLINK_CORRUPT, 1);
                if taking.complaints.allows() {
                    log::error!(
                        "the downlink log is damaged from {from} to {to} ({reason}): skipped"
                    );
                }
            }
            Err(error) => {
                if taking.complaints.allows() {
                    log::error!("the downlink log can't be read: {error}");
                }
                return true;
            }
        }
        left -= 1;
    }
    false
}

#[cfg(test)]
#[path = "downlink_tests.rs"]
mod tests;
