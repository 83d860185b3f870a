//! What goes up comes down the same, for any message, in both layouts; and what others write into properties never stops it.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::config::Layout;
use protocol::message::{Identity, Message, Property, PropertyBuffer, QoS};
use protocol::rules::{DownlinkRule, UplinkRule};
use rocketmq::{Incoming, Outgoing, Queue};

use super::downlink::{Context, Mapped, Outcome};
use super::{MapError, downlink, uplink};

const IDENTITY: Identity<'static> = Identity { node: "edge-1", epoch: 0x1f, position: 4096 };

fn up_rule(text: &str) -> UplinkRule {
    UplinkRule::parse(text).unwrap()
}

fn down_rule(text: &str) -> DownlinkRule {
    DownlinkRule::parse(text).unwrap()
}

fn context(node_id: &str, layout: Layout) -> Context {
    Context { node_id: node_id.into(), layout }
}

/// What a consumer gets of what a producer sent.
fn through(topic: &str, sent: Outgoing) -> Incoming {
    for (name, value) in &sent.properties {
        assert!(!name.is_empty() && !value.is_empty(), "RocketMQ drops an empty {name}");
        assert!(!format!("{name}{value}").contains(['\u{1}', '\u{2}']), "{name}={value:?}");
    }
    Incoming {
        queue: Queue { topic: topic.into(), broker: "b".into(), id: 0 },
        offset: 0,
        message_id: "id".into(),
        body: sent.body,
        tag: sent.tag,
        keys: sent.keys,
        properties: sent.properties,
        born_at_ms: 1_000,
        stored_at_ms: 1_000,
    }
}

fn from_java(properties: &[(&str, &str)]) -> Incoming {
    let properties = properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let sent = Outgoing { body: Bytes::from_static(b"on"), keys: Some("device-7 order-1".into()), tag: Some("T".into()), properties };
    through("COMMANDS", sent)
}

fn deliver(incoming: &Incoming, rule: &str, now_ms: u64) -> Mapped {
    match downlink::map(incoming, &down_rule(rule), &context("edge-2", Layout::Native), now_ms) {
        Ok(Outcome::Deliver(mapped)) => *mapped,
        other => panic!("not delivered: {other:?}"),
    }
}

fn users<'a>(message: &Message<'a>) -> Vec<(&'a str, &'a str)> {
    message.properties.iter().filter_map(|p| if let Property::User(k, v) = p { Some((k, v)) } else { None }).collect()
}

fn mqtt_text() -> impl Strategy<Value = String> {
    "[ -~¡-ÿぁ-ん\u{1F600}-\u{1F64F}]{0,12}".prop_filter("Mosquitto takes it", |text| super::is_mqtt_text(text))
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 %ä/]{1,30}"
}

#[derive(Debug, Clone)]
struct Sample {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    client: String,
    username: Option<String>,
    expiry_s: Option<u32>,
    format: Option<u8>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation: Option<Vec<u8>>,
    users: Vec<(String, String)>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let head = (topic(), prop::collection::vec(any::<u8>(), 0..20), 0..3u8, any::<bool>(), mqtt_text(), prop::option::of(mqtt_text()));
    let tail = (
        prop::option::of(1..u32::MAX),
        prop::option::of(0..2u8),
        prop::option::of(mqtt_text()),
        prop::option::of(topic()),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
        prop::collection::vec((prop_oneof![mqtt_text(), Just("properties".to_owned()), Just("a".to_owned())], mqtt_text()), 0..4),
    );
    (head, tail).prop_map(|(head, tail)| {
        let (topic, payload, qos, retain, client, username) = head;
        let (expiry_s, format, content_type, response_topic, correlation, users) = tail;
        Sample { topic, payload, qos, retain, client, username, expiry_s, format, content_type, response_topic, correlation, users }
    })
}

