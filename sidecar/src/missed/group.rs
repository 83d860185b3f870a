//! What shared subscriptions are to get that was read before this node had to give it.

use protocol::cluster::{Buckets, RETAINED_TAG, buckets_of_filter};
use rocketmq::Incoming;

use super::job::Facts;
use super::reader::{BATCH, PAUSE, POLL, Reader, State};
use crate::downlink::Again;
use crate::groups::{At, Message, Reread, passed_on};
use crate::mapping::downlink::{Outcome, map};
use crate::metrics::unix_ms;

/// So much earlier is read: the times of messages are those of RocketMQ's brokers, and this one is ours.
const CLOCKS_APART_MS: i64 = 2_000;

impl Reader {
    /// All at once: as when a node is gone.
    pub(super) async fn serve_groups(&self, rereads: &[Reread]) {
        let Some(since_ms) = rereads.iter().map(|reread| reread.since_ms).min() else {
            return;
        };
        let mut state = State::default();
        while let Err(error) = self.read_for_groups(rereads, since_ms, &mut state).await {
            log::warn!("what shared subscriptions are to get can't be read, trying again: {error}");
            tokio::time::sleep(PAUSE).await;
        }
        if state.given > 0 {
            let (given, groups) = (state.given, rereads.len());
            log::info!(
                "{given} messages were given to {groups} shared subscriptions that other nodes had not given"
            );
        }
    }

    async fn read_for_groups(
        &self,
        rereads: &[Reread],
        since_ms: i64,
        state: &mut State,
    ) -> Result<(), rocketmq::Error> {
        let mut buckets = Buckets::Some([RETAINED_TAG.to_owned()].into());
        for reread in rereads {
            let filter = reread.key.split_once('/').map_or("", |(_, filter)| filter);
            buckets.extend(&buckets_of_filter(filter));
        }
        let since_ms = u64::try_from(since_ms.saturating_sub(CLOCKS_APART_MS)).unwrap_or(0);
        let mut consumer = self.consumer(buckets, since_ms).await?;
        let outcome = loop {
            match consumer.poll(BATCH, POLL).await {
                Ok(batch) if batch.is_empty() && consumer.settled_ms().is_some() => break Ok(()),
                Ok(batch) => {
                    for message in batch.iter().filter(|message| message.is_read_back) {
                        self.give_to_groups(rereads, message, state).await;
                    }
                }
                Err(error) => break Err(error),
            }
        };
        consumer.close().await;
        outcome
    }

    async fn give_to_groups(&self, rereads: &[Reread], incoming: &Incoming, state: &mut State) {
        let Some(facts) = Facts::of_any(incoming).filter(|_| incoming.problem.is_none()) else {
            return;
        };
        let message = Message {
            topic: &facts.topic,
            at: At {
                queue: &incoming.queue,
                offset: incoming.offset,
                stored_ms: incoming.stored_at_ms,
            },
            passed_on: passed_on(incoming),
            is_read_back: true,
        };
        let handed = self.handed.position(&incoming.queue, incoming.offset);
        let own = facts.position_at(&self.node_id);
        for reread in rereads {
            if !self.groups.is_due(reread, &message, handed, own)
                || !state.is_new(&format!("{}{}", incoming.message_id, reread.key))
            {
                continue;
            }
            let mut mapped = match map(incoming, &self.rule, &self.context, unix_ms()) {
                Ok(Outcome::Deliver(mapped)) => mapped,
                Ok(Outcome::Own | Outcome::Expired) => return,
                Err(error) => {
                    log::debug!("{}: {error}", incoming.message_id);
                    return;
                }
            };
            mapped.do_not_retain();
            let frame = mapped.for_group(&reread.key);
            if self.hand_over(|| Again::Frame(frame.clone())).await {
                state.given += 1;
            }
        }
    }
}
