//! One run of a fault, as the fault sees it: the processes, the load, and a notebook.

use std::any::Any;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::rocketmq::OwnRocketMq;
use harness::wait::within;
use harness::{Broker, Mosquitto, Produced, Stored, Topic, eventually, proc};

use crate::count::Episode;
use crate::fault::Backbone;
use crate::load::{DownlinkLoad, Listeners, UplinkLoad, now_ms};
use crate::random::Random;

const REFUSED_FOR: Duration = Duration::from_secs(4);
const REFUSED_LIMIT: Duration = Duration::from_secs(120);

/// A run. The load goes on until [`crate::fault::Fault::inject`] has returned, and for a while after.
pub struct Run {
    /// The fault's name.
    pub name: &'static str,
    /// Which Mosquitto it is.
    pub mosquitto: Mosquitto,
    /// Mosquitto with the plugin and its sidecar.
    pub broker: Broker,
    /// The other nodes of its cluster.
    pub others: Vec<Broker>,
    /// The devices on the nodes of a cluster that hear what the others publish.
    pub listeners: Option<Listeners>,
    /// The devices that publish, where the plan has that direction.
    pub uplink: Option<UplinkLoad>,
    /// The devices that receive, where the plan has that direction.
    pub downlink: Option<DownlinkLoad>,
    /// Where the devices' messages go.
    pub up_topic: Topic,
    /// Where the messages to the devices come from.
    pub down_topic: Topic,
    /// Random numbers; the seed is printed, and `FAULTS_SEED` sets it.
    pub random: Random,
    pub(crate) backbone: Box<dyn Backbone>,
    pub(crate) episodes: Vec<Episode>,
    /// Of the episodes that the fault itself has measured, how long each took.
    pub(crate) measured: Vec<Duration>,
    pub(crate) notes: Vec<String>,
    /// How many messages may come behind later ones of their device.
    pub(crate) late_max: usize,
    pub(crate) uncounted: Vec<(i64, i64)>,
    /// What was read of [`Run::up_topic`] before that was deleted.
    pub(crate) read_before: Vec<Stored>,
    began_ms: Option<i64>,
    // Last, so that the broker has ended before a disk goes.
    held: Vec<Box<dyn Any>>,
}

impl Run {
    pub(crate) fn new(
        name: &'static str,
        (mosquitto, broker): (Mosquitto, Broker),
        backbone: Box<dyn Backbone>,
        [up_topic, down_topic]: [Topic; 2],
        held: Vec<Box<dyn Any>>,
    ) -> Run {
        Run {
            name,
            mosquitto,
            broker,
            others: Vec::new(),
            listeners: None,
            late_max: 0,
            uplink: None,
            downlink: None,
            up_topic,
            down_topic,
            backbone,
            episodes: Vec::new(),
            measured: Vec::new(),
            notes: Vec::new(),
            uncounted: Vec::new(),
            random: Random::seeded(name),
            read_before: Vec::new(),
            began_ms: None,
            held,
        }
    }

    /// Where Mosquitto listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((self.broker.address(), self.broker.port))
    }

    /// Where the nodes of the cluster listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        std::iter::once(&self.broker)
            .chain(&self.others)
            .map(|node| SocketAddr::from((node.address(), node.port)))
            .collect()
    }

    /// Waits until messages have got through in each direction: up they were acknowledged, down they arrived.
    #[track_caller]
    pub fn flow(&self) {
        self.flow_up(200);
        if let Some(downlink) = &self.downlink {
            downlink.wait_for_more(40);
        }
        if let Some(listeners) = &self.listeners {
            listeners.wait_for_more(400);
        }
    }

    /// Waits until this many more messages of devices were acknowledged, if there are such devices.
    #[track_caller]
    pub fn flow_up(&self, count: usize) {
        if let Some(uplink) = &self.uplink {
            uplink.wait_for_more(count);
        }
    }

    /// Notes that the fault begins now.
    pub fn begins(&mut self) {
        self.began_ms = Some(now_ms());
    }

    /// Notes that what it had taken away is back, and that going on is measured from now. A fault may have several episodes.
    pub fn ends(&mut self) {
        let back_ms = now_ms();
        self.episodes.push(Episode {
            began_ms: self.began_ms.take().unwrap_or(back_ms),
            back_ms,
        });
    }

    /// An episode in which nothing arrives at the devices, so that the fault itself has to see when it went on.
    pub fn went_on_after(&mut self, time: Duration) {
        self.measured.push(time);
    }

    /// [`Run::ends`] at the moment at which RocketMQ's own producer, which depends on nothing of ours, succeeds again.
    #[track_caller]
    pub fn ends_when_rocketmq_answers(&mut self) {
        let topic = Topic::named(&self.backbone.namesrv(), "LEDGER_PROBE");
        eventually("RocketMQ stores a message of its own producer", || {
            topic
                .try_produce(Produced::new("probe"), Duration::from_secs(3))
                .then_some(())
        });
        self.ends();
    }

    /// Waits until the devices get no acknowledgements any more.
    #[track_caller]
    pub fn wait_until_refused(&self) {
        let uplink = self.uplink.as_ref().expect("a plan with uplink");
        let mut last = (uplink.acked(), Instant::now());
        within(REFUSED_LIMIT, "the devices' messages are refused", || {
            let acked = uplink.acked();
            if acked != last.0 {
                last = (acked, Instant::now());
            }
            (last.1.elapsed() > REFUSED_FOR).then_some(())
        });
    }

    /// What is acknowledged from this moment (Unix ms) until now is not held against the product, because the fault is one in
    /// which nobody could keep it.
    pub fn does_not_count_since(&mut self, since_ms: i64) {
        self.uncounted.push((since_ms, now_ms()));
    }

    /// `HOST:PORT` of the name server.
    pub fn namesrv(&self) -> String {
        self.backbone.namesrv()
    }

    /// Waits until another sidecar than this one runs.
    #[track_caller]
    pub fn wait_for_another_sidecar(&self, old: u32) {
        eventually("another sidecar runs", || {
            let pids = proc::sidecars(&self.broker.spool_dir());
            (pids.len() == 1 && pids[0] != old).then_some(())
        });
    }

    /// Something that the plan holds.
    ///
    /// # Panics
    /// When it holds nothing of this type.
    pub fn held<T: 'static>(&self) -> &T {
        let found = self.held.iter().find_map(|held| held.downcast_ref());
        found.expect("what the plan holds")
    }

    /// Keeps a remark for whoever reads the table.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        log(self.name, &text);
        self.notes.push(text);
    }

    /// The RocketMQ of a plan with [`crate::fault::Plan::own_rocketmq`].
    pub fn own_rocketmq(&mut self) -> &mut OwnRocketMq {
        self.backbone()
    }

    /// The RocketMQ that the plan made.
    ///
    /// # Panics
    /// When the plan made one of another type.
    pub fn backbone<T: Backbone>(&mut self) -> &mut T {
        self.backbone
            .as_any()
            .downcast_mut()
            .expect("the type of RocketMQ that the plan made")
    }
}

/// A line for whoever watches.
pub(crate) fn log(fault: &str, text: &str) {
    eprintln!("faults: {fault}: {text}");
}
