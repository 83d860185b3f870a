//! Rules, properties and their limits; `round_trip` has what holds for any message.

use bytes::Bytes;
use protocol::config::Layout;
use protocol::message::{Identity, Message, Property, PropertyBuffer, QoS};
use protocol::rules::{DownlinkRule, UplinkRule};
use rocketmq::{Incoming, Outgoing, Queue};

use super::downlink::{Context, Mapped, Outcome};
use super::{MapError, downlink, uplink};

mod round_trip;

const IDENTITY: Identity<'static> = Identity {
    node: "edge-1",
    epoch: 0x1f,
    position: 4096,
};

fn up_rule(text: &str) -> UplinkRule {
    UplinkRule::parse(text).unwrap()
}

fn down_rule(text: &str) -> DownlinkRule {
    DownlinkRule::parse(text).unwrap()
}

fn context(node_id: &str, layout: Layout) -> Context {
    Context {
        node_id: node_id.into(),
        layout,
    }
}

/// What a rule makes of a message: RocketMQ topic, ordering key, message.
fn up(
    message: &Message<'_>,
    rule: &UplinkRule,
    layout: Layout,
) -> Result<(String, String, Outgoing), MapError> {
    let values = uplink::Values(message);
    let mapped = uplink::map(&values, rule, layout, &IDENTITY)?;
    Ok((
        mapped.topic.into_owned(),
        mapped.order.into_owned(),
        mapped.message,
    ))
}

/// What a consumer gets of what a producer sent.
fn through(topic: &str, sent: Outgoing) -> Incoming {
    assert!(sent.properties.is_legal());
    for (name, value) in sent.properties.iter() {
        assert!(
            !name.is_empty() && !value.is_empty(),
            "RocketMQ drops an empty {name}"
        );
    }
    Incoming {
        queue: Queue {
            topic: topic.into(),
            broker: "b".into(),
            id: 0,
        },
        message_id: "id".into(),
        body: sent.body,
        tag: sent.tag,
        keys: sent.keys,
        properties: sent.properties.to_pairs(),
        born_at_ms: 1_000,
        stored_at_ms: 1_000,
        ..Incoming::default()
    }
}

fn from_java(properties: &[(&str, &str)]) -> Incoming {
    let sent = Outgoing {
        body: Bytes::from_static(b"on"),
        keys: Some("device-7 order-1".into()),
        tag: Some("T".into()),
        properties: properties.iter().copied().collect(),
    };
    through("COMMANDS", sent)
}

fn deliver(incoming: &Incoming, rule: &str, now_ms: u64) -> Mapped {
    match downlink::map(
        incoming,
        &down_rule(rule),
        &context("edge-2", Layout::Native),
        now_ms,
    ) {
        Ok(Outcome::Deliver(mapped)) => *mapped,
        other => panic!("not delivered: {other:?}"),
    }
}

fn users<'a>(message: &Message<'a>) -> Vec<(&'a str, &'a str)> {
    message
        .properties
        .iter()
        .filter_map(|p| {
            if let Property::User(k, v) = p {
                Some((k, v))
            } else {
                None
            }
        })
        .collect()
}

fn encode(mapped: &Mapped) -> Vec<u8> {
    let mut bytes = vec![0; mapped.message().encoded_len()];
    mapped.message().encode_into(&mut bytes);
    bytes
}

#[test]
fn a_rule_makes_tag_key_and_properties() {
    let message = Message {
        topic: "sensors/s1/telemetry",
        payload: b"21",
        client_id: "dev 1",
        ..Message::default()
    };
    let rule =
        up_rule("sensors/+/telemetry TELEMETRY tag=%2 key=%c order=%1 prop.site=%1-x prop.user=%u");
    let (topic, order, sent) = up(&message, &rule, Layout::Native).unwrap();
    assert_eq!((topic.as_str(), order.as_str()), ("TELEMETRY", "sensors"));
    assert_eq!(
        (sent.tag.as_deref(), sent.keys.as_deref()),
        (Some("s1"), Some("dev 1"))
    );
    assert_eq!(sent.properties.get("site"), Some("sensors-x"));
    assert!(
        !sent.properties.contains("user"),
        "nobody logged in: the property is left out"
    );
    assert_eq!(sent.properties.get("mqtt_id"), Some("edge-1:1f:4096"));
}

