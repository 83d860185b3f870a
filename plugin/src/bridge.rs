//! The bridge itself: what each event does. Safe code, on Mosquitto's thread.
//!
//! The path of a message reads: `ffi::entry` → here → `uplink` → the log, and back: the log → `downlink` → `inject`.

mod reload;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use handoff::Counters;
use protocol::config::{Config, Wake as WakeOption};
use protocol::counters as count;
use protocol::message::{Message, QoS};
use protocol::rules::RuleTable;

use crate::cluster::{Close, Cluster, Positions};
use crate::downlink::{Downlink, Members};
use crate::events::Publish;
use crate::inject::{Access, Injector, Noting};
use crate::logger::LogQueue;
use crate::login_gate::LoginGate;
use crate::pressure::{Delivery, Pressure, Queues};
use crate::selecting::Look;
use crate::sidecar::Supervisor;
use crate::uplink::{Outcome, Uplink, now_ms};
use crate::wake::{Bell, Method, Wake};
use crate::wanted::Wanted;
use crate::wills::{Verdict, WillTracker};

/// What `start` has built.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) table: RuleTable,
    pub(crate) uplink: Uplink,
    pub(crate) downlink: Downlink,
    pub(crate) pressure: Pressure,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) wake: Wake,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) counters: Rc<Counters>,
    pub(crate) logs: Option<LogQueue>,
}

/// Everything between one Mosquitto and its spool.
pub(crate) struct Bridge {
    parts: Parts,
    wills: WillTracker,
    gate: LoginGate,
    ticked: bool,
}

/// What the entry point has to do after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticked {
    /// The first one: the bell can be chosen now.
    pub(crate) first: bool,
    /// When 2.1 should call again: 0 at each turn of its loop (the bell causes those), else milliseconds.
    pub(crate) next_ms: i64,
    /// New logins are refused.
    pub(crate) logins_refused: bool,
    /// The sidecar has commanded something.
    pub(crate) commanded: bool,
}

/// Whose turn it is among the members of shared subscriptions.
struct Turns<'a, A> {
    cluster: &'a mut Cluster,
    access: &'a A,
}

impl<A: Access> Members for Turns<'_, A> {
    fn next(&mut self, key: &str, message: &Message<'_>) -> Option<(Box<str>, QoS)> {
        let may = |client| self.access.may_read(client, message);
        let (client_id, qos) = self.cluster.next_member(key, may)?;
        Some((client_id, QoS::from_u8(qos).unwrap_or_default()))
    }
}

/// Pace of the ticks of a 2.1 broker that nothing wakes.
const TICK_WITHOUT_BELL_MS: i64 = 50;

