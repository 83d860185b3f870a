//! Shared subscriptions: what this node gives to a member of its own, and what it passes on to others.

use std::sync::Arc;

use rocketmq::{Consumer, Error, Incoming, Queue};

use super::super::routes::Route;
use super::{RETRY_FIRST, RETRY_MAX, Worker};
use crate::groups::{At, Message, Share, group_id, outgoing, passed_on};
use crate::mapping::downlink::{Outcome, map};
use crate::mapping::{names, unescape};
use crate::metrics::unix_ms;
use crate::retained::refresh::is_refreshed;

impl Worker {
    /// Gives a message of the cluster to the groups here that it is for. False when the sidecar is ending and it has to come again.
    pub(super) fn share_out(
        &mut self,
        incoming: &Incoming,
        route: &Route,
        consumer: &mut dyn Consumer,
    ) -> bool {
        let Some(shared) = self.shared.as_ref().filter(|_| route.is_shared) else {
            return true;
        };
        if is_refreshed(incoming) || self.is_again {
            return true;
        }
        let groups = Arc::clone(&shared.groups);
        let mut properties = incoming.properties.iter();
        let Some((_, topic)) = properties.find(|(name, _)| name == names::TOPIC) else {
            return true;
        };
        let topic = unescape(topic);
        let shares = groups.share_out(&Message {
            topic: &topic,
            at: At {
                queue: &incoming.queue,
                offset: incoming.offset,
                stored_ms: incoming.stored_at_ms,
            },
            passed_on: passed_on(incoming),
            is_read_back: incoming.is_read_back,
        });
        shares.iter().all(|share| match share {
            Share::Give(key) => self.give(incoming, route, key, consumer),
            Share::PassOn(key) => self.pass_on(incoming, &topic, key, consumer),
        })
    }

    fn give(
        &mut self,
        incoming: &Incoming,
        route: &Route,
        key: &str,
        consumer: &mut dyn Consumer,
    ) -> bool {
        let mut mapped = match map(incoming, &route.rule, &self.context_of_any, unix_ms()) {
            Ok(Outcome::Deliver(mapped)) => mapped,
            Ok(Outcome::Own | Outcome::Expired) => return true,
            Err(error) => {
                // It becomes a dead letter where it is delivered to all.
                log::debug!("{}: {error}", incoming.message_id);
                return true;
            }
        };
        mapped.do_not_retain();
        let frame = mapped.for_group(key);
        let mut is_said = false;
        while let Err(error) = self.append_again(frame.len(), |out| out.copy_from_slice(&frame)) {
            if frame.len() > self.writer.frame_len_max() {
                log::error!("a message is too large for the group {key}: {error}");
                return true;
            }
            if !std::mem::replace(&mut is_said, true) {
                log::warn!("a message for the group {key} waits: {error}");
            }
            if self.control.is_stopping() {
                return false;
            }
            self.commit(consumer, false);
        }
        true
    }

    /// Has another node give it, which has members.
    fn pass_on(
        &mut self,
        incoming: &Incoming,
        topic: &str,
        key: &str,
        consumer: &mut dyn Consumer,
    ) -> bool {
        let again = outgoing(incoming, topic, group_id(key), &self.config.node_id);
        let mut pause = RETRY_FIRST;
        loop {
            let sent = self.runtime.block_on(
                self.backbone
                    .send(&incoming.queue, std::slice::from_ref(&again)),
            );
            match sent {
                Ok(()) | Err(Error::Reserved { .. }) => return true,
                Err(error @ Error::Refused { .. }) => {
                    log::error!("a message for the group {key} can't be passed on: {error}");
                    return true;
                }
                Err(error) => log::warn!(
                    "a message for the group {key}, which has no member here any more, waits: {error}"
                ),
            }
            if self.control.is_stopping() {
                return false;
            }
            self.commit(consumer, false);
            self.control.pause(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// What of the cluster's messages is with Mosquitto.
    pub(super) fn note_done(&self, offsets: &[(Queue, i64)]) {
        let Some(shared) = &self.shared else {
            return;
        };
        for (queue, next_offset) in offsets {
            if self.routes.is_shared(&queue.topic) {
                shared.groups.done(queue, *next_offset);
            }
        }
    }
}
