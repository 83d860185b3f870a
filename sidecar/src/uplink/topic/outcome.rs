//! What becomes of a batch: stored, to be sent again, or dead.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rocketmq::Error;

use super::{Grave, Job, LOOK_PAUSE_FAILING, Topic};
use crate::dead_letter::Letter;
use crate::metrics::Ending;
use crate::uplink::lane::{Batch, Note};
use crate::uplink::layout::unstamp;
use crate::uplink::reservations::Verdict;

/// RocketMQ's code for a topic that we may not write to: then none of a batch's messages is to blame.
const NO_PERMISSION: i32 = 16;

impl Topic {
    pub(super) fn stored(&mut self, index: usize, batch: &Batch) {
        self.missing_since = None;
        if self.shared.metrics.sending.up() {
            log::info!("RocketMQ takes messages");
        }
        self.lanes[index].done();
        self.complete(&batch.notes, |note| Ending::Sent {
            rule: Arc::clone(&note.rule.counters),
            bytes: note.payload_bytes,
        });
    }

    /// The master has the batch, its disk or its slave has not.
    pub(super) fn stored_with_reservations(
        &mut self,
        index: usize,
        batch: Batch,
        reason: &str,
        now: Instant,
    ) {
        let broker = &self.lanes[index].queue.broker;
        match self.shared.reservations.judge(broker, now) {
            Verdict::Again { is_first } => {
                if is_first {
                    log::warn!(
                        "broker {broker} has stored messages, but {reason}: sending them again"
                    );
                }
                self.note_down(&Error::Reserved {
                    reason: reason.to_owned(),
                });
                if let Some(note) = batch.notes.first() {
                    note.rule.counters.retries.fetch_add(1, Relaxed);
                }
                self.lanes[index].reserved(batch, now);
            }
            Verdict::Accept { is_first } => {
                if is_first {
                    log::warn!(
                        "broker {broker}: {reason}, and that has not changed: its messages count as stored from now on"
                    );
                }
                for note in &batch.notes {
                    note.rule.counters.reserved.fetch_add(1, Relaxed);
                }
                self.stored(index, &batch);
            }
        }
    }

    pub(super) fn complete(&mut self, notes: &[Note], ending: impl Fn(&Note) -> Ending) {
        let ended = notes.iter().map(|note| (note.ticket, ending(note)));
        self.shared.window.complete(ended);
        self.outstanding.fetch_sub(notes.len() as u64, Relaxed);
    }

    /// Nothing can be assigned to a lane yet.
    pub(super) fn is_unreachable(&mut self, error: &Error, now: Instant) {
        if !matches!(error, Error::TopicMissing { .. } | Error::Refused { .. }) {
            self.missing_since = None;
            self.note_down(error);
        } else if self.is_missing_for_good(error, now) && !self.is_burying_unassigned {
            let items = std::mem::take(&mut self.unassigned);
            if !items.is_empty() {
                self.bury(Grave::Unassigned, Batch::from_items(items), error);
            }
        }
    }

    /// True when RocketMQ has said for long enough that the topic is not there.
    fn is_missing_for_good(&mut self, error: &Error, now: Instant) -> bool {
        let patience = self.shared.topic_missing_timeout;
        let since = *self.missing_since.get_or_insert_with(|| {
            log::warn!("{error}; its messages become dead letters if that does not change within {patience:?}");
            now
        });
        now.duration_since(since) >= patience
    }

    pub(super) fn not_sent(&mut self, index: usize, batch: Batch, error: &Error, now: Instant) {
        match error {
            Error::Refused { code, .. } if *code != NO_PERMISSION && batch.messages.len() > 1 => {
                self.lanes[index].split(batch);
                return;
            }
            Error::Refused { .. } => {
                self.bury(Grave::Lane(index), batch, error);
                return;
            }
            Error::TopicMissing { .. } => {
                if self.is_missing_for_good(error, now) {
                    self.bury(Grave::Lane(index), batch, error);
                    return;
                }
            }
            Error::Unavailable { .. }
            | Error::Busy { .. }
            | Error::Reserved { .. }
            | Error::Timeout => {
                if matches!(error, Error::Unavailable { .. } | Error::Timeout) {
                    let broker = &self.lanes[index].queue.broker;
                    self.shared.reservations.silent(broker);
                }
                self.missing_since = None;
                self.note_down(error);
                self.look_at = self.look_at.min(now + LOOK_PAUSE_FAILING);
            }
        }
        if let Some(note) = batch.notes.first() {
            note.rule.counters.retries.fetch_add(1, Relaxed);
        }
        self.lanes[index].failed(batch, now);
    }

    fn note_down(&self, error: &Error) {
        if self.shared.metrics.sending.down(&error.to_string()) {
            log::warn!("messages wait: {error}");
        }
    }

    fn bury(&mut self, grave: Grave, batch: Batch, error: &Error) {
        self.is_burying_unassigned |= matches!(grave, Grave::Unassigned);
        let (dead, name, reason) = (
            self.shared.dead.clone(),
            Arc::clone(&self.name),
            error.to_string(),
        );
        self.jobs.spawn_blocking(move || {
            let messages = batch.messages.iter().zip(&batch.notes);
            let mut letters: Vec<_> = messages
                .map(|(message, note)| {
                    let mut message = message.clone();
                    unstamp(&mut message);
                    Letter::refused(&name, &message, &note.rule.rule.text, &reason)
                })
                .collect();
            let outcome = dead.append(&mut letters);
            Job::Buried(grave, batch, outcome)
        });
    }

    pub(super) fn unassigned_buried(&mut self) {
        self.is_burying_unassigned = false;
        if !self.lanes.is_empty() && self.next_queues.is_none() {
            self.reassign();
        }
    }
}
