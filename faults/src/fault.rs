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
    /// With `Some`, these three are the nodes of a cluster, and the load is theirs: devices publish on the first and the second (uplink, as far as
    /// RocketMQ), and listen on the third and the first (downlink). The other fields that name a broker are about the first node.
    pub cluster: Option<[Mosquitto; 3]>,
    /// What its configuration has besides the rules.
    pub broker: Box<dyn FnOnce(BrokerSpec) -> BrokerSpec>,
    /// How much load.
    pub rate: Rate,
    /// How many repetitions of ours are allowed for each episode. Without a crash or a retry: none.
    pub repeats_max: Repeats,
    /// How soon it should go on, in seconds. What misses it fails only where no other fault runs at the same time: a machine that
    /// runs several may be slow.
    pub goal_s: Option<f64>,
    /// How late it may go on, in seconds, however busy the machine is.
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
            cluster: None,
            broker: Box::new(|spec| spec),
            rate: Rate::default(),
            repeats_max: Repeats::NONE,
            goal_s: None,
            recovery_limit_s: 30.0,
            patience: Duration::from_secs(60),
            sums: true,
            holds: Vec::new(),
        }
    }

    /// Both directions, and a RocketMQ that may be hurt, by which what was on its way comes twice.
    pub fn own_rocketmq() -> Plan {
        Plan {
            rocketmq: RocketMq::own(),
            repeats_max: Repeats::UNHEARD,
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

/// Repetitions of ours that one episode may bring, in each direction. docs/guarantees.md says where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// Device to RocketMQ.
    pub up: usize,
    /// RocketMQ to device.
    pub down: usize,
}

/// What is on its way at once: a batch (`batch_messages_max`, 64) for each of the topic's queues, of which the ledger has four.
const ON_ITS_WAY: usize = 4 * 64;
/// The sidecar gives a request up after so many seconds, and repeats it.
const REQUEST_S: usize = 3;

impl Repeats {
    /// Nothing dies, and each request is answered.
    pub const NONE: Repeats = Repeats { up: 0, down: 0 };
    /// Nothing of ours dies. What was on its way was stored, and the answer was not heard, or too late.
    pub const UNHEARD: Repeats = Repeats { up: 300, down: 0 };
    /// What it had on its way, and what was given back in the last 20 ms; down, what it had written and not yet noted.
    pub const SIDECAR_DIED: Repeats = Repeats { up: 300, down: 2 };
    /// And its sidecar with it. What was injected within `downlink_release_delay`, which is 5 s here, comes again: 500 at the rate of the
    /// load. When the next death follows before they were given back, they come once more, with those of the life between.
    pub const MOSQUITTO_DIED: Repeats = Repeats {
        up: 300,
        down: 1_500,
    };

    /// RocketMQ is there, and does not answer for so many seconds: whatever it was asked in that time, it may store when it goes on.
    pub const fn unanswered(seconds: usize) -> Repeats {
        Repeats {
            up: seconds / REQUEST_S * ON_ITS_WAY,
            down: 0,
        }
    }

    /// In this direction.
    pub const fn of(self, direction: Direction) -> usize {
        match direction {
            Direction::Uplink => self.up,
            Direction::Downlink => self.down,
        }
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
