//! What a fault is: a name, what it runs on, and how it is done.

use std::any::Any;
use std::time::Duration;

use harness::rocketmq::OwnRocketMq;
use harness::{BrokerSpec, Mosquitto};

use crate::load::Rate;
use crate::row::Direction;
use crate::run::Run;

/// A fault of the ledger.
pub struct Fault {
    /// As the command line and the table have it.
    pub name: &'static str,
    /// One line of what is done.
    pub about: &'static str,
    /// About how long it takes; the long ones are begun first.
    pub seconds: u32,
    /// Whether it is part of the short ledger.
    pub quick: bool,
    /// What it runs on. Called at each run.
    pub plan: fn() -> Plan,
    /// Does it, while the load goes on. Returns when the way is free again; what it can't do is a panic, which fails the rows.
    pub inject: fn(&mut Run),
}

/// What a fault runs on.
pub struct Plan {
    /// The directions that carry load, and have a row.
    pub directions: &'static [Direction],
    /// Which RocketMQ.
    pub rocketmq: RocketMq,
    /// Which Mosquitto; `None` takes them in turn.
    pub mosquitto: Option<Mosquitto>,
    /// What its configuration has besides the rules.
    pub broker: Box<dyn FnOnce(BrokerSpec) -> BrokerSpec>,
    /// How much load.
    pub rate: Rate,
    /// How many repetitions of ours are allowed for each episode in each direction. Without a crash or a retry: none.
    pub repeats_max: usize,
    /// How soon it should go on, in seconds. Shown where it is missed; what fails a row is [`Plan::recovery_limit_s`], because
    /// a machine that runs several faults at once may be slow.
    pub goal_s: Option<f64>,
    /// How late it may go on, in seconds.
    pub recovery_limit_s: f64,
    /// How long nothing new may arrive before what is missing counts as lost.
    pub patience: Duration,
    /// Whether the counters have to add up in the end. Not where the fault is one of the files that hold them.
    pub sums: bool,
    /// Kept until the broker has ended: mounts and the like. The fault reaches them by [`Run::held`].
    pub holds: Vec<Box<dyn Any>>,
}

impl Plan {
    /// Both directions, the RocketMQ that all share, nothing repeated.
    pub fn shared() -> Plan {
        Plan {
            directions: &Direction::ALL,
            rocketmq: RocketMq::Shared,
            mosquitto: None,
            broker: Box::new(|spec| spec),
            rate: Rate::default(),
            repeats_max: 0,
            goal_s: None,
            recovery_limit_s: 30.0,
            patience: Duration::from_secs(60),
            sums: true,
            holds: Vec::new(),
        }
    }

    /// Both directions, and a RocketMQ that may be hurt. A request that failed is repeated, so some may be stored twice: of each
    /// queue what is on its way at once, as often as its request runs out of time while a broker is there and does not answer.
    pub fn own_rocketmq() -> Plan {
        Plan {
            rocketmq: RocketMq::own(),
            repeats_max: 2_000,
            goal_s: Some(5.0),
            ..Plan::shared()
        }
    }

    /// Sets what its configuration has besides the rules.
    pub fn broker(mut self, configure: impl FnOnce(BrokerSpec) -> BrokerSpec + 'static) -> Plan {
        self.broker = Box::new(configure);
        self
    }
}

/// A RocketMQ, as [`Plan`] wants it.
pub enum RocketMq {
    /// The one that all share, and nobody hurts.
    Shared,
    /// One of its own. Called when the run begins.
    Made(Box<dyn FnOnce() -> Box<dyn Backbone>>),
}

impl RocketMq {
    /// A plain one of its own.
    pub fn own() -> RocketMq {
        RocketMq::Made(Box::new(|| Box::new(OwnRocketMq::started())))
    }
}

/// A RocketMQ of a fault's own. It ends when it is dropped.
pub trait Backbone: Any {
    /// `HOST:PORT` of its name server, as the sidecar and RocketMQ's Java client reach it.
    fn namesrv(&self) -> String;

    /// For [`Run::backbone`].
    fn as_any(&mut self) -> &mut dyn Any;
}

impl Backbone for OwnRocketMq {
    fn namesrv(&self) -> String {
        OwnRocketMq::namesrv(self)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// The shared one, as far as a run knows it.
pub(crate) struct Address(pub(crate) String);

impl Backbone for Address {
    fn namesrv(&self) -> String {
        self.0.clone()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
