//! What has arrived in RocketMQ.

use std::time::Duration;

use anyhow::Result;

use crate::backbone::Backbone;
use crate::child;
use crate::load::Outcome;

/// How long a load may take to arrive.
pub(crate) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(180);
/// RocketMQ's offsets are looked at every so often while messages arrive: seldom enough to cost nothing.
const OFFSET_INTERVAL: Duration = Duration::from_millis(40);

/// Counts what arrives in RocketMQ, by the offsets of the topic.
pub(crate) struct Arrivals<'a> {
    backbone: &'a mut Backbone,
    topic: &'a str,
    expected: u64,
}

impl<'a> Arrivals<'a> {
    pub(crate) fn new(backbone: &'a mut Backbone, topic: &'a str) -> Result<Self> {
        let expected = backbone.offset(topic)?;
        Ok(Arrivals {
            backbone,
            topic,
            expected,
        })
    }

    /// Waits until everything of `outcome` is in RocketMQ.
    pub(crate) fn wait(&mut self, outcome: Outcome, limit: Duration) -> Result<()> {
        self.expected += outcome.messages;
        child::wait_for(
            &format!("{} messages arriving in RocketMQ", outcome.messages),
            limit,
            || {
                let arrived = self.backbone.offset(self.topic)? >= self.expected;
                if !arrived {
                    std::thread::sleep(OFFSET_INTERVAL);
                }
                Ok(arrived.then_some(()))
            },
        )
    }

    /// How many have arrived beyond what was waited for.
    pub(crate) fn so_far(&mut self) -> Result<u64> {
        Ok(self
            .backbone
            .offset(self.topic)?
            .saturating_sub(self.expected))
    }
}
