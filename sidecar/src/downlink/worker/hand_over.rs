//! From RocketMQ into the log: what becomes of each message.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use handoff::{AppendError, Position};
use rocketmq::{Consumer, Incoming, Queue};

use super::super::routes::Route;
use super::super::seen::Place;
use super::shared::Judged;
use super::{POLL, Worker, written};
use crate::groups::passed_on;
use crate::mapping::downlink::{Mapped, Outcome, map};
use crate::metrics::unix_ms;

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Append {
    /// It begins here.
    Done(Position),
    /// It can never fit.
    TooLarge(String),
    /// The sidecar is ending; the frame is not in the log.
    Stopped,
}

impl Worker {
    pub(super) fn hand_over(&mut self, batch: &[Incoming], consumer: &mut dyn Consumer) {
        let mut next: BTreeMap<&Queue, i64> = BTreeMap::new();
        for incoming in batch {
            if incoming.is_read_back {
                // What is known of its queue is of further on.
                if !self.hand_over_one(incoming, consumer) {
                    break;
                }
                continue;
            }
            if self
                .table
                .contains(&incoming.queue, incoming.offset, incoming.stored_at_ms)
            {
                self.metrics.downlink_repeated.fetch_add(1, Relaxed);
                if let Some(place) = Place::of(incoming) {
                    self.seen.note_older(&place);
                }
            } else if !self.hand_over_one(incoming, consumer) {
                break;
            }
            next.insert(&incoming.queue, incoming.offset + 1);
        }
        // Behind the frames, else a message would be lost when we die in between; and before any offset can be committed.
        written("downlink.seen", self.seen.flush());
        for (queue, offset) in next {
            self.in_flight.push(queue, offset, self.writer.end());
        }
    }

    /// False when the sidecar is ending and the message has to come again.
    fn hand_over_one(&mut self, incoming: &Incoming, consumer: &mut dyn Consumer) -> bool {
        if let Some(problem) = &incoming.problem {
            self.bury_undelivered(incoming, problem);
            return true;
        }
        let place = Place::of(incoming);
        let is_duplicate = place
            .as_ref()
            .is_some_and(|place| match incoming.is_read_back {
                true => self.seen.is_repeated_in_read_back(place),
                false => self.seen.contains(place),
            });
        for route in self.routes.matching(incoming) {
            route.counters.received.fetch_add(1, Relaxed);
            if is_duplicate {
                count(&route.counters.duplicates);
            } else if !self.share_out(incoming, &route, consumer) {
                // It comes again.
                route.counters.received.fetch_sub(1, Relaxed);
                return false;
            } else if !self.direct(incoming, &route, consumer) {
                route.counters.received.fetch_sub(1, Relaxed);
                return false;
            } else if route.is_shared && passed_on(incoming).is_some() {
                // All others have had it.
                count(&route.counters.duplicates);
            } else if !self.deliver(incoming, &route, consumer) {
                // It comes again.
                route.counters.received.fetch_sub(1, Relaxed);
                return false;
            }
            self.metrics
                .settle_downlink(&route.counters, self.writer.frames());
        }
        self.record(incoming);
        if let Some(place) = place.filter(|_| !is_duplicate) {
            match incoming.is_read_back {
                true => self.seen.note_older(&place),
                false => self.seen.note(&place),
            }
        }
        true
    }

