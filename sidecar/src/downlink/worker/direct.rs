//! Messages for one client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::cluster::addressee;
use rocketmq::{Consumer, Error, Incoming};

use super::super::routes::Route;
use super::{RETRY_FIRST, RETRY_MAX, Worker};
use crate::groups::passed_on;
use crate::inbox::{Inbox, Place};
use crate::mapping::downlink::{Mapped, Outcome, map};
use crate::mapping::{names, unescape};
use crate::metrics::unix_ms;
use crate::retained::refresh::is_refreshed;

/// By then a node that starts knows of the others' clients, or RocketMQ is in trouble.
const KNOWN_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Worker {
    /// Keeps a message for a client that is nowhere. Nothing when there is no need; false when the sidecar is ending and the message has to come again.
    pub(super) fn keep(&mut self, mapped: &Mapped, consumer: &mut dyn Consumer) -> Option<bool> {
        let message = mapped.message();
        let inbox = Arc::clone(self.shared.as_ref()?.inbox.as_ref()?);
        if message.client_id.is_empty() {
            return None;
        }
        let place = self.place(&inbox, message.client_id, consumer);
        if place == Place::Here {
            return None;
        }
        let mut frame = vec![0; message.encoded_len()];
        message.encode_into(&mut frame);
        if place != Place::Nowhere {
            inbox.is_anothers(message.client_id, &frame);
            return (place == Place::Open && self.control.is_stopping()).then_some(false);
        }
        let mut pause = RETRY_FIRST;
        loop {
            let kept = inbox.keep(&*self.backbone, message.client_id, &frame);
            match self.runtime.block_on(kept) {
                Ok(()) => return Some(true),
                Err(error @ Error::Refused { .. }) => {
                    log::error!("a message for {} can't be kept: {error}", message.client_id);
                    return None;
                }
                Err(error) => {
                    log::warn!(
                        "a message for {} is yet to be kept: {error}",
                        message.client_id
                    );
                }
            }
            if self.control.is_stopping() {
                return Some(false);
            }
            self.commit(consumer, false);
            self.control.pause(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Where a client is. A node that has just started waits until it knows, if that doesn't take too long.
    fn place(&mut self, inbox: &Inbox, client: &str, consumer: &mut dyn Consumer) -> Place {
        let until = Instant::now() + KNOWN_WITHIN;
        loop {
            let place = inbox.place(client);
            if place != Place::Open || Instant::now() >= until || self.control.is_stopping() {
                return place;
            }
            self.commit(consumer, false);
            self.control.pause(LOOK_EVERY);
        }
    }

    /// Gives what was published on `p2p/<client id>` to that client, whoever published it, and without a subscription. False when the sidecar is ending.
    pub(super) fn direct(
        &mut self,
        incoming: &Incoming,
        route: &Route,
        consumer: &mut dyn Consumer,
    ) -> bool {
        let is_old = passed_on(incoming).is_some() || is_refreshed(incoming);
        if !route.is_shared || self.shared.is_none() || is_old || self.is_again {
            return true;
        }
        let mut properties = incoming.properties.iter();
        let topic = properties.find(|(name, _)| name == names::TOPIC);
        let topic = topic.map(|(_, topic)| unescape(topic)).unwrap_or_default();
        let Some(client) = addressee(&topic) else {
            return true;
        };
        let Ok(Outcome::Deliver(mapped)) =
            map(incoming, &route.rule, &self.context_of_any, unix_ms())
        else {
            // What can't be mapped becomes a dead letter where it is delivered to all.
            return true;
        };
        let mapped = mapped.for_client(client);
        if let Some(is_kept) = self.keep(&mapped, consumer) {
            return is_kept;
        }
        let message = mapped.message();
        while let Err(error) =
            self.append_again(message.encoded_len(), |out| message.encode_into(out))
        {
            if message.encoded_len() > self.writer.frame_len_max() {
                log::error!("a message for {client} is too large: {error}");
                return true;
            }
            log::debug!("a message for {client} waits: {error}");
            if self.control.is_stopping() {
                return false;
            }
            self.commit(consumer, false);
        }
        true
    }
}
