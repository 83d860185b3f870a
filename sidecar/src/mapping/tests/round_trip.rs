//! What goes up comes down the same, for any message, in both layouts; and what others write into properties never stops it.

use proptest::prelude::*;
use protocol::config::Layout;
use protocol::message::{Message, Property, PropertyBuffer, QoS};

use super::{context, down_rule, encode, from_java, through, up, up_rule};
use crate::mapping::downlink::{self, Outcome};
use crate::mapping::is_mqtt_text;

fn mqtt_text() -> impl Strategy<Value = String> {
    "[ -~¡-ÿぁ-ん\u{1F600}-\u{1F64F}]{0,12}"
        .prop_filter("Mosquitto takes it", |text| is_mqtt_text(text))
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
    let head = (
        topic(),
        prop::collection::vec(any::<u8>(), 0..20),
        0..3u8,
        any::<bool>(),
        mqtt_text(),
        prop::option::of(mqtt_text()),
    );
    let tail = (
        prop::option::of(1..u32::MAX),
        prop::option::of(0..2u8),
        prop::option::of(mqtt_text()),
        prop::option::of(topic()),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
        prop::collection::vec(
            (
                prop_oneof![
                    mqtt_text(),
                    Just("properties".to_owned()),
                    Just("a".to_owned())
                ],
                mqtt_text(),
            ),
            0..4,
        ),
    );
    (head, tail).prop_map(|(head, tail)| {
        let (topic, payload, qos, retain, client, username) = head;
        let (expiry_s, format, content_type, response_topic, correlation, users) = tail;
        Sample {
            topic,
            payload,
            qos,
            retain,
            client,
            username,
            expiry_s,
            format,
            content_type,
            response_topic,
            correlation,
            users,
        }
    })
}

impl Sample {
    fn properties(&self) -> PropertyBuffer {
        let mut buffer = PropertyBuffer::new();
        let mut push = |property: &Property<'_>| buffer.push(property).unwrap();
        self.format
            .iter()
            .for_each(|format| push(&Property::PayloadFormat(*format)));
        self.content_type
            .iter()
            .for_each(|text| push(&Property::ContentType(text)));
        self.response_topic
            .iter()
            .for_each(|text| push(&Property::ResponseTopic(text)));
        self.correlation
            .iter()
            .for_each(|data| push(&Property::CorrelationData(data)));
        self.users
            .iter()
            .for_each(|(key, value)| push(&Property::User(key, value)));
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
        let (topic, order, sent) = up(&message, &up_rule("# T key=%c"), layout).unwrap();
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
