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

use super::decode::{self, Answer, TagFilter};
use super::reading::{Mark, Reading};
use super::{AHEAD_KIB_MAX, Fetched, Progress, Shared};
use crate::link::{Purpose, lock};
use crate::{Error, Queue, answer};

/// How long a broker may hold a pull that finds nothing. Brokers look only every five seconds for pulls that were held long
/// enough (`PullRequestHoldService`), so the answer comes within six. Short, because a broker that hangs, or that no packet reaches,
/// is only noticed when this and the margin have passed. (One that is gone is noticed at once: see `link::watch`.)
const HOLD: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_millis(6500);
/// A slave is not let hold pulls: when it becomes the master, those that it holds wait for that look of five seconds, and until then
/// it may say "again, at once" all the time. So it is asked again after this.
const SLAVE_PAUSE: Duration = Duration::from_millis(200);
/// The most messages in one answer. Brokers have a lower limit of their own (32 with default settings).
const MESSAGES_MAX: i32 = 256;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Flags of a pull: the broker may hold it; the subscription stands in it.
const MAY_HOLD: i32 = 0b010;
const SUBSCRIPTION: i32 = 0b100;

pub(super) fn name(queue: &Queue) -> String {
    format!("queue {} of {} on {}", queue.id, queue.topic, queue.broker)
}

#[derive(PartialEq, Eq)]
enum Step {
    /// The broker had something to say, even if no message for us was in it.
    Next,
    /// There is a slave alone, and it had nothing.
    Wait,
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
    let mut reading = Reading::default();
    let what = name(&queue);
    let mut pause = PAUSE_MIN;
    let mut failing = false;
    loop {
        let pull = Pull {
            shared: &shared,
            queue: &queue,
            tags: &tags,
            filter: &filter,
        };
        match step(&pull, &mut reading, &progress, &outgoing).await {
            Ok(found @ (Step::Next | Step::Wait)) => {
                pause = PAUSE_MIN;
                if std::mem::take(&mut failing) {
                    shared.works(&what);
                }
                if found == Step::Wait {
                    shared.hurry.notify_one();
                    tokio::time::sleep(SLAVE_PAUSE).await;
                }
            }
            Ok(Step::Closed) => return,
            Err(Error::TopicMissing { .. }) if reading.is_fresh() => {
                // Where to start, should it come back, is for the scout to find out anew: the offsets went with the topic.
                lock(&shared.fetchers).remove(&queue);
                shared.works(&what);
                return;
            }
            Err(error) => {
                if matches!(error, Error::TopicMissing { .. }) {
                    reading.begin_again(&queue, &progress, 0);
                }
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

/// Says where the messages come from.
struct Pull<'a> {
    shared: &'a Arc<Shared>,
    queue: &'a Queue,
    tags: &'a str,
    filter: &'a TagFilter,
}

impl Pull<'_> {
    /// One request, with a broker's patience of so long; the answer's code is one of those that have a header.
    async fn ask(
        &self,
        address: &str,
        (offset, messages_max, hold): (i64, i32, Duration),
    ) -> Result<(ResponseCode, RemotingCommand, PullMessageResponseHeader), Error> {
        let Pull { shared, queue, .. } = self;
        let request = request(shared, queue, self.tags, (offset, messages_max, hold));
        let response = shared
            .cluster
            .links
            .call(Purpose::Pulls, address, request, hold + MARGIN)
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
        Ok((code, response, header))
    }

    /// Whether the queue has another message where one was read, or none although it is long enough.
    async fn is_of_another_queue(&self, mark: Mark) -> Result<bool, Error> {
        let address = self.shared.reader_of(self.queue)?.address;
        let wanted = (mark.offset, 1, Duration::ZERO);
        let (code, mut response, header) = self.ask(&address, wanted).await?;
        if header.min_offset > mark.offset {
            // RocketMQ has deleted it since, for its age.
            return Ok(false);
        }
        let body = response
            .take_body()
            .filter(|_| code == ResponseCode::Success);
        let part =
            body.and_then(|body| Answer::new(self.queue, mark.offset, body, self.filter).part());
        let there = part.unwrap_or_default().first().map(Mark::of);
        Ok(there != Some(mark))
    }
}

async fn step(
    pull: &Pull<'_>,
    reading: &mut Reading,
    progress: &Progress,
    outgoing: &mpsc::Sender<Fetched>,
) -> Result<Step, Error> {
    let queue = pull.queue;
    let offset = progress.next.load(Ordering::Relaxed);
    let reader = pull.shared.reader_of(queue)?;
    let hold = if reader.is_master {
        HOLD
    } else {
        Duration::ZERO
    };
    let wanted = (offset, MESSAGES_MAX, hold);
    let (code, mut response, header) = pull.ask(&reader.address, wanted).await?;
    progress.max.store(header.max_offset, Ordering::Relaxed);
    if code == ResponseCode::PullOffsetMoved {
        if offset > header.max_offset && !reader.is_master {
            // It has not yet got what its master had.
            return Ok(Step::Wait);
        }
        if offset > header.max_offset && !reading.is_fresh() {
            // The broker proposes to go on at the queue's end. But what is before it was never read.
            reading.begin_again(queue, progress, header.min_offset);
            return Ok(Step::Next);
        }
        log::warn!(
            "{}: offset {offset} is not there (kept: {} to {}); going on at {}",
            name(queue),
            header.min_offset,
            header.max_offset,
            header.next_begin_offset
        );
    }
    let mut next = header.next_begin_offset;
    if let (ResponseCode::Success, Some(body)) = (code, response.take_body()) {
        let mut answer = Answer::new(queue, offset, body, pull.filter);
        let mut due = reading.due();
        while let Some(mut messages) = answer.part() {
            if !messages.is_empty()
                && let Some(mark) = due.take()
                && pull.is_of_another_queue(mark).await?
            {
                reading.begin_again(queue, progress, header.min_offset);
                return Ok(Step::Next);
            }
            reading.take_note(&mut messages);
            if !messages.is_empty() && !hand_over(pull.shared, messages, outgoing).await {
                return Ok(Step::Closed);
            }
        }
        next = answer.broke_off_at().unwrap_or(next);
    }
    progress.next.store(next, Ordering::Relaxed);
    if !reader.is_master && next == offset {
        return Ok(Step::Wait);
    }
    Ok(Step::Next)
}

/// The last number of the three is how long the broker may hold it.
fn request(
    shared: &Shared,
    queue: &Queue,
    tags: &str,
    (offset, messages_max, hold): (i64, i32, Duration),
) -> RemotingCommand {
    let header = PullMessageRequestHeader {
        consumer_group: shared.group.as_str().into(),
        topic: queue.topic.as_str().into(),
        queue_id: queue.id,
        queue_offset: offset,
        max_msg_nums: messages_max,
        sys_flag: if hold.is_zero() {
            SUBSCRIPTION
        } else {
            MAY_HOLD | SUBSCRIPTION
        },
        commit_offset: 0,
        suspend_timeout_millis: hold.as_secs() * 1000,
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
