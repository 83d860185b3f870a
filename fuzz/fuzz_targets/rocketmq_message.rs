//! Whatever stands in a message from RocketMQ (properties, tag, keys, times, body), by any rule: an MQTT message that can be published and goes through the hand-off
//! log unchanged, or a named reason.
#![no_main]

// The sidecar's own files; not all of them are used here.
#[allow(dead_code, unused_imports, unexpected_cfgs)]
#[path = "../../sidecar/src/mapping/mod.rs"]
mod mapping;

use libfuzzer_sys::fuzz_target;
use mapping::downlink::{Context, Outcome, map};
use protocol::config::Layout;
use protocol::message::Message;
use protocol::rules::DownlinkRule;
use rocketmq::{Incoming, Queue};

/// Names that mean something, so that the fuzzer need not guess them.
const NAMES: [&str; 24] = [
    "mqtt_topic",
    "mqtt_id",
    "mqtt_qos",
    "mqtt_retain",
    "mqtt_expiry",
    "mqtt_received_at",
    "mqtt_empty",
    "mqtt_content_type",
    "mqtt_response_topic",
    "mqtt_correlation_data",
    "mqtt_payload_format",
    "mqtt_user_properties",
    "client_id",
    "mqtt_client_id",
    "mqtt_user_a",
    "mqttSecondTopic",
    "mqttRealTopic",
    "topic",
    "originMqttTopic",
    "clientId",
    "qoslevel",
    "IS_EMPTY_MSG",
    "mqtt5UserProperty",
    "mqtt5MsgExpireInterval",
];
const RULES: [&str; 5] = [
    "A devices/%k/commands",
    "A %{mqtt_topic} client=%{mqtt_client_id}",
    "A a/%g qos=2 retain=true expiry=30s",
    "A fixed client=%k",
    "A x/%{a}/%{b}",
];

/// A message's texts, times and choices.
type Input = (
    Vec<(u8, String, String)>,
    Option<String>,
    Option<String>,
    Vec<u8>,
    (i64, i64, u64),
    (bool, u8, String),
);

fuzz_target!(|input: Input| {
    let (properties, tag, keys, body, (born_at_ms, stored_at_ms, now_ms), choices) = input;
    let (apsara, rule, text) = choices;
    let rule = RULES.get(usize::from(rule)).map_or(&text[..], |rule| rule);
    let Ok(rule) = DownlinkRule::parse(rule) else {
        return;
    };
    let named = |(which, name, value)| match NAMES.get(usize::from(which)) {
        Some(known) => ((*known).to_owned(), value),
        None => (name, value),
    };
    let incoming = Incoming {
        queue: Queue {
            topic: "A".to_owned(),
            broker: "b".to_owned(),
            id: 0,
        },
        offset: 0,
        message_id: "id".to_owned(),
        body: body.into(),
        tag,
        keys,
        properties: properties.into_iter().map(named).collect(),
        born_at_ms,
        stored_at_ms,
        is_read_back: false,
        problem: None,
    };
    let context = Context {
        node_id: "n".to_owned(),
        layout: if apsara {
            Layout::Apsara
        } else {
            Layout::Native
        },
    };
    let Ok(Outcome::Deliver(mapped)) = map(&incoming, &rule, &context, now_ms) else {
        return;
    };
    let message = mapped.message();
    assert!(protocol::topic::validate_topic(message.topic).is_ok());
    let mut bytes = vec![0; message.encoded_len()];
    message.encode_into(&mut bytes);
    assert_eq!(Message::decode(&bytes), Ok(message));
});
