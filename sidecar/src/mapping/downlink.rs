//! RocketMQ → device.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use protocol::config::Layout;
use protocol::message::{
    Audience, Identity, Message, Properties, Property, PropertyBuffer, QoS, RuleIds, Selected,
};
use protocol::rules::{DownlinkRule, Lookup, Template, Variable};
use rocketmq::Incoming;

use super::escape::unescape;
use super::facts::Facts;
use super::{MapError, is_mqtt_text, names, shorten};

/// What every message of this node is mapped with.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// This node.
    pub(crate) node_id: String,
    /// Which property names are understood beside our own.
    pub(crate) layout: Layout,
}

/// What becomes of a message from RocketMQ.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// To be injected.
    Deliver(Box<Mapped>),
    /// This node published it on this very topic: its subscribers have it already.
    Own,
    /// Its expiry has passed.
    Expired,
}

/// An MQTT message to inject.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    topic: String,
    client: String,
    qos: QoS,
    retain: bool,
    expiry_s: Option<u32>,
    received_at_ms: u64,
    properties: PropertyBuffer,
    payload: Bytes,
    /// Property values that could not be used, in words. The rule's defaults stand in for them.
    pub(crate) warnings: Vec<String>,
}

impl Mapped {
    /// For this client alone, also without a subscription.
    pub(crate) fn for_client(mut self, client: &str) -> Mapped {
        client.clone_into(&mut self.client);
        self.retain = false;
        self
    }

    /// The frame by which one member of a shared subscription (`<group>/<filter>`) gets it.
    pub(crate) fn for_group(&self, key: &str) -> Vec<u8> {
        let selected = Selected {
            audience: Audience::Group(key),
            message: self.message(),
        };
        let mut frame = vec![0; selected.encoded_len()];
        selected.encode_into(&mut frame);
        frame
    }

    /// To be delivered, and not kept.
    pub(crate) fn do_not_retain(&mut self) {
        self.retain = false;
    }

    /// The message for the hand-off log.
    pub(crate) fn message(&self) -> Message<'_> {
        Message {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            will: false,
            mqtt_version: 0,
            client_id: &self.client,
            username: None,
            received_at_ms: self.received_at_ms,
            expiry_s: self.expiry_s,
            properties: if self.properties.as_properties().is_empty() {
                Properties::EMPTY
            } else {
                self.properties.as_properties()
            },
            injected: None,
            rules: RuleIds::EMPTY,
        }
    }
}

/// Maps a message by a rule that matches it. `now_ms` decides what has expired.
///
/// # Errors
/// When the rule's MQTT topic or client can't be made out of this message. Wrong values in properties are never an error.
pub(crate) fn map(
    incoming: &Incoming,
    rule: &DownlinkRule,
    context: &Context,
    now_ms: u64,
) -> Result<Outcome, MapError> {
    let facts = Facts::read(&incoming.properties, context.layout);
    let values = Values { incoming };
    let topic = match facts.real_topic {
        Some(topic) => topic.to_owned(),
        None => render(&rule.target, &values, "topic")?,
    };
    protocol::topic::validate_topic(&topic)
        .map_err(|problem| problem.to_string())
        .and_then(|()| {
            if is_mqtt_text(&topic) {
                Ok(())
            } else {
                Err("has a character that Mosquitto refuses".to_owned())
            }
        })
        .map_err(|problem| MapError::MqttTopic {
            topic: shorten(&topic),
            problem,
        })?;
    let client = client(&facts, rule, &values)?;
    if client.is_empty() && is_own(&facts, &topic, &context.node_id) {
        return Ok(Outcome::Own);
    }
    let mut mapped = Mapped {
        topic,
        client,
        ..Mapped::default()
    };
    mapped.qos = mapped
        .choose(facts.qos.as_deref(), names::QOS, parse_qos)
        .or(rule.qos)
        .unwrap_or(QoS::AtLeastOnce);
    mapped.retain = mapped
        .choose(facts.retain.as_deref(), names::RETAIN, parse_flag)
        .or(rule.retain)
        .unwrap_or(false);
    mapped.received_at_ms = published_at(&facts, incoming, &mut mapped);
    let expiry = mapped
        .choose(facts.expiry.as_deref(), names::EXPIRY, |text| {
            text.trim().parse().ok()
        })
        .or(rule.expiry_s);
    match remaining(expiry, mapped.received_at_ms, now_ms) {
        Some(left) => mapped.expiry_s = left,
        None => return Ok(Outcome::Expired),
    }
    let is_empty = mapped
        .choose(facts.empty.as_deref(), names::EMPTY, parse_flag)
        .unwrap_or(false);
    mapped.payload = if is_empty {
        Bytes::new()
    } else {
        incoming.body.clone()
    };
    mapped.push_mqtt5(&facts);
    mapped.push_user_properties(&facts);
    Ok(Outcome::Deliver(Box::new(mapped)))
}

