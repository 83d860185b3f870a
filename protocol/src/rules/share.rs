//! Share rules: what the nodes of a cluster have in common.

use super::template::Variable;
use super::{DownlinkRule, RuleError, Template, UplinkRule, tokens, uplink};
use crate::cluster::Topics;

/// What is published under a filter on one node reaches the subscribers on all nodes of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRule {
    /// MQTT topic filter.
    pub filter: String,
    /// Canonical text, which parses to this rule.
    pub text: String,
}

impl ShareRule {
    /// Reads a rule: a topic filter alone.
    ///
    /// # Errors
    /// With what is wrong and what is allowed there.
    pub fn parse(text: &str) -> Result<ShareRule, RuleError> {
        let tokens = tokens::split(text)?;
        let [filter] = tokens.as_slice() else {
            return Err(RuleError::new(
                "a share rule is a topic filter and nothing else",
                "<filter>",
            ));
        };
        uplink::check_filter(filter)?;
        let mut text = String::new();
        tokens::push(&mut text, filter);
        Ok(ShareRule {
            filter: filter.clone(),
            text,
        })
    }

    /// How shared messages go into RocketMQ: one rule for all filters, so that a message that several of them match goes once.
    pub fn uplink(topics: &Topics) -> UplinkRule {
        let mut rule = UplinkRule {
            filter: "#".to_owned(),
            topic: Template::literal(&topics.messages),
            tag: Some(Template::variable(Variable::Bucket)),
            key: None,
            order: Template::variable(Variable::ClientId),
            properties: Vec::new(),
            text: String::new(),
        };
        rule.text = rule.canonical();
        rule
    }

    /// How they come out of it.
    pub fn downlink(topics: &Topics) -> DownlinkRule {
        DownlinkRule {
            topic: topics.messages.clone(),
            target: Template::variable(Variable::Property("mqtt_topic".to_owned())),
            tags: None,
            qos: None,
            retain: None,
            expiry_s: None,
            client: None,
            text: format!("{} %{{mqtt_topic}}", topics.messages),
        }
    }
}