impl Sample {
    fn properties(&self) -> PropertyBuffer {
        let mut buffer = PropertyBuffer::new();
        let mut push = |property: &Property<'_>| buffer.push(property).unwrap();
        self.format.iter().for_each(|format| push(&Property::PayloadFormat(*format)));
        self.content_type.iter().for_each(|text| push(&Property::ContentType(text)));
        self.response_topic.iter().for_each(|text| push(&Property::ResponseTopic(text)));
        self.correlation.iter().for_each(|data| push(&Property::CorrelationData(data)));
        self.users.iter().for_each(|(key, value)| push(&Property::User(key, value)));
        buffer
    }
}

proptest! {
    #[test]
    fn what_goes_up_comes_down_the_same(sample in sample(), apsara in any::<bool>()) {
        let layout = if apsara { Layout::Apsara } else { Layout::Native };
        let buffer = sample.properties();
        let message = Message {
            topic: &sample.topic,
            payload: &sample.payload,
            qos: QoS::from_u8(sample.qos).unwrap(),
            retain: sample.retain,
            mqtt_version: 5,
            client_id: &sample.client,
            username: sample.username.as_deref(),
            received_at_ms: 5_000,
            expiry_s: sample.expiry_s,
            properties: buffer.as_properties(),
            ..Message::default()
        };
        let (topic, order, sent) = uplink::map(&message, &up_rule("# T key=%c"), layout, &IDENTITY).unwrap();
        prop_assert_eq!(order, sample.client.as_str());
        prop_assert_eq!(topic.as_str(), "T");
        prop_assert!(!sent.body.is_empty(), "RocketMQ refuses an empty body");
        let incoming = through(&topic, sent);
        let rule = down_rule("T %{mqtt_topic}");
        let outcome = downlink::map(&incoming, &rule, &context("edge-2", layout), 5_000).unwrap();
        let Outcome::Deliver(mapped) = outcome else { panic!("{outcome:?}") };
        prop_assert_eq!(&mapped.warnings, &Vec::<String>::new());
        let expected = Message { client_id: "", username: None, mqtt_version: 0, ..message };
        prop_assert_eq!(mapped.message(), expected);
        // And on the node where it was published it is known.
        let own = downlink::map(&incoming, &rule, &context("edge-1", layout), 5_000).unwrap();
        prop_assert!(matches!(own, Outcome::Own));
    }

    #[test]
    fn any_properties_give_a_message(
        pairs in prop::collection::vec((prop_oneof![
            "mqtt_(qos|retain|expiry|empty|received_at|id|topic|content_type|response_topic|correlation_data|payload_format|user_properties|user_a)",
            "qoslevel|mqttSecondTopic|mqtt5UserProperty|mqtt5MsgExpireInterval|IS_EMPTY_MSG",
            any::<String>(),
        ], any::<String>()), 0..8),
        apsara in any::<bool>(),
    ) {
        let layout = if apsara { Layout::Apsara } else { Layout::Native };
        let mut incoming = from_java(&[]);
        incoming.properties = pairs;
        let outcome = downlink::map(&incoming, &down_rule("COMMANDS a/b"), &context("n", layout), 2_000);
        match outcome.unwrap() {
            Outcome::Deliver(mapped) => prop_assert!(Message::decode(&encode(&mapped)).is_ok()),
            Outcome::Own | Outcome::Expired => {}
        }
    }
}

fn encode(mapped: &Mapped) -> Vec<u8> {
    let mut bytes = vec![0; mapped.message().encoded_len()];
    mapped.message().encode_into(&mut bytes);
    bytes
}

#[test]
fn a_rule_makes_tag_key_and_properties() {
    let message = Message { topic: "sensors/s1/telemetry", payload: b"21", client_id: "dev 1", ..Message::default() };
    let rule = up_rule("sensors/+/telemetry TELEMETRY tag=%2 key=%c order=%1 prop.site=%1-x prop.user=%u");
    let (topic, order, sent) = uplink::map(&message, &rule, Layout::Native, &IDENTITY).unwrap();
    assert_eq!((topic.as_str(), order.as_str()), ("TELEMETRY", "sensors"));
    assert_eq!((sent.tag.as_deref(), sent.keys.as_deref()), (Some("s1"), Some("dev 1")));
    assert!(sent.properties.contains(&("site".into(), "sensors-x".into())));
    assert!(!sent.properties.iter().any(|(name, _)| name == "user"), "nobody logged in: the property is left out");
    assert!(sent.properties.contains(&("mqtt_id".into(), "edge-1:1f:4096".into())));
}