fn client(facts: &Facts<'_>, rule: &DownlinkRule, values: &Values<'_>) -> Result<String, MapError> {
    if let Some(client) = &facts.target {
        return Ok(client.clone().into_owned());
    }
    // Without the one client the message would go to everyone: that is never a fallback.
    rule.client.as_ref().map_or(Ok(String::new()), |template| {
        match render(template, values, "client")? {
            empty if empty.is_empty() => Err(MapError::Template {
                what: "client",
                missing: "it is empty".to_owned(),
            }),
            client => Ok(client),
        }
    })
}

fn is_own(facts: &Facts<'_>, topic: &str, node_id: &str) -> bool {
    let is_ours = facts
        .id
        .as_deref()
        .and_then(|id| Identity::parse(id).ok())
        .is_some_and(|id| id.node == node_id);
    is_ours && facts.topic.as_deref() == Some(topic)
}

/// When the message came into the world: at a Mosquitto, else at its producer.
fn published_at(facts: &Facts<'_>, incoming: &Incoming, mapped: &mut Mapped) -> u64 {
    let received = mapped.choose(facts.received_at.as_deref(), names::RECEIVED_AT, |text| {
        text.trim().parse().ok()
    });
    let born = [incoming.born_at_ms, incoming.stored_at_ms]
        .into_iter()
        .find(|ms| *ms > 0)
        .unwrap_or(0);
    received.unwrap_or(u64::try_from(born).unwrap_or(0))
}

/// The expiry that is left; `None` when nothing is. An expiry of 0 means none, as in Mosquitto. A clock that is ahead of ours
/// takes nothing off.
fn remaining(expiry_s: Option<u32>, published_at_ms: u64, now_ms: u64) -> Option<Option<u32>> {
    let Some(expiry_s) = expiry_s.filter(|seconds| *seconds > 0) else {
        return Some(None);
    };
    let elapsed_ms = if published_at_ms == 0 {
        0
    } else {
        now_ms.saturating_sub(published_at_ms)
    };
    let left_ms = (u64::from(expiry_s) * 1000)
        .checked_sub(elapsed_ms)
        .filter(|left| *left > 0)?;
    Some(u32::try_from(left_ms.div_ceil(1000)).ok())
}

fn parse_qos(text: &str) -> Option<QoS> {
    QoS::from_u8(text.trim().parse().ok()?)
}

