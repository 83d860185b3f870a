//! The thread that reads what the plugin tells (`events/` in the spool), keeps it, and says what is of interest.
//!
//! An event's frame is given back once `cluster.sessions` has it. What is yet to be told to other nodes is not waited for: while
//! RocketMQ is away the events go on, and what is told then is how things stand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handoff::{OpenError, ReadError, Reader, ReaderOptions};
use protocol::message::{Event, What};
use rocketmq::Interest;
use tokio::sync::watch;

use super::journal::{FILE, Journal};
use super::sessions::Sessions;
use crate::groups::{Groups, Since};
use crate::metrics::unix_ms;

/// The folder of the log.
pub(super) const FOLDER: &str = "events";
/// How often a log is looked for that is not there, and what failed is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the thread sleeps while there is nothing: bounds how late a stop is seen.
const NAP: Duration = Duration::from_millis(200);
/// Events taken at once.
const BATCH: usize = 256;
/// How often what is over is given up.
const SWEEP_EVERY_MS: u64 = 1_000;

/// Takes an event for the rest of the cluster's work, and gives the cluster's version of a login.
pub(super) type Listener = Box<dyn FnMut(&Event<'_>) -> u64 + Send>;

/// What the thread counts, and how large it is.
#[derive(Debug, Default)]
pub(super) struct EventCounters {
    pub(super) read: AtomicU64,
    /// Events and stretches of the log that could not be read.
    pub(super) damaged: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) filters: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What is of interest, for whoever reads the shared messages.
#[derive(Debug)]
pub(super) struct Interests {
    sender: watch::Sender<Arc<Interest>>,
    wanted: Mutex<Arc<Interest>>,
    /// This node must not take part.
    is_withheld: AtomicBool,
}

impl Interests {
    pub(super) fn new(interest: Interest) -> Interests {
        let interest = Arc::new(interest);
        Interests {
            sender: watch::channel(Arc::clone(&interest)).0,
            wanted: Mutex::new(interest),
            is_withheld: AtomicBool::new(false),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Interest>> {
        self.sender.subscribe()
    }

    /// How many tags are of interest; nothing: all.
    pub(super) fn tags(&self) -> Option<usize> {
        let told = self.sender.borrow();
        told.all_since_ms.is_none().then(|| told.tags.len())
    }

    pub(super) fn set(&self, interest: Interest) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(interest);
        self.tell();
    }

    /// Nothing is of interest from now on, or again what is wanted.
    pub(super) fn withhold(&self, is_withheld: bool) {
        if self.is_withheld.swap(is_withheld, Relaxed) != is_withheld {
            self.tell();
        }
    }

    fn tell(&self) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let interest = match self.is_withheld.load(Relaxed) {
            true => Arc::default(),
            false => Arc::clone(&wanted),
        };
        self.sender.send_if_modified(|told| {
            let is_other = **told != *interest;
            *told = interest;
            is_other
        });
    }
}

/// The thread's part.
pub(super) struct EventThread {
    pub(super) spool_dir: PathBuf,
    pub(super) journal: Journal,
    pub(super) sessions: Sessions,
    pub(super) interests: Arc<Interests>,
    pub(super) counters: Arc<EventCounters>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) listener: Listener,
    pub(super) groups: Arc<Groups>,
    pub(super) swept_ms: u64,
}

