//! What is particular to the cluster's messages: retained ones are judged by their version.

use std::sync::Arc;
use std::time::Instant;

use protocol::message::{Audience, ClientIds, Message, Selected};
use rocketmq::{Consumer, Incoming};

use super::super::routes::Route;
use super::{LAST_RELEASES, SETTLED_EVERY, Worker, written};
use crate::retained::refresh::is_refreshed;
use crate::retained::{Kept, Verdict};

/// What is to be done with a message, as far as it depends on what is retained.
pub(super) enum Judged<'a> {
    /// It is not retained, or not the cluster's.
    NotRetained,
    /// To be delivered and kept, whoever published it.
    Keep(Kept<'a>),
    /// To be delivered and not kept.
    Deliver,
    /// The broker has had it, from a client of its own if true.
    Known(bool),
}

impl Worker {
    pub(super) fn judge<'a>(&self, incoming: &'a Incoming, route: &Route) -> Judged<'a> {
        let shared = self.shared.as_ref().filter(|_| route.is_shared);
        let Some((shared, kept)) = shared.zip(Kept::of(incoming)) else {
            return Judged::NotRetained;
        };
        let is_own = kept.is_of_node(&self.context.node_id);
        match shared.retained.judge(&kept) {
            Verdict::Keep => Judged::Keep(kept),
            Verdict::Known => Judged::Known(is_own),
            // Who subscribes is told of the newest, not of all that there were.
            Verdict::Deliver if incoming.is_read_back || is_refreshed(incoming) => {
                Judged::Known(is_own)
            }
            Verdict::Deliver => Judged::Deliver,
        }
    }

    /// The message of the cluster stands at this position of the log.
    pub(super) fn note_shared(&self, incoming: &Incoming, route: &Route, position: u64) {
        if let Some(shared) = self.shared.as_ref().filter(|_| route.is_shared) {
            let (queue, offset) = (&incoming.queue, incoming.offset);
            shared.handed.note(queue, offset, position);
        }
    }

    /// The message stands at this position of the log, or did not come to stand there.
    pub(super) fn settle(&self, judged: &Judged<'_>, position: Option<u64>) {
        if let (Some(shared), Judged::Keep(kept)) = (&self.shared, judged) {
            match position {
                Some(position) => shared.retained.handed_over(kept, position),
                None => shared.retained.not_handed_over(kept),
            }
        }
    }

    /// What was retained last on a topic has expired: has the broker retain nothing there. False when the sidecar is ending and the message has to come again.
    pub(super) fn clear(
        &mut self,
        topic: &str,
        judged: &Judged<'_>,
        consumer: &mut dyn Consumer,
    ) -> bool {
        let selected = Selected {
            audience: Audience::Clients(ClientIds::NOBODY),
            message: Message {
                topic,
                retain: true,
                ..Message::default()
            },
        };
        let len = selected.encoded_len();
        loop {
            match self.append_beside(len, |out| selected.encode_into(out)) {
                Ok(position) => {
                    self.settle(judged, Some(position));
                    return true;
                }
                Err(error) => log::debug!("a retained message that has expired waits: {error}"),
            }
            if self.control.is_stopping() {
                self.settle(judged, None);
                return false;
            }
            self.commit(consumer, false);
        }
    }

    /// Keeps up to when everything of interest is in the log, and tells up to when it was judged. To be called when all that was polled is handed over.
    pub(super) fn note_settled(&mut self, consumer: &dyn Consumer) {
        let is_due = self
            .last_settled
            .is_none_or(|last| last.elapsed() >= SETTLED_EVERY);
        if self.shared.is_none() || !is_due || self.control.is_stopping() {
            return;
        }
        self.last_settled = Some(Instant::now());
        if let Some(shared) = &self.shared {
            let interest = Arc::clone(&shared.interest.borrow());
            let followed = self.settled.follow(&interest, consumer.settled_ms());
            written("downlink.settled", followed);
            let topic = self.routes.shared_topic();
            if let Some(ms) = topic.and_then(|topic| consumer.read_until_ms(topic)) {
                shared.groups.judged_until(ms);
            }
        }
    }

    /// Injects once more what a device published last on a retained topic, and the broker does not keep.
    pub(super) fn correct(&mut self) {
        let Some(shared) = self.shared.clone() else {
            return;
        };
        for frame in shared.retained.take_corrections() {
            let until = Instant::now() + LAST_RELEASES;
            loop {
                match self.append_again(frame.len(), |out| out.copy_from_slice(&frame)) {
                    Ok(()) => break,
                    Err(error) if self.control.is_stopping() && Instant::now() > until => {
                        log::warn!("a retained message is not the newest on this node: {error}");
                        break;
                    }
                    // As long as the log is full, nothing else can be appended either.
                    Err(error) => log::debug!("a retained message waits: {error}"),
                }
            }
        }
    }
}
