//! The layout of Alibaba's MQTT service and of Apache rocketmq-mqtt: their property names beside ours.
//!
//! Our own names stand on the message too wherever theirs have no equal (identity, retain, correlation data …), and win when
//! both are there.

use serde::{Deserialize, Serialize};

use protocol::message::{Message, Property};
use rocketmq::Properties;

use super::escape::escape;
use super::names::apsara as names;

#[derive(Serialize, Deserialize)]
struct Pair<'a> {
    key: std::borrow::Cow<'a, str>,
    value: std::borrow::Cow<'a, str>,
}

/// The properties that this layout adds on the way up.
pub(super) fn add(message: &Message<'_>, out: &mut Properties) {
    let mut put = |name: &str, value: &str| out.push(name, &escape(value));
    let second = message
        .topic
        .find('/')
        .map_or("", |at| &message.topic[at..]);
    if !second.is_empty() {
        put(names::SECOND_TOPIC, second);
    }
    put(names::TOPIC, message.topic);
    put(names::ORIGIN_TOPIC, message.topic);
    put(names::CLIENT_ID, message.client_id);
    let qos = message.qos.as_u8().to_string();
    put(names::QOS, &qos);
    put(names::QOS_ALT, &qos);
    put(
        names::EMPTY,
        if message.payload.is_empty() {
            "true"
        } else {
            "false"
        },
    );
    if let Some(seconds) = message.expiry_s {
        put(names::EXPIRY, &seconds.to_string());
    }
    let mut pairs = Vec::new();
    for property in message.properties.iter() {
        match property {
            Property::ContentType(text) => put(names::CONTENT_TYPE, text),
            Property::User(key, value) => pairs.push(Pair {
                key: key.into(),
                value: value.into(),
            }),
            _ => {}
        }
    }
    // Serialising strings can't fail; the fallback keeps the code free of a panic.
    if !pairs.is_empty()
        && let Ok(json) = serde_json::to_string(&pairs)
    {
        out.push(names::USER_PROPERTIES, &json);
    }
}

/// The client that a second topic addresses.
pub(super) fn target(second_topic: &str) -> Option<&str> {
    second_topic
        .strip_prefix(names::P2P)
        .filter(|client| !client.is_empty())
}

/// Alibaba's form of the user properties.
pub(super) fn user_properties(json: &str) -> Option<Vec<(String, String)>> {
    let pairs: Vec<Pair<'_>> = serde_json::from_str(json).ok()?;
    Some(
        pairs
            .into_iter()
            .map(|pair| (pair.key.into_owned(), pair.value.into_owned()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_topic_addresses_one_client() {
        assert_eq!(target("/p2p/GID@@@device"), Some("GID@@@device"));
        assert_eq!(target("/p2p/"), None);
        assert_eq!(target("/room/p2p/x"), None);
    }

    #[test]
    fn user_properties_are_read_in_alibabas_form() {
        let json = r#"[{"key":"mQ","value":"test001"},{"key":"MQ","value":"test002"}]"#;
        let pairs = user_properties(json).unwrap();
        assert_eq!(
            pairs,
            [
                ("mQ".into(), "test001".into()),
                ("MQ".into(), "test002".into())
            ]
        );
        assert_eq!(user_properties("{}"), None);
    }

    #[test]
    fn deeper_levels_become_the_second_topic() {
        let mut out = Properties::default();
        add(
            &Message {
                topic: "chat/room/1",
                client_id: "c",
                ..Message::default()
            },
            &mut out,
        );
        assert_eq!(out.get("mqttSecondTopic"), Some("/room/1"));
        assert_eq!(out.get("IS_EMPTY_MSG"), Some("true"));
        let mut out = Properties::default();
        add(
            &Message {
                topic: "chat",
                payload: b"x",
                ..Message::default()
            },
            &mut out,
        );
        assert!(!out.contains("mqttSecondTopic"));
    }
}