impl Bridge {
    pub(crate) fn new(parts: Parts) -> Bridge {
        let gate = LoginGate::new(&parts.config);
        Bridge {
            parts,
            wills: WillTracker::new(),
            gate,
            ticked: false,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.parts.config
    }

    pub(crate) fn wake_option(&self) -> WakeOption {
        self.parts.config.wake
    }

    pub(crate) fn counters(&self) -> Rc<Counters> {
        Rc::clone(&self.parts.counters)
    }

    /// Shared with the entry point, which needs it even after a panic.
    pub(crate) fn wanted(&self) -> Rc<Wanted> {
        self.parts.uplink.wanted()
    }

    /// Whether logins are refused when the spool is nearly full.
    pub(crate) fn may_refuse_logins(&self) -> bool {
        self.gate.is_wanted()
    }

    /// BASIC_AUTH: whether this login has to be refused. `told_later`: CONNECT tells when the client is there.
    pub(crate) fn login(&mut self, client: usize, told_later: bool) -> bool {
        let refused = self.gate.refuses(client);
        if !refused && !told_later {
            self.joined(client);
        }
        refused
    }

    /// MESSAGE. What was kept before this returns is kept for good, and the broker acknowledges after it.
    pub(crate) fn message(&mut self, publish: &Publish<'_>, verdict: Verdict<'_>) -> Outcome {
        let uplink = &mut self.parts.uplink;
        let selecting = &mut self.parts.downlink.selecting;
        if selecting.is_waiting() {
            selecting.publishes(&Look {
                topic: publish.topic,
                payload: publish.payload,
                qos: publish.qos,
            });
        }
        let read = self
            .wills
            .on_message(publish, verdict, &mut |will| uplink.will(will));
        let properties = read.then(|| self.wills.checked_properties());
        self.parts.uplink.publish(publish, properties)
    }

    /// ACL_CHECK for writing. `ending`: the broker's main loop is over, so this is as good as a client that is gone.
    pub(crate) fn write_check(
        &mut self,
        publish: &Publish<'_>,
        ending: bool,
        allowed: impl FnOnce() -> bool,
        verdict: Verdict<'_>,
    ) {
        self.parts.downlink.selecting.is_interrupted();
        let uplink = &mut self.parts.uplink;
        // A command to the broker itself is never followed by MESSAGE, so it would look like a will.
        let wanted = !publish.topic.starts_with("$CONTROL/") && uplink.wants(publish.topic);
        let emit = &mut |will: &_| uplink.will(will);
        if ending {
            self.wills
                .on_gone(publish.client.key, publish.client.id, verdict, emit);
        }
        if wanted {
            self.wills.on_write_check(publish, allowed, verdict, emit);
        } else {
            self.wills.settle(verdict, emit);
        }
    }

    /// ACL_CHECK for reading: a delivery.
    pub(crate) fn read_check(&mut self, topic: Option<&str>, verdict: Verdict<'_>) {
        if !topic.is_some_and(|topic| self.wills.is_being_delivered(topic)) {
            self.settle_wills(verdict);
        }
    }

    /// Whether a client is to get a message, as far as that is ours to say: asked about each delivery in a cluster.
    pub(crate) fn may_read(&mut self, look: &Look<'_>, client_id: &str) -> bool {
        let parts = &mut self.parts;
        let groups = parts.cluster.as_ref().map(Cluster::groups);
        parts.downlink.selecting.may_read(look, client_id, groups)
    }

    /// Whether a message can be kept from those whom it is not for.
    pub(crate) fn set_selects(&mut self, selects: bool) {
        self.parts.downlink.set_selects(selects);
    }

    fn settle_wills(&mut self, verdict: Verdict<'_>) {
        let uplink = &mut self.parts.uplink;
        self.wills.settle(verdict, &mut |will| uplink.will(will));
    }

    /// ACL_CHECK for anything else. `alive`: only a connected client does that.
    pub(crate) fn other_check(&mut self, client: usize, alive: bool, verdict: Verdict<'_>) {
        self.parts.downlink.selecting.is_interrupted();
        self.settle_wills(verdict);
        if alive {
            self.wills.on_alive(client);
            self.joined(client);
        }
    }

    fn joined(&mut self, client: usize) {
        self.gate.joined(client);
        self.parts.pressure.joined(client);
    }

    /// Whether the queues of clients matter here.
    pub(crate) fn watches_queues(&self) -> bool {
        self.parts.pressure.is_wanted()
    }

    /// Whether this node belongs to a cluster.
    pub(crate) fn is_in_cluster(&self) -> bool {
        self.parts.cluster.is_some()
    }

    /// Its part in the cluster.
    pub(crate) fn cluster(&mut self) -> Option<&mut Cluster> {
        self.parts.cluster.as_mut()
    }

    /// How far the logs are.
    pub(crate) fn positions(&self) -> Positions {
        Positions {
            downlink: self.parts.downlink.position(),
            uplink: self.parts.uplink.end(),
        }
    }

    /// The connections that the sidecar wants closed.
    pub(crate) fn take_closes(&mut self) -> Vec<Close> {
        std::mem::take(&mut self.parts.downlink.commands.closes)
    }

    /// ACL_CHECK for reading, of a client whose queue is known.
    pub(crate) fn delivers(&mut self, topic: &str, delivery: &Delivery<'_>) {
        self.parts.pressure.delivers(topic, delivery);
    }

    /// CONNECT (2.1): a client is there.
    pub(crate) fn connected(&mut self, client: usize, verdict: Verdict<'_>) {
        self.other_check(client, true, verdict);
    }

    /// DISCONNECT and CLIENT_OFFLINE. `id` is empty for a client that never logged in.
    pub(crate) fn gone(&mut self, client: usize, id: &str, verdict: Verdict<'_>) {
        self.parts.downlink.selecting.is_interrupted();
        self.gate.gone(client);
        self.parts.pressure.gone(client);
        let uplink = &mut self.parts.uplink;
        self.wills
            .on_gone(client, id, verdict, &mut |will| uplink.will(will));
    }

    /// TICK.
    pub(crate) fn tick(
        &mut self,
        broker: &impl Injector,
        queues: &(impl Queues + Access),
        verdict: Verdict<'_>,
    ) -> Ticked {
        let parts = &mut self.parts;
        let uplink = &mut parts.uplink;
        self.wills.on_tick(verdict, &mut |will| uplink.will(will));
        let at = Positions {
            downlink: parts.downlink.position(),
            uplink: uplink.end(),
        };
        if let Some(cluster) = &mut parts.cluster {
            cluster.on_tick(at);
        }
        let first = !std::mem::replace(&mut self.ticked, true);
        parts.counters.set(count::LAST_TICK_MS, now_ms());
        let (used, max) = uplink.fill();
        self.gate.on_tick(used, max, uplink.has_no_room());
        let pending = parts.downlink.has_more();
        let allowance = parts.pressure.allowance(queues, Instant::now(), pending);
        let noting = Noting {
            broker,
            pressure: RefCell::new(&mut parts.pressure),
        };
        let mut turns = parts.cluster.as_mut().map(|cluster| Turns {
            cluster,
            access: queues,
        });
        let members = turns.as_mut().map(|turns| turns as &mut dyn Members);
        let drained = parts.downlink.tick(&noting, uplink, allowance, members);
        uplink.set_injected(parts.downlink.position());
        for (client_id, is_carrier) in std::mem::take(&mut parts.downlink.commands.carriers) {
            uplink.carriers().set(client_id, is_carrier);
        }
        for moved in std::mem::take(&mut parts.downlink.commands.moves) {
            if let Some(cluster) = &mut parts.cluster {
                cluster.moved(&moved);
            }
        }
        if drained.opened
            && let Some(waiter) = parts.downlink.waiter()
        {
            parts.wake.set_waiter(waiter);
        }
        if drained.again {
            parts.wake.again();
        } else {
            // While a client is waited for, its acknowledgements turn the loop, and else the loop's own pace.
            let held = parts.pressure.is_holding();
            parts.wake.idle(|| !held && parts.downlink.has_more());
        }
        if let Some(supervisor) = &parts.supervisor {
            parts
                .counters
                .set(count::SIDECAR_STARTS, supervisor.starts());
        }
        let next_ms = if parts.wake.has_bell() {
            0
        } else {
            TICK_WITHOUT_BELL_MS
        };
        Ticked {
            first,
            next_ms,
            logins_refused: self.gate.is_closed(),
            commanded: !parts.downlink.commands.closes.is_empty(),
        }
    }

    /// The bell was chosen.
    pub(crate) fn set_bell(&mut self, bell: Option<Bell>) {
        let method = match &bell {
            None => Method::None,
            Some(Bell::Eventfd(_)) => Method::Eventfd,
            Some(Bell::Pingreq(_)) => Method::Pingreq,
        };
        self.parts.counters.set(count::WAKEUP, method.as_number());
        match method {
            Method::None => log::warn!(
                "the broker is not woken for messages from RocketMQ: they wait up to 100 ms"
            ),
            Method::Eventfd => log::info!("the broker is woken by an eventfd in its epoll set"),
            Method::Pingreq => {
                log::info!("the broker is woken by PINGREQs on a connection of its own")
            }
        }
        if let Some(bell) = bell {
            self.parts.wake.set_bell(bell);
        }
    }

    /// Writes the log records of all threads to Mosquitto's log.
    pub(crate) fn drain_logs(&self, write: impl FnMut(log::Level, &str)) {
        if let Some(logs) = &self.parts.logs {
            logs.drain(write);
        }
    }

    /// Clean-up: the last wills, the sidecar's drain, and every thread joined. The broker has no client any more, so
    /// nobody else can be asked about a will: `verdict` knows that.
    pub(crate) fn stop(&mut self, verdict: Verdict<'_>) {
        let parts = &mut self.parts;
        let uplink = &mut parts.uplink;
        let lost = self
            .wills
            .on_cleanup(verdict, &mut |will| uplink.will(will));
        if lost > 0 {
            log::warn!("{lost} publishes or wills between two ticks were too many to look at");
        }
        if let Err(error) = parts.uplink.sync() {
            log::error!("the spool could not be synced to the disk: {error}");
        }
        parts.downlink.stop();
        parts.wake.stop();
        if let Some(supervisor) = &mut parts.supervisor {
            supervisor.stop();
            parts
                .counters
                .set(count::SIDECAR_STARTS, supervisor.starts());
        }
    }
}
