//! A fetcher: long polls on one queue, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rocketmq_protocol::RemotingCommand;
use rocketmq_protocol::code::request_code::RequestCode;
use rocketmq_protocol::code::response_code::ResponseCode;
use rocketmq_protocol::protocol::header::pull_message_request_header::PullMessageRequestHeader;
use rocketmq_protocol::protocol::header::pull_message_response_header::PullMessageResponseHeader;
use tokio::sync::mpsc;

use super::decode::{self, TagFilter};
use super::{AHEAD_KIB_MAX, Fetched, Progress, Shared};
use crate::link::Purpose;
use crate::{Error, Queue, answer};

/// How long a broker may hold a pull that finds nothing. Short, because a broker that vanished without a word is
/// only noticed when this and the margin have passed.
const HOLD: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_millis(2500);
/// The most messages in one answer. Brokers have a lower limit of their own (32 with default settings).
const MESSAGES_MAX: i32 = 256;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The subscription stands in this request, and the broker may hold it.
const HOLD_AND_SUBSCRIPTION: i32 = 0b110;

pub(super) fn name(queue: &Queue) -> String {
    format!("queue {} of {} on {}", queue.id, queue.topic, queue.broker)
}

enum Step {
    /// The broker had something to say, even if no message for us was in it.
    Next,
    /// Nobody takes messages any more.
    Closed,
}

pub(super) async fn run(
    shared: Arc<Shared>,
    queue: Queue,
    tags: String,
    progress: Arc<Progress>,
    outgoing: mpsc::Sender<Fetched>,
) {
    let filter = TagFilter::new(&tags);
    let what = name(&queue);
    let mut pause = PAUSE_MIN;
    let mut failing = false;
    loop {
        match step(&shared, &queue, &tags, &filter, &progress, &outgoing).await {
            Ok(Step::Next) => {
                pause = PAUSE_MIN;
                if std::mem::take(&mut failing) {
                    shared.works(&what);
                }
            }
            Ok(Step::Closed) => return,
            Err(error) => {
                failing = true;
                shared.fails(&what, error);
                // The broker may have another address now.
                shared.hurry.notify_one();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn step(
    shared: &Arc<Shared>,
    queue: &Queue,
    tags: &str,
    filter: &TagFilter,
    progress: &Progress,
    outgoing: &mpsc::Sender<Fetched>,
) -> Result<Step, Error> {
    let address = shared.reader_of(queue).ok_or_else(|| Error::Unavailable {
        reason: format!(
            "broker {} is not in the route of {}",
            queue.broker, queue.topic
        ),
    })?;
    let offset = progress.next.load(Ordering::Relaxed);
    let request = request(shared, queue, tags, offset);
    let mut response = shared
        .cluster
        .links
        .call(Purpose::Pulls, &address, request, HOLD + MARGIN)
        .await?;
    let code = ResponseCode::from(response.code());
    if !matches!(
        code,
        ResponseCode::Success
            | ResponseCode::PullNotFound
            | ResponseCode::PullRetryImmediately
            | ResponseCode::PullOffsetMoved
    ) {
        answer::check(&response, &queue.topic)?;
    }
    let header: PullMessageResponseHeader =
        response
            .decode_command_custom_header()
            .map_err(|error| Error::Unavailable {
                reason: format!("an answer from {address} cannot be read: {error}"),
            })?;
    progress.max.store(header.max_offset, Ordering::Relaxed);
    if code == ResponseCode::PullOffsetMoved {
        log::warn!(
            "{}: offset {offset} is not there (kept: {} to {}); going on at {}",
            name(queue),
            header.min_offset,
            header.max_offset,
            header.next_begin_offset
        );
    }
    if let (ResponseCode::Success, Some(body)) = (code, response.take_body()) {
        let messages = decode::messages(queue, offset, body, filter);
        if !messages.is_empty() && !hand_over(shared, messages, outgoing).await {
            return Ok(Step::Closed);
        }
    }
    progress
        .next
        .store(header.next_begin_offset, Ordering::Relaxed);
    Ok(Step::Next)
}

fn request(shared: &Shared, queue: &Queue, tags: &str, offset: i64) -> RemotingCommand {
    let header = PullMessageRequestHeader {
        consumer_group: shared.group.as_str().into(),
        topic: queue.topic.as_str().into(),
        queue_id: queue.id,
        queue_offset: offset,
        max_msg_nums: MESSAGES_MAX,
        sys_flag: HOLD_AND_SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_millis: HOLD.as_secs() * 1000,
        sub_version: 0,
        subscription: Some(tags.into()),
        expression_type: Some("TAG".into()),
        ..Default::default()
    };
    RemotingCommand::create_request_command(RequestCode::PullMessage, header)
}

/// Waits until the messages may be held in memory. False when nobody wants them any more.
async fn hand_over(
    shared: &Shared,
    messages: Vec<crate::Incoming>,
    outgoing: &mpsc::Sender<Fetched>,
) -> bool {
    let bytes: usize = messages.iter().map(decode::weight).sum();
    let kib = u32::try_from(bytes / 1024 + 1)
        .unwrap_or(u32::MAX)
        .min(AHEAD_KIB_MAX);
    let Ok(share) = Arc::clone(&shared.ahead).acquire_many_owned(kib).await else {
        return false;
    };
    let count = messages.len() as u64;
    shared.buffered.fetch_add(count, Ordering::Relaxed);
    outgoing
        .send(Fetched {
            messages,
            _share: share,
        })
        .await
        .is_ok()
}
