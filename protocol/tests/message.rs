//! The bytes of a message: what goes in comes out, and what is no message is told so.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use protocol::message::{
    DecodeError, HEADER_LEN, Identity, Message, Properties, Property, PropertyBuffer, QoS,
    Returned, RuleIds, TooLong, UplinkFrame,
};

/// What a message borrows from.
#[derive(Debug, Clone)]
struct Parts {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
    will: bool,
    mqtt_version: u8,
    client_id: String,
    username: Option<String>,
    received_at_ms: u64,
    expiry_s: Option<u32>,
    properties: PropertyBuffer,
    rules: Vec<u32>,
}

impl Parts {
    fn message(&self) -> Message<'_> {
        Message {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            will: self.will,
            mqtt_version: self.mqtt_version,
            client_id: &self.client_id,
            username: self.username.as_deref(),
            received_at_ms: self.received_at_ms,
            expiry_s: self.expiry_s,
            properties: self.properties.as_properties(),
            injected: None,
            rules: RuleIds::from_slice(&self.rules),
        }
    }
}

#[derive(Debug, Clone)]
enum OwnedProperty {
    PayloadFormat(u8),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    User(String, String),
}

impl OwnedProperty {
    fn borrow(&self) -> Property<'_> {
        match self {
            OwnedProperty::PayloadFormat(format) => Property::PayloadFormat(*format),
            OwnedProperty::ContentType(text) => Property::ContentType(text),
            OwnedProperty::ResponseTopic(text) => Property::ResponseTopic(text),
            OwnedProperty::CorrelationData(data) => Property::CorrelationData(data),
            OwnedProperty::User(name, value) => Property::User(name, value),
        }
    }
}

fn property() -> impl Strategy<Value = OwnedProperty> {
    prop_oneof![
        any::<u8>().prop_map(OwnedProperty::PayloadFormat),
        any::<String>().prop_map(OwnedProperty::ContentType),
        any::<String>().prop_map(OwnedProperty::ResponseTopic),
        vec(any::<u8>(), 0..40).prop_map(OwnedProperty::CorrelationData),
        any::<(String, String)>().prop_map(|(name, value)| OwnedProperty::User(name, value)),
    ]
}

