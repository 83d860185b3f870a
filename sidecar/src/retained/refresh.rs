//! Retained messages outlive RocketMQ's retention: a node that joins later has to find them there. So the lowest living node stores those once more that have not been
//! stored for a while, as they were. Nodes that have one know it by its version; to subscribers it says nothing new.

use std::sync::Arc;
use std::time::Duration;

use protocol::cluster::RETAINED_TAG;
use protocol::config::Config;
use rocketmq::{
    Backbone, Error, Incoming, Interest, Outgoing, Properties, Select, StartAt, Subscription,
};
use tokio::sync::watch;

use super::{Kept, Retained};
use crate::inbox::Places;
use crate::mapping::names;
use crate::metrics::unix_ms;

const BATCH: usize = 256;
const POLL: Duration = Duration::from_millis(200);
/// So much of the time between two storings is looked back at: what was not stored for longer is gone, or will be.
const LOOK_BACK: u32 = 3;
/// How often it is looked in that time.
const LOOKS: u32 = 4;

/// Starts the task. It ends with the runtime. Nothing for a node that shares nothing, or is not to.
pub(crate) fn start(
    config: &Config,
    backbone: Arc<dyn Backbone>,
    retained: Arc<Retained>,
    places: Arc<dyn Places>,
) {
    let every = config.cluster_retained_refresh;
    let Some(topics) = config.cluster_topics().filter(|_| !config.share.is_empty()) else {
        return;
    };
    if every.is_zero() {
        return;
    }
    let refresher = Refresher {
        topic: topics.messages,
        group: format!("{}_RETAINED", config.group),
        every,
        backbone,
        retained,
    };
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every / LOOKS).await;
            if places.is_lowest()
                && let Err(error) = refresher.look().await
            {
                log::debug!("retained messages are yet to be stored once more: {error}");
            }
        }
    });
}

struct Refresher {
    topic: String,
    group: String,
    every: Duration,
    backbone: Arc<dyn Backbone>,
    retained: Arc<Retained>,
}

impl Refresher {
    async fn look(&self) -> Result<(), Error> {
        let ago = |time: Duration| {
            let now_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
            now_ms.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
        };
        let interest = Interest {
            tags: [(RETAINED_TAG.to_owned(), ago(self.every * LOOK_BACK))].into(),
            ..Interest::default()
        };
        let (_, interest) = watch::channel(Arc::new(interest));
        let subscription = Subscription {
            topic: self.topic.clone(),
            select: Select::Interest(interest),
        };
        let mut consumer = self
            .backbone
            .subscribe(&self.group, vec![subscription], StartAt::Present)
            .await?;
        let before_ms = ago(self.every);
        let mut count = 0;
        let outcome = 'all: loop {
            match consumer.poll(BATCH, POLL).await {
                Ok(batch) if batch.is_empty() && consumer.settled_ms().is_some() => break Ok(()),
                Ok(batch) => {
                    for incoming in batch.iter().filter(|incoming| incoming.is_read_back) {
                        match self.refresh(incoming, before_ms).await {
                            Ok(is_stored) => count += u64::from(is_stored),
                            Err(error) => break 'all Err(error),
                        }
                    }
                }
                Err(error) => break Err(error),
            }
        };
        consumer.close().await;
        if count > 0 {
            log::info!(
                "{count} retained messages were stored once more, before RocketMQ forgets them"
            );
        }
        outcome
    }

    async fn refresh(&self, incoming: &Incoming, before_ms: i64) -> Result<bool, Error> {
        let Some(kept) = Kept::of(incoming) else {
            return Ok(false);
        };
        let before_ms = u64::try_from(before_ms).unwrap_or(0);
        if !self.retained.is_stored_before(&kept, before_ms) {
            return Ok(false);
        }
        match self
            .backbone
            .send(&incoming.queue, &[again(incoming)])
            .await
        {
            Ok(()) | Err(Error::Reserved { .. }) => {}
            Err(error) => return Err(error),
        }
        self.retained.was_stored(&kept, unix_ms());
        Ok(true)
    }
}

/// The same message with a mark, and without its place among its device's.
fn again(incoming: &Incoming) -> Outgoing {
    let mut properties = Properties::default();
    for (name, value) in &incoming.properties {
        if ![names::LANE, names::REFRESHED].contains(&name.as_str()) {
            properties.push(name, value);
        }
    }
    properties.push(names::REFRESHED, "1");
    Outgoing {
        body: incoming.body.clone(),
        tag: incoming.tag.clone(),
        keys: incoming.keys.clone(),
        properties,
    }
}

/// Whether a message was stored once more by a node, and says nothing new.
pub(crate) fn is_refreshed(incoming: &Incoming) -> bool {
    incoming
        .properties
        .iter()
        .any(|(name, _)| name == names::REFRESHED)
}