#[test]
fn an_impossible_rocketmq_topic_is_a_dead_letter() {
    let message = Message {
        topic: "größe/1",
        payload: b"x",
        client_id: "c",
        ..Message::default()
    };
    let error = up(&message, &up_rule("# %1"), Layout::Native).unwrap_err();
    assert!(matches!(error, MapError::RocketmqTopic { .. }), "{error}");
    let error = up(&message, &up_rule("# T%3"), Layout::Native).unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic of the rule can't be made: the message has no %3"
    );
}

#[test]
fn properties_that_rocketmq_cannot_hold_are_a_dead_letter_and_copies_give_way_first() {
    let half = "v".repeat(10_000);
    let mut buffer = PropertyBuffer::new();
    buffer.push(&Property::User("a", &half)).unwrap();
    buffer.push(&Property::User("b", &half)).unwrap();
    let message = Message {
        topic: "t",
        payload: b"x",
        client_id: "c",
        properties: buffer.as_properties(),
        ..Message::default()
    };
    let (_, _, sent) = up(&message, &up_rule("# T"), Layout::Native).unwrap();
    assert!(sent.properties.contains("mqtt_user_properties"));
    assert!(
        !sent.properties.contains("mqtt_user_a"),
        "20 kB once fit, twice they don't"
    );
    let mut buffer = PropertyBuffer::new();
    buffer
        .push(&Property::ContentType(&"v".repeat(40_000)))
        .unwrap();
    let message = Message {
        properties: buffer.as_properties(),
        ..message
    };
    let error = up(&message, &up_rule("# T"), Layout::Native).unwrap_err();
    assert!(
        matches!(error, MapError::PropertiesTooLarge { .. }),
        "{error}"
    );
}

#[test]
fn a_java_producers_properties_override_the_rule() {
    let incoming = from_java(&[
        ("mqtt_qos", "2"),
        ("mqtt_retain", "true"),
        ("mqtt_expiry", "9"),
        ("client_id", "dev-1"),
        ("x", "50%25"),
    ]);
    let mapped = deliver(
        &incoming,
        "COMMANDS devices/%k/%g/%{x} qos=0 retain=false expiry=60s",
        1_000,
    );
    let message = mapped.message();
    assert_eq!(message.topic, "devices/device-7/T/50%25");
    assert_eq!(
        (message.qos, message.retain, message.expiry_s),
        (QoS::ExactlyOnce, true, Some(9))
    );
    assert_eq!((message.client_id, message.payload), ("dev-1", &b"on"[..]));
    assert_eq!(
        users(&message),
        [("x", "50%25")],
        "other people's properties pass as they are"
    );
}

#[test]
fn wrong_values_fall_back_to_the_rule_and_are_said() {
    let incoming = from_java(&[
        ("mqtt_qos", "3"),
        ("mqtt_retain", "maybe"),
        ("mqtt_expiry", "-1"),
        ("mqtt_payload_format", "7"),
        ("mqtt_correlation_data", "%"),
        ("mqtt_response_topic", "a/#"),
        ("mqtt_user_properties", "{}"),
        ("mqtt_user_a", "1"),
        ("bad", "a\u{7}"),
    ]);
    let mapped = deliver(&incoming, "COMMANDS t qos=2 retain=true expiry=60s", 1_000);
    let message = mapped.message();
    assert_eq!(
        (message.qos, message.retain, message.expiry_s),
        (QoS::ExactlyOnce, true, Some(60))
    );
    assert_eq!(users(&message), [("a", "1")]);
    assert_eq!(mapped.warnings.len(), 8, "{:?}", mapped.warnings);
}

