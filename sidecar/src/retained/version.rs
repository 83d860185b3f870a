//! Versions of retained messages, and how a message of RocketMQ tells its own.

use std::borrow::Cow;
use std::sync::Arc;

use protocol::message::Identity;
use rocketmq::Incoming;

use crate::mapping::{names, unescape};

/// Larger is newer: by time, then by node, then by the place in the node's log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(super) at_ms: u64,
    pub(super) node: Arc<str>,
    pub(super) epoch: u64,
    pub(super) position: u64,
}

impl Version {
    pub(super) fn is_of(&self, identity: &Identity<'_>) -> bool {
        *self.node == *identity.node
            && self.epoch == identity.epoch
            && self.position == identity.position
    }
}

/// What a retained message of the cluster's topic tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept<'a> {
    pub(super) topic: Cow<'a, str>,
    pub(super) identity: Identity<'a>,
    pub(super) at_ms: u64,
    pub(super) is_deleted: bool,
    /// When RocketMQ stored this copy of it.
    pub(super) stored_ms: u64,
}

impl<'a> Kept<'a> {
    /// Nothing for a message that is not retained, or that no node has put there.
    pub(crate) fn of(incoming: &'a Incoming) -> Option<Kept<'a>> {
        let value = |wanted: &str| {
            let mut properties = incoming.properties.iter();
            properties
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
        };
        if value(names::RETAIN) != Some("1") {
            return None;
        }
        let at = value(names::RETAINED_AT).or_else(|| value(names::RECEIVED_AT))?;
        Some(Kept {
            topic: unescape(value(names::TOPIC)?),
            identity: Identity::parse(value(names::ID)?).ok()?,
            at_ms: at.parse().ok()?,
            is_deleted: value(names::EMPTY) == Some("1"),
            stored_ms: u64::try_from(incoming.stored_at_ms).unwrap_or(0),
        })
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn version(&self, node: Arc<str>) -> Version {
        Version {
            at_ms: self.at_ms,
            node,
            epoch: self.identity.epoch,
            position: self.identity.position,
        }
    }

    /// Whether this node published it.
    pub(crate) fn is_of_node(&self, node_id: &str) -> bool {
        self.identity.node == node_id
    }
}
