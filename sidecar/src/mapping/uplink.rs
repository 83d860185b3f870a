//! Device → RocketMQ.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use protocol::config::Layout;
use protocol::message::{Identity, Message, Property};
use protocol::rules::{Lookup, Template, UplinkRule, Variable};
use rocketmq::{Outgoing, Properties};

use super::escape::escape;
use super::{MapError, PROPERTIES_BYTES_MAX, apsara, names};

/// What RocketMQ gets instead of an empty body, which it refuses.
const EMPTY_BODY: &[u8] = &[0];
/// What the properties of a message from a device take, but for its topic and names, and some more.
const PROPERTIES_BYTES: usize = 256;

/// What a message becomes.
pub(crate) struct Mapped<'a> {
    /// The RocketMQ topic.
    pub(crate) topic: Cow<'a, str>,
    /// The ordering key: messages with the same one stay in order.
    pub(crate) order: Cow<'a, str>,
    /// The message.
    pub(crate) message: Outgoing,
}

/// What the rule makes of the message.
///
/// # Errors
/// When the rule's topic can't be made out of this message, or when its properties don't fit. Tag, key and further properties
/// whose template lacks something are left out; an ordering key that lacks something is the client id.
pub(crate) fn map<'a>(
    values: &'a Values<'a>,
    rule: &'a UplinkRule,
    layout: Layout,
    identity: &Identity<'_>,
) -> Result<Mapped<'a>, MapError> {
    let message = values.0;
    let topic = rocketmq_topic(rule, values)?;
    let order = rule.order.fill_in(values);
    let order = order.unwrap_or(Cow::Borrowed(message.client_id));
    let optional = |template: &Option<Template>| {
        let text = template.as_ref()?.fill_in(values).ok()?;
        (!text.is_empty()).then(|| escape(&text).into_owned())
    };
    let default_tag = (layout == Layout::Apsara).then(|| names::apsara::TAG.to_owned());
    let tag = optional(&rule.tag).or(default_tag);
    let keys = optional(&rule.key);
    let properties = properties(values, rule, layout, identity)?;
    let body = if message.payload.is_empty() {
        Bytes::from_static(EMPTY_BODY)
    } else {
        Bytes::copy_from_slice(message.payload)
    };
    Ok(Mapped {
        topic,
        order,
        message: Outgoing {
            body,
            tag,
            keys,
            properties,
        },
    })
}

fn rocketmq_topic<'a>(
    rule: &'a UplinkRule,
    values: &'a Values<'a>,
) -> Result<Cow<'a, str>, MapError> {
    let topic = rule
        .topic
        .fill_in(values)
        .map_err(|missing| MapError::Template {
            what: "topic",
            missing: missing.to_string(),
        })?;
    match protocol::rules::rocketmq_name::validate_topic(&topic) {
        Ok(()) => Ok(topic),
        Err(problem) => Err(MapError::RocketmqTopic {
            topic: super::shorten(&topic),
            problem: problem.problem,
        }),
    }
}

fn properties(
    values: &Values<'_>,
    rule: &UplinkRule,
    layout: Layout,
    identity: &Identity<'_>,
) -> Result<Properties, MapError> {
    let message = values.0;
    let username = message.username.map_or(0, str::len);
    let names = message.topic.len() + message.client_id.len() + username;
    let mut out = Properties::with_capacity(PROPERTIES_BYTES + names);
    about_the_publish(message, identity, &mut out);
    let singles = mqtt5(message, &mut out);
    if layout == Layout::Apsara {
        apsara::add(message, &mut out);
    }
    for (name, template) in &rule.properties {
        if let Ok(text) = template.fill_in(values)
            && !text.is_empty()
        {
            out.remove(name);
            out.push(name, &escape(&text));
        }
    }
    let (bytes, optional) = (out.as_str().len(), singles.as_str().len());
    if bytes + optional <= PROPERTIES_BYTES_MAX {
        for (name, value) in singles.iter() {
            if !out.contains(name) {
                out.push(name, value);
            }
        }
    } else if bytes > PROPERTIES_BYTES_MAX || !out.contains(names::USER_PROPERTIES) {
        return Err(MapError::PropertiesTooLarge {
            bytes: bytes + optional,
            max: PROPERTIES_BYTES_MAX,
        });
    }
    // Else: all user properties are in the JSON array, and the single copies are what doesn't fit.
    Ok(out)
}