    /// What a rule makes of a message, counted. False when the sidecar is ending.
    fn deliver(&mut self, incoming: &Incoming, route: &Route, consumer: &mut dyn Consumer) -> bool {
        let judged = self.judge(incoming, route);
        let context = match judged {
            Judged::Known(is_own) => {
                count(match is_own {
                    true => &route.counters.own,
                    false => &route.counters.duplicates,
                });
                return true;
            }
            Judged::Keep(_) => &self.context_of_any,
            Judged::Deliver | Judged::NotRetained => &self.context,
        };
        match map(incoming, &route.rule, context, unix_ms()) {
            Ok(Outcome::Own) => count(&route.counters.own),
            Ok(Outcome::Expired) => {
                count(&route.counters.expired);
                if let Judged::Keep(kept) = &judged {
                    return self.clear(kept.topic(), &judged, consumer);
                }
            }
            Ok(Outcome::Deliver(mut mapped)) => {
                if matches!(judged, Judged::Deliver) {
                    mapped.do_not_retain();
                }
                warn(route, &mapped, incoming);
                let bytes = mapped.message().payload.len() as u64;
                if let Some(is_kept) = self.keep(&mapped, consumer) {
                    if is_kept {
                        count(&route.counters.handed_over);
                        route.counters.bytes.fetch_add(bytes, Relaxed);
                    }
                    return is_kept;
                }
                self.metrics.appending(&route.counters, bytes);
                match self.append(&mapped, consumer) {
                    Append::Done(position) => {
                        count(&route.counters.handed_over);
                        route.counters.bytes.fetch_add(bytes, Relaxed);
                        self.settle(&judged, Some(position));
                        self.note_shared(incoming, route, position);
                        return true;
                    }
                    Append::TooLarge(reason) => self.bury(incoming, route, &reason),
                    Append::Stopped => {
                        self.settle(&judged, None);
                        return false;
                    }
                }
            }
            Err(error) => self.bury(incoming, route, &error.to_string()),
        }
        self.settle(&judged, None);
        true
    }

    fn record(&mut self, incoming: &Incoming) {
        if incoming.is_read_back {
            return;
        }
        let recorded = self
            .table
            .record(&incoming.queue, incoming.offset, incoming.stored_at_ms);
        written("downlink.offsets", recorded);
    }

    /// A message that could not be decoded: one dead letter for each rule that wants it. When not even its tag can be known, for
    /// the topic's first rule.
    fn bury_undelivered(&mut self, incoming: &Incoming, problem: &str) {
        let mut routes = self.routes.matching(incoming);
        if routes.is_empty() && incoming.tag.is_none() {
            routes.extend(self.routes.first_of(&incoming.queue.topic));
        }
        for route in routes {
            route.counters.received.fetch_add(1, Relaxed);
            self.bury(incoming, &route, problem);
            self.metrics
                .settle_downlink(&route.counters, self.writer.frames());
        }
        self.record(incoming);
    }

    fn bury(&mut self, incoming: &Incoming, route: &Route, reason: &str) {
        count(&route.counters.dead);
        (self.dead)(incoming, &route.rule.text, reason);
    }

    fn append(&mut self, mapped: &Mapped, consumer: &mut dyn Consumer) -> Append {
        let message = mapped.message();
        let len = message.encoded_len();
        let mut is_said = false;
        loop {
            match self
                .writer
                .append_with(len, |frame| message.encode_into(frame))
            {
                Ok(position) => return Append::Done(position),
                Err(AppendError::NotSynced { position, source }) => {
                    // Once more would be twice.
                    self.unsynced += 1;
                    if self.unsynced.is_power_of_two() {
                        let count = self.unsynced;
                        log::error!(
                            "downlink log: a loss of power could take a message ({count} so far): it can't be synced: {source}"
                        );
                    }
                    return Append::Done(position);
                }
                Err(AppendError::TooLarge { len, max }) => {
                    return Append::TooLarge(format!(
                        "{len} bytes do not fit into the downlink log: at most {max} do"
                    ));
                }
                Err(AppendError::Full) => {
                    self.writer.wait_for_room(len, POLL);
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_said, true) {
                        log::error!(
                            "downlink log: {error}; trying again every {POLL:?}, and reading nothing meanwhile"
                        );
                    }
                    std::thread::sleep(POLL);
                }
            }
            if self.control.is_stopping() {
                return Append::Stopped;
            }
            self.commit(consumer, false);
        }
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts the warnings and says the first, the second, the fourth …: a wrong producer must not fill the log.
pub(super) fn warn(route: &Route, mapped: &Mapped, incoming: &Incoming) {
    for warning in &mapped.warnings {
        let seen = route.counters.warnings.fetch_add(1, Relaxed) + 1;
        if seen.is_power_of_two() {
            log::warn!(
                "downlink rule {:?}: message {}: {warning} ({seen} such so far)",
                route.rule.text,
                incoming.message_id
            );
        }
    }
}