fn properties() -> impl Strategy<Value = PropertyBuffer> {
    vec(property(), 0..6).prop_map(|properties| {
        let mut buffer = PropertyBuffer::new();
        for property in &properties {
            buffer.push(&property.borrow()).unwrap();
        }
        buffer
    })
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

prop_compose! {
    fn parts()(
        (topic, client_id, username) in any::<(String, String, Option<String>)>(),
        payload in vec(any::<u8>(), 0..300),
        qos in qos(),
        (retain, will, mqtt_version) in any::<(bool, bool, u8)>(),
        received_at_ms in any::<u64>(),
        expiry_s in option::of(any::<u32>()),
        properties in properties(),
        rules in vec(any::<u32>(), 0..6),
    ) -> Parts {
        Parts {
            topic, payload, qos, retain, will, mqtt_version, client_id, username, received_at_ms, expiry_s,
            properties, rules,
        }
    }
}

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = vec![0xAA; message.encoded_len()];
    message.encode_into(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn any_message_survives_encoding_and_decoding(parts in parts()) {
        let message = parts.message();
        let bytes = encode(&message);
        let decoded = Message::decode(&bytes).unwrap();
        prop_assert_eq!(decoded, message);
        prop_assert_eq!(encode(&decoded), bytes);
    }

    #[test]
    fn any_bytes_are_a_message_or_a_clean_error(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(encode(&message), bytes);
        }
    }

    /// Random bytes hardly ever get past the header; a changed message does.
    #[test]
    fn a_changed_message_is_a_message_or_a_clean_error(
        parts in parts(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&parts.message());
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(encode(&message), bytes);
        }
    }

    #[test]
    fn a_message_of_another_length_is_refused(parts in parts(), cut in any::<prop::sample::Index>(), more in 1usize..9) {
        let mut bytes = encode(&parts.message());
        let short = &bytes[..cut.index(bytes.len())];
        let is_short = matches!(Message::decode(short), Err(DecodeError::Short { .. }));
        prop_assert!(is_short);
        bytes.resize(bytes.len() + more, 0);
        prop_assert_eq!(Message::decode(&bytes), Err(DecodeError::Trailing { extra: more }));
    }

    #[test]
    fn any_property_bytes_are_properties_or_a_clean_error(bytes in vec(any::<u8>(), 0..60)) {
        if let Ok(properties) = Properties::from_encoded(&bytes) {
            let mut buffer = PropertyBuffer::new();
            for property in properties.iter() {
                buffer.push(&property).unwrap();
            }
            prop_assert_eq!(buffer.as_properties().as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn any_identity_reads_back(node in "[a-zA-Z0-9_-]{1,64}", epoch in any::<u64>(), position in any::<u64>()) {
        let identity = Identity { node: &node, epoch, position };
        let text = identity.to_string();
        prop_assert_eq!(Identity::parse(&text), Ok(identity));
    }

    #[test]
    fn any_text_is_an_identity_or_an_error(text in "[a-f0-9:A-Z+]{0,24}") {
        if let Ok(identity) = Identity::parse(&text) {
            prop_assert_eq!(identity.to_string(), text);
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_documented_layout() {
    let mut properties = PropertyBuffer::new();
    properties.push(&Property::User("k", "v")).unwrap();
    let message = Message {
        topic: "a/b",
        payload: b"hi",
        qos: QoS::ExactlyOnce,
        retain: true,
        will: false,
        mqtt_version: 5,
        client_id: "dev",
        username: Some("u"),
        received_at_ms: 0x0102_0304,
        expiry_s: Some(60),
        properties: properties.as_properties(),
        injected: None,
        rules: RuleIds::from_slice(&[7, 300]),
    };
    let bytes = encode(&message);
    let mut expected = vec![1, 0b11_0110, 5, 0];
    expected.extend([60, 0, 0, 0]);
    expected.extend([4, 3, 2, 1, 0, 0, 0, 0]);
    for len in [3u8, 3, 1, 2, 7, 2] {
        expected.extend([len, 0, 0, 0]);
    }
    assert_eq!(expected.len(), HEADER_LEN);
    expected.extend(b"a/bdevu");
    expected.extend([7, 0, 0, 0, 44, 1, 0, 0]);
    expected.extend([0x26, 0, 1, b'k', 0, 1, b'v']);
    expected.extend(b"hi");
    assert_eq!(bytes, expected);
}

#[test]
fn another_version_is_named() {
    let error = Message::decode(&[2; 100]).unwrap_err();
    assert_eq!(error, DecodeError::Version { found: 2 });
    assert_eq!(error.to_string(), "message format 2, this version reads 1");
}

#[test]
fn an_empty_user_name_is_not_the_same_as_none() {
    let with = Message {
        username: Some(""),
        ..Message::default()
    };
    let bytes = encode(&with);
    assert_eq!(Message::decode(&bytes).unwrap().username, Some(""));
    let bytes = encode(&Message::default());
    assert_eq!(Message::decode(&bytes).unwrap().username, None);
}

#[test]
fn lengths_that_add_up_beyond_4_gib_are_refused() {
    let mut bytes = encode(&Message::default());
    for at in (16..HEADER_LEN).step_by(4) {
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    bytes[1] |= 1 << 4; // A user name, so that its length is looked at.
    assert!(matches!(
        Message::decode(&bytes),
        Err(DecodeError::Short { .. })
    ));
}

#[test]
fn a_property_longer_than_mqtt_allows_is_refused_and_leaves_no_trace() {
    let long = "x".repeat(65_536);
    let mut buffer = PropertyBuffer::new();
    buffer.push(&Property::PayloadFormat(1)).unwrap();
    assert_eq!(
        buffer.push(&Property::User("name", &long)),
        Err(TooLong(65_536))
    );
    assert_eq!(buffer.push(&Property::ContentType(&long[1..])), Ok(()));
    let kept: Vec<_> = buffer.as_properties().iter().collect();
    assert_eq!(
        kept,
        [
            Property::PayloadFormat(1),
            Property::ContentType(&long[1..])
        ]
    );
    buffer.clear();
    assert!(buffer.as_properties().is_empty());
}

fn returned(parts: &(String, u64, u64, u64, Vec<u8>)) -> Returned<'_> {
    Returned {
        reason: &parts.0,
        returned_at_ms: parts.1,
        epoch: parts.2,
        position: parts.3,
        payload: &parts.4,
    }
}

fn encode_frame(frame: &UplinkFrame<'_>) -> Vec<u8> {
    match frame {
        UplinkFrame::Message(message) => encode(message),
        UplinkFrame::Returned(returned) => {
            let mut bytes = vec![0xAA; returned.encoded_len()];
            returned.encode_into(&mut bytes);
            bytes
        }
    }
}

proptest! {
    #[test]
    fn what_is_returned_survives_encoding_and_is_never_taken_for_a_message(
        parts in any::<(String, u64, u64, u64, Vec<u8>)>(),
        message in parts(),
    ) {
        let frame = UplinkFrame::Returned(returned(&parts));
        let bytes = encode_frame(&frame);
        prop_assert_eq!(UplinkFrame::decode(&bytes), Ok(frame));
        prop_assert!(Message::decode(&bytes).is_err());
        let frame = UplinkFrame::Message(message.message());
        let bytes = encode_frame(&frame);
        prop_assert_eq!(UplinkFrame::decode(&bytes), Ok(frame));
    }

    #[test]
    fn a_changed_frame_is_a_frame_or_a_clean_error(
        parts in any::<(String, u64, u64, u64, Vec<u8>)>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode_frame(&UplinkFrame::Returned(returned(&parts)));
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(frame) = UplinkFrame::decode(&bytes) {
            prop_assert_eq!(encode_frame(&frame), bytes);
        }
    }
}

#[test]
fn a_version_that_knows_no_returned_frames_names_the_byte() {
    let parts = ("refused".to_owned(), 1, 2, 3, b"payload".to_vec());
    let bytes = encode_frame(&UplinkFrame::Returned(returned(&parts)));
    let error = Message::decode(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "message header: reserved byte is 1",
        "that is how the version before reads it"
    );
    assert_eq!(bytes.len(), HEADER_LEN + 7 + 7);
}
