//! One request for messages of a queue.

use std::sync::Arc;
use std::time::Duration;

use rocketmq_protocol::RemotingCommand;
use rocketmq_protocol::code::request_code::RequestCode;
use rocketmq_protocol::code::response_code::ResponseCode;
use rocketmq_protocol::protocol::header::pull_message_request_header::PullMessageRequestHeader;
use rocketmq_protocol::protocol::header::pull_message_response_header::PullMessageResponseHeader;

use super::Shared;
use super::decode::{Answer, TagFilter};
use super::reading::Mark;
use crate::link::Purpose;
use crate::{Error, Queue, answer};

/// Beyond the time for which a broker may hold it: brokers look only every five seconds for pulls that were held long
/// enough (`PullRequestHoldService`).
const MARGIN: Duration = Duration::from_millis(6500);
/// The most messages in one answer. Brokers have a lower limit of their own (32 with default settings).
const MESSAGES_MAX: i32 = 256;
/// Flags of a pull: the broker may hold it; the subscription stands in it.
const MAY_HOLD: i32 = 0b010;
const SUBSCRIPTION: i32 = 0b100;

pub(super) fn name(queue: &Queue) -> String {
    format!("queue {} of {} on {}", queue.id, queue.topic, queue.broker)
}

/// Whose messages.
#[derive(Clone, Copy)]
pub(super) struct Pull<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) queue: &'a Queue,
    pub(super) expression: &'a str,
}

/// What a broker has answered; the code is one of those that have a header.
pub(super) struct Pulled {
    pub(super) code: ResponseCode,
    pub(super) header: PullMessageResponseHeader,
    response: RemotingCommand,
}

impl Pulled {
    /// The messages, if there are any.
    pub(super) fn take_body(&mut self) -> Option<bytes::Bytes> {
        let body = self.response.take_body();
        body.filter(|_| self.code == ResponseCode::Success)
    }
}

impl Pull<'_> {
    /// Asks for what is from this offset on. The broker may hold the request for so long.
    pub(super) async fn ask(
        &self,
        address: &str,
        offset: i64,
        hold: Duration,
    ) -> Result<Pulled, Error> {
        self.ask_for(address, (offset, MESSAGES_MAX, hold)).await
    }

    async fn ask_for(
        &self,
        address: &str,
        (offset, messages_max, hold): (i64, i32, Duration),
    ) -> Result<Pulled, Error> {
        let request = self.request((offset, messages_max, hold));
        let links = &self.shared.cluster.links;
        let response = links
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
            answer::check(&response, &self.queue.topic)?;
        }
        let header: PullMessageResponseHeader =
            response
                .decode_command_custom_header()
                .map_err(|error| Error::Unavailable {
                    reason: format!("an answer from {address} cannot be read: {error}"),
                })?;
        Ok(Pulled {
            code,
            header,
            response,
        })
    }

    fn request(&self, (offset, messages_max, hold): (i64, i32, Duration)) -> RemotingCommand {
        let header = PullMessageRequestHeader {
            consumer_group: self.shared.group.as_str().into(),
            topic: self.queue.topic.as_str().into(),
            queue_id: self.queue.id,
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
            subscription: Some(self.expression.into()),
            expression_type: Some("TAG".into()),
            ..Default::default()
        };
        RemotingCommand::create_request_command(RequestCode::PullMessage, header)
    }

    /// Whether the queue has another message where one was read, or none although it is long enough. Whether that one is wanted
    /// still does not matter.
    pub(super) async fn is_of_another_queue(&self, mark: Mark) -> Result<bool, Error> {
        let address = self.shared.reader_of(self.queue)?.address;
        let pull = Pull {
            expression: "*",
            ..*self
        };
        let mut pulled = pull
            .ask_for(&address, (mark.offset, 1, Duration::ZERO))
            .await?;
        if pulled.header.min_offset > mark.offset {
            // RocketMQ has deleted it since, for its age.
            return Ok(false);
        }
        let all = TagFilter::all();
        let part = pulled
            .take_body()
            .and_then(|body| Answer::new(self.queue, mark.offset, body, &all).part());
        let there = part.unwrap_or_default().first().map(Mark::of);
        Ok(there != Some(mark))
    }
}
