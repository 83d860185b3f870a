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

use handoff::{Counters, Frame, OpenError, Position, ReadError, Reader, ReaderOptions, Waiter};
use protocol::counters as count;
use protocol::message::{Command, DownlinkFrame, Message};
use protocol::trie::validate_topic;

use crate::cluster::Close;
use crate::inject::{InjectError, Injector};
use crate::ledger;
use crate::limit::Limit;
use crate::pressure::Allowance;
use crate::refusal::{GiveBack, Refusal, give_back};
use crate::unreleased::Unreleased;
use crate::uplink::now_ms;

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
    /// Connections that the sidecar wants closed.
    closes: Vec<Close>,
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
            closes: Vec::new(),
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

    /// Whether the sidecar wants connections closed.
    pub(crate) fn has_closes(&self) -> bool {
        !self.closes.is_empty()
    }

    /// Those connections.
    pub(crate) fn take_closes(&mut self) -> Vec<Close> {
        std::mem::take(&mut self.closes)
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
    /// more bytes). `uplink` takes what can't be.
    pub(crate) fn tick(
        &mut self,
        broker: &impl Injector,
        uplink: &mut impl GiveBack,
        allowed: Allowance,
    ) -> Drained {
        let opened = self.open();
        let stuck = self.stuck_until.is_some_and(|until| Instant::now() < until);
        let Some(reader) = &mut self.reader else {
            return Drained::default();
        };
        if let Some(position) = self.unreleased.due(Instant::now()) {
            reader.release(position);
            ledger::damaged(&self.counters, reader);
        }
        let (before, epoch) = (reader.position(), reader.epoch());
        let mut left = if stuck { 0 } else { allowed.messages };
        let mut bytes_left = allowed.bytes;
        if !stuck {
            self.stuck_until = None;
        }
        // Damage costs up to some milliseconds: one of them a tick, then the devices have their turn.
        let mut costly = false;
        while left > 0 && bytes_left > 0 && !costly {
            match reader.poll() {
                Ok(None) => {
                    if reader.is_stranded() {
                        // The end says that there is more, and the segment is not there: no reason to look all the time.
                        self.stuck_until = Some(Instant::now() + STUCK_PAUSE);
                    }
                    break;
                }
                Ok(Some(frame)) => {
                    let position = frame.position;
                    costly = frame.repaired;
                    bytes_left = bytes_left.saturating_sub(frame.payload.len() as u64);
                    let refused = take(&frame, broker, &mut self.closes, &self.counters);
                    if let Err(refusal) = refused
                        && !refuse(
                            &frame,
                            epoch,
                            &refusal,
                            uplink,
                            &self.counters,
                            &mut self.complaints,
                        )
                    {
                        reader.rewind(position);
                        self.stuck_until = Some(Instant::now() + STUCK_PAUSE);
                        break;
                    }
                }
                Err(ReadError::Corrupt {
                    from, to, reason, ..
                }) => {
                    costly = true;
                    self.counters.add(count::DOWNLINK_CORRUPT, 1);
                    if self.complaints.allows() {
                        log::error!(
                            "the downlink log is damaged from {from} to {to} ({reason}): skipped"
                        );
                    }
                }
                Err(error) => {
                    if self.complaints.allows() {
                        log::error!("the downlink log can't be read: {error}");
                    }
                    self.stuck_until = Some(Instant::now() + STUCK_PAUSE);
                    break;
                }
            }
            left -= 1;
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

/// Injects a message, or notes a command. Every frame ends in exactly one counter: here, or in `refuse`.
fn take(
    frame: &Frame<'_>,
    broker: &impl Injector,
    closes: &mut Vec<Close>,
    counters: &Counters,
) -> Result<(), Refusal> {
    let counter = match DownlinkFrame::decode(frame.payload).map_err(Refusal::Unreadable)? {
        DownlinkFrame::Message(message) => match inject(&message, broker, now_ms()) {
            Ok(()) => count::DOWNLINK_INJECTED,
            Err(InjectError::Expired) => count::DOWNLINK_EXPIRED,
            Err(error) => return Err(Refusal::NotInjected(error)),
        },
        DownlinkFrame::Command(command) => {
            let Command::Close {
                client_id,
                login,
                reason,
                ..
            } = command;
            closes.push(Close {
                client_id: client_id.to_owned(),
                login,
                reason,
            });
            count::DOWNLINK_COMMANDS
        }
    };
    ledger::ended(counters, counter, frame);
    Ok(())
}

/// Gives back what was refused. False when it can't be kept now, and has to be tried again.
fn refuse(
    frame: &Frame<'_>,
    epoch: u64,
    refusal: &Refusal,
    uplink: &mut impl GiveBack,
    counters: &Counters,
    complaints: &mut Limit,
) -> bool {
    let kept = give_back(frame, epoch, refusal, uplink);
    if kept.is_ok() {
        ledger::ended(counters, count::DOWNLINK_FAILED, frame);
    }
    if complaints.allows() {
        let topic = Message::decode(frame.payload).map_or("", |message| message.topic);
        let position = frame.position;
        match &kept {
            Ok(()) => log::warn!(
                "a message for `{topic}` (downlink position {position}) becomes a dead letter: {refusal} (further ones are counted, see `status`)"
            ),
            Err(error) => log::error!(
                "a message for `{topic}` (downlink position {position}) was refused ({refusal}) and can't be given back yet, so those behind it wait: {error}"
            ),
        }
    }
    kept.is_ok()
}

fn inject(message: &Message<'_>, broker: &impl Injector, now_ms: u64) -> Result<(), InjectError> {
    // The broker would take wildcards, and store a retained message under them.
    validate_topic(message.topic).map_err(|_| InjectError::Topic)?;
    let waited_s = now_ms.saturating_sub(message.received_at_ms) / 1000;
    let expiry_s = match message.expiry_s {
        None => None,
        Some(seconds) => match u64::from(seconds).checked_sub(waited_s) {
            None | Some(0) => return Err(InjectError::Expired),
            Some(left) => u32::try_from(left).ok(),
        },
    };
    broker.inject(message, expiry_s)
}

#[cfg(test)]
#[path = "downlink_tests.rs"]
mod tests;
