//! Messages for shared subscriptions that no member here took, on their way to other nodes.

use std::sync::Arc;
use std::time::Duration;

use protocol::message::{Audience, DownlinkFrame, Identity, Selected};
use protocol::rules::UplinkRule;
use rocketmq::{Error, Outgoing};

use super::layout::hash;
use super::topic;
use crate::groups::{group_id, mark};
use crate::mapping;
use crate::mapping::uplink::Values;
use crate::metrics::Ending;

const RETRY: Duration = Duration::from_millis(500);

/// The message of a frame that was for a group, as it goes to RocketMQ for that group alone, with the hash that chooses its queue. Nothing for any other
/// frame.
pub(super) fn message(
    frame: &[u8],
    rule: &UplinkRule,
    layout: protocol::config::Layout,
    identity: &Identity<'_>,
) -> Option<(Outgoing, u64)> {
    let Ok(DownlinkFrame::Selected(Selected {
        audience: Audience::Group(key),
        message,
    })) = DownlinkFrame::decode(frame)
    else {
        return None;
    };
    let values = Values(&message);
    let mapped = mapping::uplink::map(&values, rule, layout, identity).ok()?;
    let mut outgoing = mapped.message;
    mark(&mut outgoing.properties, group_id(key), identity.node);
    Some((outgoing, hash(message.topic)))
}

/// Sends it until RocketMQ has it. `ticket`: of its frame, which is done with then.
pub(super) async fn send(shared: Arc<topic::Shared>, outgoing: Outgoing, place: u64, ticket: u64) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let mut is_said = false;
    loop {
        match try_send(&shared, &cluster.topic, &outgoing, place).await {
            Ok(()) | Err(Error::Reserved { .. }) => break,
            Err(error @ Error::Refused { .. }) => {
                log::error!("a message for a group can't be passed on to other nodes: {error}");
                break;
            }
            Err(error) => {
                if !std::mem::replace(&mut is_said, true) {
                    log::warn!("a message for a group that no member here took waits: {error}");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    shared.window.complete([(ticket, Ending::Returned)]);
}

async fn try_send(
    shared: &topic::Shared,
    topic: &str,
    outgoing: &Outgoing,
    place: u64,
) -> Result<(), Error> {
    let queues = shared.backbone.write_queues(topic).await?;
    let at = usize::try_from(place % queues.len().max(1) as u64).unwrap_or(0);
    let queue = queues.get(at).ok_or_else(|| Error::TopicMissing {
        topic: topic.to_owned(),
    })?;
    shared
        .backbone
        .send(queue, std::slice::from_ref(outgoing))
        .await
}