fn about_the_publish(message: &Message<'_>, identity: &Identity<'_>, out: &mut Properties) {
    out.push(names::TOPIC, &escape(message.topic));
    out.push(names::CLIENT_ID, &escape(message.client_id));
    if let Some(username) = message.username {
        out.push(names::USERNAME, &escape(username));
    }
    out.push_display(names::QOS, message.qos.as_u8());
    out.push(names::RETAIN, if message.retain { "1" } else { "0" });
    out.push_display(names::RECEIVED_AT, message.received_at_ms);
    // A node's id has nothing that would have to be escaped.
    out.push_display(names::ID, identity);
    if message.mqtt_version != 0 {
        out.push_display(names::VERSION, message.mqtt_version);
    }
    if message.will {
        out.push(names::WILL, "1");
    }
    if message.payload.is_empty() {
        out.push(names::EMPTY, "1");
    }
    if let Some(seconds) = message.expiry_s {
        out.push_display(names::EXPIRY, seconds);
    }
}

/// Adds the MQTT 5 properties. Returns the single user properties (`mqtt_user_…`), which may be left out if the array is there.
fn mqtt5(message: &Message<'_>, out: &mut Properties) -> Properties {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for property in message.properties.iter() {
        match property {
            Property::PayloadFormat(format) => out.push_display(names::PAYLOAD_FORMAT, format),
            Property::ContentType(text) => out.push(names::CONTENT_TYPE, &escape(text)),
            Property::ResponseTopic(text) => out.push(names::RESPONSE_TOPIC, &escape(text)),
            Property::CorrelationData(data) => {
                out.push(names::CORRELATION_DATA, &escape(&BASE64.encode(data)));
            }
            Property::User(key, value) => pairs.push((key, value)),
        }
    }
    let mut singles = Properties::default();
    let mut is_exact = pairs.len() <= 1;
    for (key, value) in &pairs {
        let name = format!("{}{}", names::USER_PREFIX, escape(key));
        // A user property called "properties" would be taken for the array.
        if name == names::USER_PROPERTIES {
            is_exact = false;
        } else if !singles.contains(&name) {
            singles.push(&name, &escape(value));
        }
    }
    if !is_exact && let Ok(json) = serde_json::to_string(&pairs) {
        // JSON has escapes of its own for control characters, so no separator of RocketMQ's can be in it.
        out.push(names::USER_PROPERTIES, &json);
    }
    singles
}

/// A message, as that which tells what `%…` stands for on the way up.
pub(crate) struct Values<'a>(pub(crate) &'a Message<'a>);

impl Lookup for Values<'_> {
    fn value(&self, variable: &Variable) -> Option<std::borrow::Cow<'_, str>> {
        let text = match variable {
            Variable::ClientId => self.0.client_id,
            Variable::Username => self.0.username?,
            Variable::Topic => self.0.topic,
            Variable::Level(n) => self
                .0
                .topic
                .split('/')
                .nth(usize::from(*n).checked_sub(1)?)?,
            Variable::Property(name) => {
                self.0
                    .properties
                    .iter()
                    .find_map(|property| match property {
                        Property::User(key, value) if key == name => Some(value),
                        _ => None,
                    })?
            }
            Variable::Bucket if self.0.retain => protocol::cluster::RETAINED_TAG,
            Variable::Bucket => return Some(protocol::cluster::bucket_of(self.0.topic).into()),
            Variable::Key | Variable::Tag => return None,
        };
        Some(text.into())
    }
}
