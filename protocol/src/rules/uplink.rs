//! Uplink rules: MQTT → RocketMQ.

use super::template::{Direction, Template, Variable};
use super::{RuleError, rocketmq_name, tokens};
use crate::topic;

const SHAPE: &str = "<filter> <TOPIC> [tag=T] [key=T] [order=T] [prop.NAME=T]…";

/// What is published under a filter goes to a RocketMQ topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkRule {
    /// MQTT topic filter.
    pub filter: String,
    /// RocketMQ topic.
    pub topic: Template,
    /// RocketMQ tag.
    pub tag: Option<Template>,
    /// RocketMQ key.
    pub key: Option<Template>,
    /// Ordering key: messages of one value stay in order. `%c` unless given.
    pub order: Template,
    /// Further user properties of the RocketMQ message.
    pub properties: Vec<(String, Template)>,
    /// Canonical text, which parses to this rule.
    pub text: String,
}

impl UplinkRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// With the first thing that is wrong and what is allowed there.
    pub fn parse(text: &str) -> Result<UplinkRule, RuleError> {
        let tokens = tokens::split(text)?;
        let [filter, topic, settings @ ..] = tokens.as_slice() else {
            return Err(RuleError::new(
                "the rule lacks its filter or its RocketMQ topic",
                SHAPE,
            ));
        };
        check_filter(filter)?;
        let depth = (!filter.ends_with('#')).then(|| filter.split('/').count());
        let template = |name: &str, text: &str| {
            parse_template(text, depth).map_err(|error| error.within(name))
        };
        let mut rule = UplinkRule {
            filter: filter.clone(),
            topic: template("RocketMQ topic", topic)?,
            tag: None,
            key: None,
            order: Template::variable(Variable::ClientId),
            properties: Vec::new(),
            text: String::new(),
        };
        check_topic(&rule.topic)?;
        let mut order = None;
        for setting in settings {
            match setting.split_once('=') {
                Some(("tag", value)) => {
                    tokens::set_once(&mut rule.tag, "tag", check_tag(template("tag", value)?)?)?
                }
                Some(("key", value)) => {
                    tokens::set_once(&mut rule.key, "key", template("key", value)?)?
                }
                Some(("order", value)) => {
                    tokens::set_once(&mut order, "order", template("order", value)?)?
                }
                Some((name, value)) if name.starts_with("prop.") => {
                    let property = &name["prop.".len()..];
                    rocketmq_name::validate_property(property)?;
                    if rule.properties.iter().any(|(given, _)| given == property) {
                        return Err(RuleError::new(
                            format!("{name}= is given twice"),
                            "each property once",
                        ));
                    }
                    rule.properties
                        .push((property.to_owned(), template(name, value)?));
                }
                _ => {
                    return Err(RuleError::new(
                        format!("unknown setting \"{setting}\""),
                        SHAPE,
                    ));
                }
            }
        }
        rule.order = order.unwrap_or(rule.order);
        rule.text = rule.canonical();
        Ok(rule)
    }

    pub(super) fn canonical(&self) -> String {
        let mut line = String::new();
        tokens::push(&mut line, &self.filter);
        tokens::push(&mut line, &self.topic.to_string());
        let default_order = Template::variable(Variable::ClientId);
        let order = Some(&self.order).filter(|order| **order != default_order);
        for (name, template) in [
            ("tag", self.tag.as_ref()),
            ("key", self.key.as_ref()),
            ("order", order),
        ] {
            if let Some(template) = template {
                tokens::push(&mut line, &format!("{name}={template}"));
            }
        }
        for (name, template) in &self.properties {
            tokens::push(&mut line, &format!("prop.{name}={template}"));
        }
        line
    }
}

pub(super) fn check_filter(filter: &str) -> Result<(), RuleError> {
    const ALLOWED: &str = "an MQTT topic filter, such as sensors/+/telemetry or sensors/#";
    topic::validate_filter(filter)
        .map_err(|error| RuleError::new(format!("filter \"{filter}\" {error}"), ALLOWED))?;
    let first = filter.split('/').next().unwrap_or_default();
    match first {
        "$share" => Err(RuleError::new(
            format!("filter \"{filter}\" is a shared subscription"),
            ALLOWED,
        )),
        "$SYS" => Err(RuleError::new(
            format!(
                "filter \"{filter}\" matches nothing: Mosquitto does not show plugins what it publishes under $SYS"
            ),
            ALLOWED,
        )),
        _ => Ok(()),
    }
}

/// `depth` is how many levels the filter's topics have, when that is fixed.
fn parse_template(text: &str, depth: Option<usize>) -> Result<Template, RuleError> {
    let template = Template::parse(text, Direction::Uplink)?;
    for variable in template.variables() {
        if let (Variable::Level(level), Some(depth)) = (variable, depth)
            && usize::from(*level) > depth
        {
            let problem =
                format!("{variable} never has a value: topics of the filter have {depth} levels");
            return Err(RuleError::new(problem, format!("%1 to %{depth}")));
        }
    }
    Ok(template)
}

fn check_topic(topic: &Template) -> Result<(), RuleError> {
    match topic.as_literal() {
        Some(name) => rocketmq_name::validate_topic(name),
        None => topic
            .literals()
            .try_for_each(rocketmq_name::validate_topic_part),
    }
}

/// A tag with a bar could not be selected by any tag expression.
fn check_tag(tag: Template) -> Result<Template, RuleError> {
    let bad = tag.literals().find(|text| text.contains(['|', '*']));
    match bad {
        Some(text) => Err(RuleError::new(
            format!("tag \"{text}\" has a | or *"),
            "a tag without | and *",
        )),
        None => Ok(tag),
    }
}
