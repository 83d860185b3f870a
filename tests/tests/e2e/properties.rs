//! MQTT 5 properties, both ways. Their names are those of docs/mapping.md.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::mqtt::PublishProperties;
use harness::{BrokerSpec, Mosquitto, Produced, Publication, Topic, Version};
use serde_json::json;

use crate::downlink::from_earliest;

const CORRELATION: &[u8] = &[0, 1, 2, 254, 255, 10];

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn all_properties(user: &[(&str, &str)]) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(1234),
        response_topic: Some("antwort/für/α".to_owned()),
        correlation_data: Some(CORRELATION.into()),
        user_properties: pairs(user),
        content_type: Some("text/plain; charset=utf-8".to_owned()),
        ..PublishProperties::default()
    }
}

#[test]
fn all_properties_go_up() {
    let topic = Topic::shared("PROPS_UP", 1);
    for version in [Mosquitto::V2_0_11, Mosquitto::V2_1_2] {
        let broker = BrokerSpec::new(version)
            .uplink(format!("p/# {} prop.seen=%{{colour}}", topic.name()))
            .start();
        let client = broker.client(Version::V5, "props");
        let body = format!("on {version:?}");
        let user = [("colour", "grün"), ("Größe", "5 µm")];
        client.publish(Publication::new("p/x", body.clone()).properties(all_properties(&user)));
        let stored = topic.reader().wait_for_body(body.as_bytes());
        assert_eq!(stored.property("mqtt_payload_format"), Some("1"));
        assert_eq!(stored.property("mqtt_expiry"), Some("1234"));
        assert_eq!(
            stored.property("mqtt_response_topic"),
            Some("antwort/für/α")
        );
        assert_eq!(
            stored.property("mqtt_correlation_data"),
            Some(STANDARD.encode(CORRELATION).as_str())
        );
        assert_eq!(
            stored.property("mqtt_content_type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(stored.property("mqtt_user_colour"), Some("grün"));
        assert_eq!(stored.property("mqtt_user_Größe"), Some("5 µm"));
        assert_eq!(stored.property("seen"), Some("grün"));
        let exact: serde_json::Value =
            serde_json::from_str(stored.property("mqtt_user_properties").expect("set"))
                .expect("JSON");
        assert_eq!(exact, json!([["colour", "grün"], ["Größe", "5 µm"]]));
    }
}

#[test]
fn all_properties_come_down() {
    let topic = Topic::shared("PROPS_DOWN", 1);
    for version in [Mosquitto::V2_0_11, Mosquitto::V2_1_2] {
        let broker = from_earliest(version)
            .downlink(format!("{} p/x qos=1", topic.name()))
            .start();
        let client = broker.client(Version::V5, "props");
        client.subscribe("p/#", 1);
        let body = format!("on {version:?}");
        topic.produce(&[Produced::new(body.clone())
            .property("mqtt_payload_format", "1")
            .property("mqtt_expiry", "1234")
            .property("mqtt_response_topic", "antwort/für/α")
            .property("mqtt_correlation_data", &STANDARD.encode(CORRELATION))
            .property("mqtt_content_type", "text/plain; charset=utf-8")
            .property("mqtt_user_colour", "grün")
            .property("plain", "any other property")]);
        let message = client
            .receive_until(body.as_bytes())
            .pop()
            .expect("the last");
        let properties = message.properties;
        assert_eq!(properties.payload_format_indicator, Some(1));
        let expiry = properties.message_expiry_interval.expect("set");
        assert!((1100..=1234).contains(&expiry), "{expiry}");
        assert_eq!(properties.response_topic.as_deref(), Some("antwort/für/α"));
        assert_eq!(properties.correlation_data.as_deref(), Some(CORRELATION));
        assert_eq!(
            properties.content_type.as_deref(),
            Some("text/plain; charset=utf-8")
        );
        let mut user = properties.user_properties;
        user.sort();
        assert_eq!(
            user,
            pairs(&[("colour", "grün"), ("plain", "any other property")])
        );
    }
}

#[test]
fn properties_pass_from_node_to_node_as_they_were() {
    let topic = Topic::shared("PROPS_NODES", 1);
    let sender = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("p/# {}", topic.name()))
        .start();
    let receiver = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} %{{mqtt_topic}}", topic.name()))
        .start();
    let listener = receiver.client(Version::V5, "listener");
    listener.subscribe("p/#", 2);
    // A key twice, an empty value, what an escape might trip over: order and all. (Control characters, which RocketMQ separates
    // its properties with, Mosquitto refuses itself.)
    let user = [
        ("a", "1"),
        ("b", ""),
        ("a", "2"),
        ("100%", "%01 %25 %"),
        ("mqtt_topic", "not/this"),
        ("quoted", "\"[\\]\""),
        ("名前", "値"),
    ];
    let properties = all_properties(&user);
    let message = Publication::new("p/x", "hello")
        .qos(2)
        .properties(properties.clone());
    sender.client(Version::V5, "speaker").publish(message);
    let message = listener.receive();
    let got = message.properties.clone();
    let expiry = got.message_expiry_interval.expect("an expiry");
    assert!((1100..=1234).contains(&expiry), "{expiry}");
    assert_eq!(got.user_properties, properties.user_properties);
    assert_eq!(
        got.payload_format_indicator,
        properties.payload_format_indicator
    );
    assert_eq!(got.response_topic, properties.response_topic);
    assert_eq!(got.correlation_data, properties.correlation_data);
    assert_eq!(got.content_type, properties.content_type);
    assert_eq!((message.qos, message.text().as_str()), (2, "hello"));
}