fn parse_flag(text: &str) -> Option<bool> {
    match text.trim() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

impl Mapped {
    /// The value, or a warning when there is one that can't be read.
    fn choose<T>(
        &mut self,
        text: Option<&str>,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = text?;
        let value = parse(text);
        if value.is_none() {
            self.warn(name, text);
        }
        value
    }

    fn warn(&mut self, name: &str, value: &str) {
        self.warnings.push(format!(
            "property {}={:?} can't be used",
            shorten(name),
            shorten(value)
        ));
    }

    fn push_mqtt5(&mut self, facts: &Facts<'_>) {
        let format = self.choose(
            facts.payload_format.as_deref(),
            names::PAYLOAD_FORMAT,
            |text| match text.trim() {
                "0" => Some(0),
                "1" => Some(1),
                _ => None,
            },
        );
        if let Some(format) = format {
            self.push(&Property::PayloadFormat(format), names::PAYLOAD_FORMAT);
        }
        if let Some(text) = facts.content_type.as_deref() {
            match is_mqtt_text(text) {
                true => self.push(&Property::ContentType(text), names::CONTENT_TYPE),
                false => self.warn(names::CONTENT_TYPE, text),
            }
        }
        if let Some(text) = facts.response_topic.as_deref() {
            match is_mqtt_text(text) && protocol::topic::validate_topic(text).is_ok() {
                true => self.push(&Property::ResponseTopic(text), names::RESPONSE_TOPIC),
                false => self.warn(names::RESPONSE_TOPIC, text),
            }
        }
        let data = self.choose(
            facts.correlation_data.as_deref(),
            names::CORRELATION_DATA,
            |text| BASE64.decode(text.trim()).ok(),
        );
        if let Some(data) = data {
            self.push(&Property::CorrelationData(&data), names::CORRELATION_DATA);
        }
    }

    fn push_user_properties(&mut self, facts: &Facts<'_>) {
        let array = self.choose(facts.user_array, names::USER_PROPERTIES, |json| {
            serde_json::from_str::<Vec<(String, String)>>(json).ok()
        });
        let array = array.or_else(|| {
            // What came up in both layouts has both arrays, and ours is the better known to us.
            let json = facts
                .user_array_apsara
                .filter(|_| facts.user_single.is_empty());
            self.choose(
                json,
                names::apsara::USER_PROPERTIES,
                super::apsara::user_properties,
            )
        });
        match array {
            Some(pairs) => pairs
                .iter()
                .for_each(|(key, value)| self.push_user(key, value)),
            None => facts
                .user_single
                .iter()
                .for_each(|(key, value)| self.push_user(key, value)),
        }
        facts
            .plain
            .iter()
            .for_each(|(key, value)| self.push_user(key, value));
    }

    fn push_user(&mut self, key: &str, value: &str) {
        match is_mqtt_text(key) && is_mqtt_text(value) {
            true => self.push(&Property::User(key, value), key),
            false => self.warn(key, value),
        }
    }

    fn push(&mut self, property: &Property<'_>, name: &str) {
        if let Err(error) = self.properties.push(property) {
            self.warnings
                .push(format!("property {} left out: {error}", shorten(name)));
        }
    }
}

fn render(
    template: &Template,
    values: &Values<'_>,
    what: &'static str,
) -> Result<String, MapError> {
    let mut out = String::new();
    match template.render(values, &mut out) {
        Ok(()) => Ok(out),
        Err(missing) => Err(MapError::Template {
            what,
            missing: missing.to_string(),
        }),
    }
}

/// What `%…` stands for on the way down.
struct Values<'a> {
    incoming: &'a Incoming,
}

impl Lookup for Values<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            // RocketMQ separates several keys by blanks; the first is the one that names the message.
            Variable::Key => self
                .incoming
                .keys
                .as_deref()?
                .split(' ')
                .find(|key| !key.is_empty())
                .map(unescape),
            Variable::Tag => self.incoming.tag.as_deref().map(unescape),
            Variable::Property(wanted) => {
                let (name, value) = self
                    .incoming
                    .properties
                    .iter()
                    .find(|(name, _)| name == wanted)?;
                // Escapes are ours: other people's properties are taken as they are.
                Some(if name.starts_with("mqtt") {
                    unescape(value)
                } else {
                    value.as_str().into()
                })
            }
            _ => None,
        }
    }
}
