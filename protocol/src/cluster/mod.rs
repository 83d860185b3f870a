//! What the nodes of a cluster agree on: the names of their RocketMQ topics, and which tag a message has.

mod bucket;
mod native_bridges;

pub use bucket::{
    Buckets, DIRECT_TAG, RETAINED_TAG, addressee, bucket_of, buckets_of_filter, client_tag,
};
pub use native_bridges::{
    CARRIERS, Carrier, NATIVE_BRIDGES, NativeBridge, carriers_of, carriers_text, native_bridges_of,
    native_bridges_text,
};

/// Longest name of a cluster: leaves room in the 127 characters of a RocketMQ topic.
pub const NAME_LEN_MAX: usize = 64;

/// The RocketMQ topics of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// What is published under the shared filters.
    pub messages: String,
    /// Heartbeats of the nodes, and what they tell each other.
    pub nodes: String,
    /// Which client is where: for the nodes, and for applications.
    pub presence: String,
    /// What is kept for clients that are nowhere.
    pub inbox: String,
}

impl Topics {
    /// Those of the cluster of this name.
    pub fn of(cluster: &str) -> Topics {
        Topics {
            messages: format!("MQTT_CLUSTER_{cluster}"),
            nodes: format!("MQTT_CLUSTER_{cluster}_NODES"),
            presence: format!("MQTT_CLUSTER_{cluster}_PRESENCE"),
            inbox: format!("MQTT_CLUSTER_{cluster}_INBOX"),
        }
    }
}
