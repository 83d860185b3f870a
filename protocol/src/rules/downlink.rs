//! Downlink rules: RocketMQ → MQTT.

use super::template::{Direction, Template};
use super::{RuleError, Tags, rocketmq_name, tokens};
use crate::config::units;
use crate::message::QoS;

const SHAPE: &str =
    "<TOPIC> <mqtt topic> [tags=A||B] [qos=0|1|2] [retain=true|false] [expiry=30s] [client=T]";

/// What stands in a RocketMQ topic is published on an MQTT topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownlinkRule {
    /// RocketMQ topic.
    pub topic: String,
    /// Tags wanted; nothing for all.
    pub tags: Option<Tags>,
    /// MQTT topic.
    pub target: Template,
    /// QoS, unless the message says.
    pub qos: Option<QoS>,
    /// Retain flag, unless the message says.
    pub retain: Option<bool>,
    /// Message expiry in seconds, unless the message says.
    pub expiry_s: Option<u32>,
    /// The one client to deliver to, unless the message says; nothing for delivery by subscription.
    pub client: Option<Template>,
    /// Canonical text, which parses to this rule.
    pub text: String,
}

impl DownlinkRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// With the first thing that is wrong and what is allowed there.
    pub fn parse(text: &str) -> Result<DownlinkRule, RuleError> {
        let tokens = tokens::split(text)?;
        let [topic, target, settings @ ..] = tokens.as_slice() else {
            return Err(RuleError::new(
                "the rule lacks its RocketMQ topic or its MQTT topic",
                SHAPE,
            ));
        };
        rocketmq_name::validate_topic(topic)?;
        let mut rule = DownlinkRule {
            topic: topic.clone(),
            tags: None,
            target: parse_target(target)?,
            qos: None,
            retain: None,
            expiry_s: None,
            client: None,
            text: String::new(),
        };
        let mut tags = None;
        for setting in join_bars(settings) {
            match setting.split_once('=') {
                Some(("tags", value)) => tokens::set_once(&mut tags, "tags", Tags::parse(value)?)?,
                Some(("qos", value)) => tokens::set_once(&mut rule.qos, "qos", parse_qos(value)?)?,
                Some(("retain", value)) => {
                    tokens::set_once(&mut rule.retain, "retain", parse_retain(value)?)?
                }
                Some(("expiry", value)) => {
                    tokens::set_once(&mut rule.expiry_s, "expiry", parse_expiry(value)?)?
                }
                Some(("client", value)) => {
                    let client = Template::parse(value, Direction::Downlink)
                        .map_err(|error| error.within("client"))?;
                    tokens::set_once(&mut rule.client, "client", client)?;
                }
                _ => {
                    return Err(RuleError::new(
                        format!("unknown setting \"{setting}\""),
                        SHAPE,
                    ));
                }
            }
        }
        rule.tags = tags.flatten();
        rule.text = rule.canonical();
        Ok(rule)
    }

    fn canonical(&self) -> String {
        let mut line = String::new();
        tokens::push(&mut line, &self.topic);
        tokens::push(&mut line, &self.target.to_string());
        let settings = [
            self.tags.as_ref().map(|tags| format!("tags={tags}")),
            self.qos.map(|qos| format!("qos={}", qos.as_u8())),
            self.retain.map(|retain| format!("retain={retain}")),
            self.expiry_s.map(|seconds| format!("expiry={seconds}s")),
            self.client
                .as_ref()
                .map(|client| format!("client={client}")),
        ];
        settings
            .iter()
            .flatten()
            .for_each(|setting| tokens::push(&mut line, setting));
        line
    }
}

fn parse_target(text: &str) -> Result<Template, RuleError> {
    const ALLOWED: &str = "an MQTT topic without wildcards, such as devices/%k/commands";
    let target =
        Template::parse(text, Direction::Downlink).map_err(|error| error.within("MQTT topic"))?;
    for literal in target.literals() {
        crate::topic::validate_topic(literal)
            .map_err(|error| RuleError::new(format!("MQTT topic \"{text}\" {error}"), ALLOWED))?;
    }
    Ok(target)
}

/// Puts `tags=A || B`, which the blanks made several tokens of, together again.
fn join_bars(settings: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::with_capacity(settings.len());
    for setting in settings {
        match joined.last_mut() {
            Some(last)
                if last.starts_with("tags=")
                    && (last.ends_with("||") || setting.starts_with("||")) =>
            {
                last.push_str(setting);
            }
            _ => joined.push(setting.clone()),
        }
    }
    joined
}

fn parse_qos(value: &str) -> Result<QoS, RuleError> {
    let qos = match value {
        "0" | "1" | "2" => QoS::from_u8(value.as_bytes()[0] - b'0'),
        _ => None,
    };
    qos.ok_or_else(|| RuleError::new(format!("qos \"{value}\" is none"), "0, 1 or 2"))
}

fn parse_retain(value: &str) -> Result<bool, RuleError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(RuleError::new(
            format!("retain \"{value}\" is neither true nor false"),
            "true or false",
        )),
    }
}

fn parse_expiry(value: &str) -> Result<u32, RuleError> {
    let error = || {
        RuleError::new(
            format!("expiry \"{value}\" is not a number of seconds"),
            "1s to 136 years, in whole seconds: 30s, 5min, 12h, 7d",
        )
    };
    let duration = units::parse_duration(value, Some(units::SECOND)).ok_or_else(error)?;
    match u32::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 && duration.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(error()),
    }
}