#[test]
fn an_impossible_rocketmq_topic_is_a_dead_letter() {
    let message = Message { topic: "größe/1", payload: b"x", client_id: "c", ..Message::default() };
    let error = uplink::map(&message, &up_rule("# %1"), Layout::Native, &IDENTITY).unwrap_err();
    assert!(matches!(error, MapError::RocketmqTopic { .. }), "{error}");
    let error = uplink::map(&message, &up_rule("# T%3"), Layout::Native, &IDENTITY).unwrap_err();
    assert_eq!(error.to_string(), "topic of the rule can't be made: the message has no %3");
}

#[test]
fn properties_that_rocketmq_cannot_hold_are_a_dead_letter_and_copies_give_way_first() {
    let half = "v".repeat(10_000);
    let mut buffer = PropertyBuffer::new();
    buffer.push(&Property::User("a", &half)).unwrap();
    buffer.push(&Property::User("b", &half)).unwrap();
    let message = Message { topic: "t", payload: b"x", client_id: "c", properties: buffer.as_properties(), ..Message::default() };
    let (_, _, sent) = uplink::map(&message, &up_rule("# T"), Layout::Native, &IDENTITY).unwrap();
    assert!(sent.properties.iter().any(|(name, _)| name == "mqtt_user_properties"));
    assert!(!sent.properties.iter().any(|(name, _)| name == "mqtt_user_a"), "20 kB once fit, twice they don't");
    let mut buffer = PropertyBuffer::new();
    buffer.push(&Property::ContentType(&"v".repeat(40_000))).unwrap();
    let message = Message { properties: buffer.as_properties(), ..message };
    let error = uplink::map(&message, &up_rule("# T"), Layout::Native, &IDENTITY).unwrap_err();
    assert!(matches!(error, MapError::PropertiesTooLarge { .. }), "{error}");
}

#[test]
fn a_java_producers_properties_override_the_rule() {
    let incoming = from_java(&[("mqtt_qos", "2"), ("mqtt_retain", "true"), ("mqtt_expiry", "9"), ("client_id", "dev-1"), ("x", "50%25")]);
    let mapped = deliver(&incoming, "COMMANDS devices/%k/%g/%{x} qos=0 retain=false expiry=60s", 1_000);
    let message = mapped.message();
    assert_eq!(message.topic, "devices/device-7/T/50%25");
    assert_eq!((message.qos, message.retain, message.expiry_s), (QoS::ExactlyOnce, true, Some(9)));
    assert_eq!((message.client_id, message.payload), ("dev-1", &b"on"[..]));
    assert_eq!(users(&message), [("x", "50%25")], "other people's properties pass as they are");
}

#[test]
fn wrong_values_fall_back_to_the_rule_and_are_said() {
    let incoming = from_java(&[
        ("mqtt_qos", "3"), ("mqtt_retain", "maybe"), ("mqtt_expiry", "-1"), ("mqtt_payload_format", "7"), ("mqtt_correlation_data", "%"),
        ("mqtt_response_topic", "a/#"), ("mqtt_user_properties", "{}"), ("mqtt_user_a", "1"), ("bad", "a\u{7}"),
    ]);
    let mapped = deliver(&incoming, "COMMANDS t qos=2 retain=true expiry=60s", 1_000);
    let message = mapped.message();
    assert_eq!((message.qos, message.retain, message.expiry_s), (QoS::ExactlyOnce, true, Some(60)));
    assert_eq!(users(&message), [("a", "1")]);
    assert_eq!(mapped.warnings.len(), 8, "{:?}", mapped.warnings);
}

