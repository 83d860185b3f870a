//! Brokers that are the nodes of one cluster.

use crate::broker::{Broker, BrokerSpec, Mosquitto};
use crate::environment::shared_namesrv;
use crate::probe::{Topic, unique};

/// How the nodes of a cluster are to be started.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    name: String,
    namesrv: String,
    share: Vec<String>,
}

impl ClusterSpec {
    /// A cluster on the RocketMQ that all tests share; its name is `label` and something that makes it unique.
    pub fn new(label: &str) -> ClusterSpec {
        ClusterSpec::at(&shared_namesrv(), label)
    }

    /// A cluster on this RocketMQ.
    pub fn at(namesrv: &str, label: &str) -> ClusterSpec {
        ClusterSpec {
            name: unique(label),
            namesrv: namesrv.to_owned(),
            share: Vec::new(),
        }
    }

    /// Adds a filter that all nodes share.
    pub fn share(mut self, filter: &str) -> ClusterSpec {
        self.share.push(filter.to_owned());
        self
    }

    /// One node, for the test to start.
    pub fn node(&self, version: Mosquitto) -> BrokerSpec {
        let node = BrokerSpec::new(version)
            .option("namesrv", &self.namesrv)
            .option("cluster", &self.name);
        self.share
            .iter()
            .fold(node, |node, filter| node.share(filter))
    }

    /// The RocketMQ topic with the messages between the nodes.
    pub fn messages(&self) -> Topic {
        Topic::named(&self.namesrv, &format!("MQTT_CLUSTER_{}", self.name))
    }

    /// Starts three nodes, each on another Mosquitto.
    #[track_caller]
    pub fn start(self) -> Cluster {
        self.start_of(&Mosquitto::ALL)
    }

    /// Starts a node for each of these.
    #[track_caller]
    pub fn start_of(self, versions: &[Mosquitto]) -> Cluster {
        let nodes = versions
            .iter()
            .map(|version| self.node(*version).start())
            .collect();
        Cluster { spec: self, nodes }
    }
}

/// A cluster that runs.
#[derive(Debug)]
pub struct Cluster {
    /// How further nodes are to be started.
    pub spec: ClusterSpec,
    /// Its nodes.
    pub nodes: Vec<Broker>,
}