#[test]
fn expiry_counts_from_the_publishing() {
    let incoming = from_java(&[("mqtt_expiry", "10")]);
    assert_eq!(
        deliver(&incoming, "COMMANDS t", 1_000).message().expiry_s,
        Some(10)
    );
    assert_eq!(
        deliver(&incoming, "COMMANDS t", 5_500).message().expiry_s,
        Some(6)
    );
    assert_eq!(
        deliver(&incoming, "COMMANDS t", 500).message().expiry_s,
        Some(10),
        "a clock behind the producer's"
    );
    let expired = downlink::map(
        &incoming,
        &down_rule("COMMANDS t"),
        &context("n", Layout::Native),
        11_000,
    )
    .unwrap();
    assert!(matches!(expired, Outcome::Expired));
    let from_mqtt = from_java(&[("mqtt_expiry", "10"), ("mqtt_received_at", "8000")]);
    assert_eq!(
        deliver(&from_mqtt, "COMMANDS t", 11_000).message().expiry_s,
        Some(7)
    );
    assert_eq!(
        deliver(&from_java(&[("mqtt_expiry", "0")]), "COMMANDS t", 99_000)
            .message()
            .expiry_s,
        None
    );
}

#[test]
fn a_topic_that_cannot_be_published_on_is_a_dead_letter() {
    for x in ["+", "a/#", "", "\u{7}", "\u{FFFF}"] {
        let mut incoming = from_java(&[]);
        incoming.properties = vec![("x".into(), x.into())];
        let error = downlink::map(
            &incoming,
            &down_rule("COMMANDS %{x}"),
            &context("n", Layout::Native),
            0,
        )
        .unwrap_err();
        assert!(
            matches!(error, MapError::MqttTopic { .. }),
            "{x:?}: {error}"
        );
    }
    let error = downlink::map(
        &from_java(&[]),
        &down_rule("COMMANDS a/%{x}"),
        &context("n", Layout::Native),
        0,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic of the rule can't be made: the message has no %{x}"
    );
}

#[test]
fn a_message_for_one_client_never_becomes_one_for_all() {
    let error = downlink::map(
        &from_java(&[]),
        &down_rule("COMMANDS t client=%{to}"),
        &context("n", Layout::Native),
        0,
    )
    .unwrap_err();
    assert!(
        matches!(error, MapError::Template { what: "client", .. }),
        "{error}"
    );
    assert_eq!(
        deliver(&from_java(&[]), "COMMANDS t client=%k", 0)
            .message()
            .client_id,
        "device-7"
    );
}

#[test]
fn an_own_message_on_another_topic_is_delivered() {
    let incoming = from_java(&[("mqtt_id", "edge-2:1:0"), ("mqtt_topic", "a")]);
    assert_eq!(deliver(&incoming, "COMMANDS b", 0).message().topic, "b");
    let own = downlink::map(
        &incoming,
        &down_rule("COMMANDS a"),
        &context("edge-2", Layout::Native),
        0,
    )
    .unwrap();
    assert!(matches!(own, Outcome::Own));
}

#[test]
fn alibabas_names_reach_one_client() {
    let incoming = from_java(&[
        ("mqttSecondTopic", "/p2p/GID@@@dev"),
        ("qoslevel", "2"),
        ("mqtt5UserProperty", r#"[{"key":"k","value":"v"}]"#),
        ("mqtt5MsgExpireInterval", "5"),
        ("mqtt5ContentType", "text/plain"),
        ("cleansessionflag", "false"),
    ]);
    let rule = down_rule("COMMANDS CHAT%{mqttSecondTopic}");
    let outcome = downlink::map(&incoming, &rule, &context("n", Layout::Apsara), 1_000).unwrap();
    let Outcome::Deliver(mapped) = outcome else {
        panic!("{outcome:?}")
    };
    let message = mapped.message();
    assert_eq!(
        (message.topic, message.client_id),
        ("CHAT/p2p/GID@@@dev", "GID@@@dev")
    );
    assert_eq!((message.qos, message.expiry_s), (QoS::ExactlyOnce, Some(5)));
    assert_eq!(users(&message), [("k", "v")]);
    let real = from_java(&[("mqttRealTopic", "seen/as")]);
    let outcome = downlink::map(&real, &rule, &context("n", Layout::Apsara), 1_000).unwrap();
    let Outcome::Deliver(mapped) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(mapped.message().topic, "seen/as");
}