#[test]
fn expiry_counts_from_the_publishing() {
    let incoming = from_java(&[("mqtt_expiry", "10")]);
    assert_eq!(deliver(&incoming, "COMMANDS t", 1_000).message().expiry_s, Some(10));
    assert_eq!(deliver(&incoming, "COMMANDS t", 5_500).message().expiry_s, Some(6));
    assert_eq!(deliver(&incoming, "COMMANDS t", 500).message().expiry_s, Some(10), "a clock behind the producer's");
    let expired = downlink::map(&incoming, &down_rule("COMMANDS t"), &context("n", Layout::Native), 11_000).unwrap();
    assert!(matches!(expired, Outcome::Expired));
    let from_mqtt = from_java(&[("mqtt_expiry", "10"), ("mqtt_received_at", "8000")]);
    assert_eq!(deliver(&from_mqtt, "COMMANDS t", 11_000).message().expiry_s, Some(7));
    assert_eq!(deliver(&from_java(&[("mqtt_expiry", "0")]), "COMMANDS t", 99_000).message().expiry_s, None);
}

#[test]
fn a_topic_that_cannot_be_published_on_is_a_dead_letter() {
    for x in ["+", "a/#", "", "\u{7}", "\u{FFFF}"] {
        let mut incoming = from_java(&[]);
        incoming.properties = vec![("x".into(), x.into())];
        let error = downlink::map(&incoming, &down_rule("COMMANDS %{x}"), &context("n", Layout::Native), 0).unwrap_err();
        assert!(matches!(error, MapError::MqttTopic { .. }), "{x:?}: {error}");
    }
    let error = downlink::map(&from_java(&[]), &down_rule("COMMANDS a/%{x}"), &context("n", Layout::Native), 0).unwrap_err();
    assert_eq!(error.to_string(), "topic of the rule can't be made: the message has no %{x}");
}

#[test]
fn a_message_for_one_client_never_becomes_one_for_all() {
    let error = downlink::map(&from_java(&[]), &down_rule("COMMANDS t client=%{to}"), &context("n", Layout::Native), 0).unwrap_err();
    assert!(matches!(error, MapError::Template { what: "client", .. }), "{error}");
    assert_eq!(deliver(&from_java(&[]), "COMMANDS t client=%k", 0).message().client_id, "device-7");
}

#[test]
fn an_own_message_on_another_topic_is_delivered() {
    let incoming = from_java(&[("mqtt_id", "edge-2:1:0"), ("mqtt_topic", "a")]);
    assert_eq!(deliver(&incoming, "COMMANDS b", 0).message().topic, "b");
    let own = downlink::map(&incoming, &down_rule("COMMANDS a"), &context("edge-2", Layout::Native), 0).unwrap();
    assert!(matches!(own, Outcome::Own));
}

#[test]
fn alibabas_names_reach_one_client() {
    let incoming = from_java(&[
        ("mqttSecondTopic", "/p2p/GID@@@dev"), ("qoslevel", "2"), ("mqtt5UserProperty", r#"[{"key":"k","value":"v"}]"#),
        ("mqtt5MsgExpireInterval", "5"), ("mqtt5ContentType", "text/plain"), ("cleansessionflag", "false"),
    ]);
    let rule = down_rule("COMMANDS CHAT%{mqttSecondTopic}");
    let outcome = downlink::map(&incoming, &rule, &context("n", Layout::Apsara), 1_000).unwrap();
    let Outcome::Deliver(mapped) = outcome else { panic!("{outcome:?}") };
    let message = mapped.message();
    assert_eq!((message.topic, message.client_id), ("CHAT/p2p/GID@@@dev", "GID@@@dev"));
    assert_eq!((message.qos, message.expiry_s), (QoS::ExactlyOnce, Some(5)));
    assert_eq!(users(&message), [("k", "v")]);
    let real = from_java(&[("mqttRealTopic", "seen/as")]);
    let outcome = downlink::map(&real, &rule, &context("n", Layout::Apsara), 1_000).unwrap();
    let Outcome::Deliver(mapped) = outcome else { panic!("{outcome:?}") };
    assert_eq!(mapped.message().topic, "seen/as");
}
