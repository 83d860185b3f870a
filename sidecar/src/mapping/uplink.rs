//! Device → RocketMQ.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use protocol::config::Layout;
use protocol::message::{Identity, Message, Property};
use protocol::rules::{Lookup, Missing, Template, UplinkRule, Variable};
use rocketmq::Outgoing;

use super::escape::escape;
use super::{MapError, PROPERTIES_BYTES_MAX, apsara, names};

/// What RocketMQ gets instead of an empty body, which it refuses.
const EMPTY_BODY: &[u8] = &[0];

/// The RocketMQ topic, the ordering key (messages with the same one stay in order), and the message.
///
/// # Errors
/// When the rule's topic can't be made out of this message, or when its properties don't fit. Tag, key and further properties
/// whose template lacks something are left out; an ordering key that lacks something is the client id.
pub(crate) fn map(
    message: &Message<'_>,
    rule: &UplinkRule,
    layout: Layout,
    identity: &Identity<'_>,
) -> Result<(String, String, Outgoing), MapError> {
    let values = Values(message);
    let topic = rocketmq_topic(rule, &values)?;
    let order = render(&rule.order, &values).unwrap_or_else(|_| message.client_id.to_owned());
    let optional = |template: &Option<Template>| {
        let text = render(template.as_ref()?, &values).ok()?;
        (!text.is_empty()).then(|| escape(&text).into_owned())
    };
    let default_tag = (layout == Layout::Apsara).then(|| names::apsara::TAG.to_owned());
    let tag = optional(&rule.tag).or(default_tag);
    let keys = optional(&rule.key);
    let properties = properties(message, rule, &values, layout, identity)?;
    let body = if message.payload.is_empty() {
        Bytes::from_static(EMPTY_BODY)
    } else {
        Bytes::copy_from_slice(message.payload)
    };
    Ok((
        topic,
        order,
        Outgoing {
            body,
            tag,
            keys,
            properties,
        },
    ))
}

fn rocketmq_topic(rule: &UplinkRule, values: &Values<'_>) -> Result<String, MapError> {
    let topic = render(&rule.topic, values).map_err(|missing| MapError::Template {
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
    message: &Message<'_>,
    rule: &UplinkRule,
    values: &Values<'_>,
    layout: Layout,
    identity: &Identity<'_>,
) -> Result<Vec<(String, String)>, MapError> {
    let mut out = Vec::with_capacity(16);
    about_the_publish(message, identity, &mut out);
    let singles = mqtt5(message, &mut out);
    if layout == Layout::Apsara {
        apsara::add(message, &mut out);
    }
    for (name, template) in &rule.properties {
        if let Ok(text) = render(template, values)
            && !text.is_empty()
        {
            out.retain(|(other, _)| other != name);
            out.push((name.clone(), escape(&text).into_owned()));
        }
    }
    let size = |pairs: &[(String, String)]| {
        pairs
            .iter()
            .map(|(k, v)| k.len() + v.len() + 2)
            .sum::<usize>()
    };
    let (bytes, optional) = (size(&out), size(&singles));
    if bytes + optional <= PROPERTIES_BYTES_MAX {
        let taken: Vec<_> = singles
            .into_iter()
            .filter(|(name, _)| out.iter().all(|(other, _)| other != name))
            .collect();
        out.extend(taken);
    } else if bytes > PROPERTIES_BYTES_MAX
        || !out.iter().any(|(name, _)| name == names::USER_PROPERTIES)
    {
        return Err(MapError::PropertiesTooLarge {
            bytes: bytes + optional,
            max: PROPERTIES_BYTES_MAX,
        });
    }
    // Else: all user properties are in the JSON array, and the single copies are what doesn't fit.
    Ok(out)
}

fn about_the_publish(
    message: &Message<'_>,
    identity: &Identity<'_>,
    out: &mut Vec<(String, String)>,
) {
    let mut put = |name: &str, value: &str| out.push((name.to_owned(), escape(value).into_owned()));
    put(names::TOPIC, message.topic);
    put(names::CLIENT_ID, message.client_id);
    if let Some(username) = message.username {
        put(names::USERNAME, username);
    }
    put(names::QOS, &message.qos.as_u8().to_string());
    put(names::RETAIN, if message.retain { "1" } else { "0" });
    put(names::RECEIVED_AT, &message.received_at_ms.to_string());
    put(names::ID, &identity.to_string());
    if message.mqtt_version != 0 {
        put(names::VERSION, &message.mqtt_version.to_string());
    }
    if message.will {
        put(names::WILL, "1");
    }
    if message.payload.is_empty() {
        put(names::EMPTY, "1");
    }
    if let Some(seconds) = message.expiry_s {
        put(names::EXPIRY, &seconds.to_string());
    }
}

/// Adds the MQTT 5 properties. Returns the single user properties (`mqtt_user_…`), which may be left out if the array is there.
fn mqtt5(message: &Message<'_>, out: &mut Vec<(String, String)>) -> Vec<(String, String)> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for property in message.properties.iter() {
        let (name, value) = match property {
            Property::PayloadFormat(format) => (names::PAYLOAD_FORMAT, format.to_string()),
            Property::ContentType(text) => (names::CONTENT_TYPE, escape(text).into_owned()),
            Property::ResponseTopic(text) => (names::RESPONSE_TOPIC, escape(text).into_owned()),
            Property::CorrelationData(data) => (names::CORRELATION_DATA, correlation(data)),
            Property::User(key, value) => {
                pairs.push((key, value));
                continue;
            }
        };
        out.push((name.to_owned(), value));
    }
    let mut singles: Vec<(String, String)> = Vec::new();
    let mut is_exact = pairs.len() <= 1;
    for (key, value) in &pairs {
        let name = format!("{}{}", names::USER_PREFIX, escape(key));
        // A user property called "properties" would be taken for the array.
        if name == names::USER_PROPERTIES {
            is_exact = false;
        } else if singles.iter().all(|(other, _)| *other != name) {
            singles.push((name, escape(value).into_owned()));
        }
    }
    if !is_exact && let Ok(json) = serde_json::to_string(&pairs) {
        out.push((names::USER_PROPERTIES.to_owned(), escape_json(json)));
    }
    singles
}

/// JSON has escapes of its own for control characters, so no separator of RocketMQ's can be in it.
fn escape_json(json: String) -> String {
    debug_assert!(!json.contains(['\u{1}', '\u{2}']));
    json
}

fn correlation(data: &[u8]) -> String {
    escape(&BASE64.encode(data)).into_owned()
}

fn render(template: &Template, values: &Values<'_>) -> Result<String, Missing> {
    let mut out = String::new();
    template.render(values, &mut out)?;
    Ok(out)
}

/// What `%…` stands for on the way up.
struct Values<'a>(&'a Message<'a>);

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
            Variable::Key | Variable::Tag => return None,
        };
        Some(text.into())
    }
}
