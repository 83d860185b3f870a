//! Offsets: what the group has committed, and where a queue begins and ends.

use std::time::Duration;

use rocketmq_protocol::RemotingCommand;
use rocketmq_protocol::code::request_code::RequestCode;
use rocketmq_protocol::code::response_code::ResponseCode;
use rocketmq_protocol::protocol::header::get_max_offset_request_header::GetMaxOffsetRequestHeader;
use rocketmq_protocol::protocol::header::get_max_offset_response_header::GetMaxOffsetResponseHeader;
use rocketmq_protocol::protocol::header::query_consumer_offset_request_header::QueryConsumerOffsetRequestHeader;
use rocketmq_protocol::protocol::header::query_consumer_offset_response_header::QueryConsumerOffsetResponseHeader;
use rocketmq_protocol::protocol::header::search_offset_request_header::SearchOffsetRequestHeader;
use rocketmq_protocol::protocol::header::search_offset_response_header::SearchOffsetResponseHeader;
use rocketmq_protocol::protocol::header::update_consumer_offset_header::UpdateConsumerOffsetRequestHeader;

use super::Shared;
use crate::link::Purpose;
use crate::{Error, Queue, answer};

const LIMIT: Duration = Duration::from_secs(3);

/// The offset that the group has committed, if any.
pub(super) async fn committed(shared: &Shared, queue: &Queue) -> Result<Option<i64>, Error> {
    let mut header = QueryConsumerOffsetRequestHeader::new(
        shared.group.as_str(),
        queue.topic.as_str(),
        queue.id,
    );
    // Else a broker answers 0 for a group that it has never seen, when the queue is young.
    header.set_zero_if_not_found = Some(false);
    let request = RemotingCommand::create_request_command(RequestCode::QueryConsumerOffset, header);
    let response = call(shared, queue, request).await?;
    if response.code() == ResponseCode::QueryNotFound.to_i32() {
        return Ok(None);
    }
    answer::check(&response, &queue.topic)?;
    let header: QueryConsumerOffsetResponseHeader = response
        .decode_command_custom_header()
        .map_err(|error| malformed(queue, &error.to_string()))?;
    Ok(header.offset.filter(|offset| *offset >= 0))
}

/// The offset that the next message sent to the queue will get.
pub(super) async fn end(shared: &Shared, queue: &Queue) -> Result<i64, Error> {
    let header = GetMaxOffsetRequestHeader {
        topic: queue.topic.as_str().into(),
        queue_id: queue.id,
        // Only what is committed in a replicated log, which is all of it elsewhere.
        committed: true,
        topic_request_header: None,
    };
    let request = RemotingCommand::create_request_command(RequestCode::GetMaxOffset, header);
    let response = call(shared, queue, request).await?;
    answer::check(&response, &queue.topic)?;
    let header: GetMaxOffsetResponseHeader = response
        .decode_command_custom_header()
        .map_err(|error| malformed(queue, &error.to_string()))?;
    Ok(header.offset)
}

/// The offset of the first message that the queue's broker has stored at this time or later (Unix milliseconds); the queue's end
/// when there is none.
pub(super) async fn since(shared: &Shared, queue: &Queue, time_ms: i64) -> Result<i64, Error> {
    let header = SearchOffsetRequestHeader {
        topic: queue.topic.as_str().into(),
        queue_id: queue.id,
        timestamp: time_ms,
        ..Default::default()
    };
    let request =
        RemotingCommand::create_request_command(RequestCode::SearchOffsetByTimestamp, header);
    let response = call(shared, queue, request).await?;
    answer::check(&response, &queue.topic)?;
    let header: SearchOffsetResponseHeader = response
        .decode_command_custom_header()
        .map_err(|error| malformed(queue, &error.to_string()))?;
    Ok(header.offset)
}

pub(super) async fn commit(shared: &Shared, queue: &Queue, offset: i64) -> Result<(), Error> {
    let header = UpdateConsumerOffsetRequestHeader {
        consumer_group: shared.group.as_str().into(),
        topic: queue.topic.as_str().into(),
        queue_id: queue.id,
        commit_offset: offset,
        topic_request_header: None,
    };
    let request =
        RemotingCommand::create_request_command(RequestCode::UpdateConsumerOffset, header);
    let response = call(shared, queue, request).await?;
    answer::check(&response, &queue.topic)
}

async fn call(
    shared: &Shared,
    queue: &Queue,
    request: RemotingCommand,
) -> Result<RemotingCommand, Error> {
    let address = shared.reader_of(queue)?.address;
    shared
        .cluster
        .links
        .call(Purpose::Requests, &address, request, LIMIT)
        .await
}

fn malformed(queue: &Queue, reason: &str) -> Error {
    Error::Unavailable {
        reason: format!(
            "an offset of {} queue {} cannot be read: {reason}",
            queue.topic, queue.id
        ),
    }
}