impl EventThread {
    pub(super) fn run(mut self) {
        // What was kept is not news.
        self.sessions.take_group_news();
        for key in self.sessions.group_keys() {
            self.groups.joined(key, Since::default());
        }
        let dir = self.spool_dir.join(FOLDER);
        let mut said = String::new();
        while !self.is_stopping() {
            match Reader::open(&dir, &ReaderOptions::default()) {
                Ok(reader) => {
                    said.clear();
                    self.read(reader);
                }
                // The plugin makes it.
                Err(OpenError::NotThere { .. }) => {}
                Err(error) => {
                    let text = error.to_string();
                    if said != text {
                        log::error!(
                            "what Mosquitto's clients do can't be read: {text}; trying again"
                        );
                        said = text;
                    }
                }
            }
            self.sweep();
            self.pause(LOOK_EVERY);
        }
        if let Err(error) = self.journal.flush(&self.sessions) {
            log::warn!("{FILE} can't be written: {error}");
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    fn pause(&self, time: Duration) {
        let step = Duration::from_millis(50);
        let mut left = time;
        while !self.is_stopping() && !left.is_zero() {
            std::thread::sleep(left.min(step));
            left = left.saturating_sub(step);
        }
    }

    /// Until the sidecar ends, or the log can't be read.
    fn read(&mut self, mut reader: Reader) {
        let waiter = reader.waiter();
        while !self.is_stopping() {
            let mut taken = 0;
            while taken < BATCH {
                match reader.poll() {
                    Ok(Some(frame)) => self.take_frame(frame.payload),
                    Ok(None) => break,
                    Err(error @ ReadError::Corrupt { .. }) => self.lost(&error.to_string()),
                    Err(error) => {
                        log::error!("what Mosquitto's clients do can't be read: {error}");
                        return;
                    }
                }
                taken += 1;
            }
            if taken > 0 && !self.keep() {
                return;
            }
            reader.release(reader.position());
            if taken < BATCH {
                // Not in the midst of what was saved, when that is read late.
                self.sweep();
            }
            self.publish();
            if reader.is_stranded() {
                self.pause(LOOK_EVERY);
            } else if taken == 0 {
                waiter.wait_beyond(reader.position(), NAP);
            }
        }
    }

    /// Keeps what was taken. False when the sidecar ends and it is not: the events come again then.
    fn keep(&mut self) -> bool {
        let mut is_said = false;
        while let Err(error) = self.journal.flush(&self.sessions) {
            if !std::mem::replace(&mut is_said, true) {
                log::error!("{FILE} can't be written, trying again: {error}");
            }
            self.publish();
            self.pause(LOOK_EVERY);
            if self.is_stopping() {
                return false;
            }
        }
        true
    }

    fn take_frame(&mut self, payload: &[u8]) {
        match Event::decode(payload) {
            Ok(event) => self.take(&event),
            Err(error) => self.lost(&format!("an event can't be understood: {error}")),
        }
    }

    fn take(&mut self, event: &Event<'_>) {
        self.counters.read.fetch_add(1, Relaxed);
        if let What::Deaf { why } = event.what {
            log::warn!(
                "cluster: not all subscriptions are known until Mosquitto starts again, so all shared messages are read: {why}"
            );
        }
        let version = (self.listener)(event);
        self.journal.note(event, version);
        self.sessions.apply(event, version);
        self.resume(event);
        for (key, is_there) in self.sessions.take_group_news() {
            match is_there {
                true => self.groups.joined(&key, since(event)),
                false => self.groups.left(&key),
            }
        }
    }

    /// A client that is back from another node has missed what its session here would have got: as if it had subscribed to all of it just now.
    fn resume(&mut self, event: &Event<'_>) {
        let What::Resumed {
            client_id,
            downlink_position,
            uplink_position,
        } = event.what
        else {
            return;
        };
        let Some(session) = self.sessions.get(client_id) else {
            return;
        };
        for filter in self.sessions.filters_of(session) {
            let what = What::Subscribed {
                client_id,
                filter,
                qos: 0,
                downlink_position,
                uplink_position,
            };
            let at_ms = event.at_ms;
            (self.listener)(&Event { at_ms, what });
        }
    }

    /// Something was told and is not known.
    fn lost(&mut self, why: &str) {
        self.counters.damaged.fetch_add(1, Relaxed);
        self.take(&Event {
            at_ms: unix_ms(),
            what: What::Deaf { why },
        });
    }

    fn sweep(&mut self) {
        let now_ms = unix_ms();
        if now_ms.abs_diff(self.swept_ms) < SWEEP_EVERY_MS {
            return;
        }
        self.swept_ms = now_ms;
        let groups = &self.groups;
        self.sessions.let_go(|key| groups.passes_on(key), now_ms);
        self.sessions.sweep(now_ms);
        let (sessions, filters, bytes) = self.sessions.size();
        let counters = &self.counters;
        counters.sessions.store(sessions as u64, Relaxed);
        counters.filters.store(filters as u64, Relaxed);
        counters.bytes.store(bytes as u64, Relaxed);
        self.publish();
    }

    fn publish(&mut self) {
        if self.sessions.wanted.take_change() {
            self.interests.set(self.sessions.wanted.interest());
        }
    }
}

/// When a session has become a member by this event.
fn since(event: &Event<'_>) -> Since {
    match event.what {
        What::Subscribed {
            downlink_position,
            uplink_position,
            ..
        } => Since {
            at_ms: event.at_ms,
            downlink_position,
            uplink_position,
        },
        _ => Since {
            at_ms: event.at_ms,
            ..Since::default()
        },
    }
}
