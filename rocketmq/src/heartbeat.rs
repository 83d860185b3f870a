//! Heartbeats: how a broker knows who produces and who consumes. Messages flow without them; operators' tools
//! show the groups by them, and brokers may forget the offsets of a group that shows no sign of life.

use std::collections::HashSet;

use rocketmq_protocol::RemotingCommand;
use rocketmq_protocol::code::request_code::RequestCode;
use rocketmq_protocol::protocol::RemotingSerializable;
use rocketmq_protocol::protocol::filter::filter_api::FilterAPI;
use rocketmq_protocol::protocol::header::heartbeat_request_header::HeartbeatRequestHeader;
use rocketmq_protocol::protocol::heartbeat::consume_type::ConsumeType;
use rocketmq_protocol::protocol::heartbeat::consumer_data::ConsumerData;
use rocketmq_protocol::protocol::heartbeat::heartbeat_data::HeartbeatData;
use rocketmq_protocol::protocol::heartbeat::message_model::MessageModel;
use rocketmq_protocol::protocol::heartbeat::producer_data::ProducerData;

use crate::Error;

pub(crate) fn of_producer(client: &str, group: &str) -> Result<RemotingCommand, Error> {
    let producer = ProducerData {
        group_name: group.into(),
    };
    request(HeartbeatData {
        client_id: client.into(),
        producer_data_set: HashSet::from([producer]),
        ..HeartbeatData::default()
    })
}

/// What a consumer registers of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) topic: String,
    pub(crate) expression: String,
    /// A broker takes an expression for the one it has unless this is higher.
    pub(crate) version: i64,
}

pub(crate) fn of_consumer(
    client: &str,
    group: &str,
    registered: &[Registered],
) -> Result<RemotingCommand, Error> {
    let mut subscriptions = HashSet::new();
    for one in registered {
        let mut data = FilterAPI::build_subscription_data(
            &one.topic.as_str().into(),
            &one.expression.as_str().into(),
        )
        .map_err(|error| unencodable(&error.to_string()))?;
        data.sub_version = one.version;
        subscriptions.insert(data);
    }
    let consumer = ConsumerData {
        group_name: group.into(),
        consume_type: ConsumeType::ConsumeActively,
        message_model: MessageModel::Clustering,
        subscription_data_set: subscriptions,
        ..ConsumerData::default()
    };
    request(HeartbeatData {
        client_id: client.into(),
        consumer_data_set: HashSet::from([consumer]),
        ..HeartbeatData::default()
    })
}

fn request(data: HeartbeatData) -> Result<RemotingCommand, Error> {
    let body = data
        .encode()
        .map_err(|error| unencodable(&error.to_string()))?;
    Ok(RemotingCommand::create_request_command(
        RequestCode::HeartBeat,
        HeartbeatRequestHeader::default(),
    )
    .set_body(body))
}

fn unencodable(reason: &str) -> Error {
    Error::Refused {
        code: 0,
        reason: format!("a heartbeat cannot be encoded: {reason}"),
    }
}
