//! What a cluster has to know of this broker: who is there, and who has subscribed to what.
//!
//! Told by Mosquitto's events as they happen, and handed to the sidecar over a log of its own (`events/`). This is not where anything is decided about
//! the cluster: the sidecar does that, and answers with commands on the downlink log.
//!
//! Runs on Mosquitto's thread: an event is one append.

mod clients;
mod event_log;
mod groups;
mod hearing;
mod restored;
mod saved;

use handoff::{OpenError, Position};
use protocol::config::Config;
use protocol::message::What;

use crate::broker_conf::BrokerConf;
use crate::uplink::now_ms;

use clients::Clients;
pub(crate) use clients::{Arrival, Departure};
use event_log::EventLog;
pub(crate) use groups::Groups;
use restored::Restored;

/// How far the logs were when something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    /// What the downlink log has before this was injected.
    pub(crate) downlink: Position,
    /// What the uplink log has before this was published.
    pub(crate) uplink: Position,
}

/// A command of the sidecar: close this client's connection, if it is still of this login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) client_id: String,
    pub(crate) login: u64,
    /// As MQTT 5 codes it.
    pub(crate) reason: u8,
}

/// The sidecar tells that a client is on another node: its session here is to get nothing that is shared, if it is of this login or an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) client_id: String,
    pub(crate) login: u64,
}

/// Tells of this broker's clients.
pub(crate) struct Cluster {
    log: EventLog,
    clients: Clients,
    /// Why not everything is heard, when that has been told.
    deaf: Option<String>,
    is_2_1: bool,
}

impl Cluster {
    /// Opens the log in the spool, and tells that Mosquitto has started. `ran_until_ms`: when the one before it ticked last, Unix milliseconds; 0: not known.
    pub(crate) fn start(
        config: &Config,
        conf: &BrokerConf,
        is_2_1: bool,
        ran_until_ms: u64,
    ) -> Result<Cluster, OpenError> {
        let restored = Restored::of(conf);
        let mut cluster = Cluster {
            log: EventLog::open(
                &config.spool_dir.join("events"),
                restored.saved_at_ms(),
                Groups::new(config.share.iter().map(|rule| rule.filter.as_str())),
            )?,
            clients: Clients::default(),
            deaf: None,
            is_2_1,
        };
        cluster.log.begin(ran_until_ms);
        restored.tell(conf, &mut cluster.log);
        cluster.reconsider(conf);
        Ok(cluster)
    }

    /// The configuration was read, or read again: whether everything can be heard.
    pub(crate) fn reconsider(&mut self, conf: &BrokerConf) {
        let why = hearing::deaf_because(conf, self.is_2_1);
        if let Some(why) = why
            && self.deaf.as_ref() != Some(&why)
        {
            log::warn!("the cluster sends this node everything that is shared: {why}");
            self.log.tell(now_ms(), What::Deaf { why: &why });
            self.deaf = Some(why);
        }
    }

    /// Who is a member of shared subscriptions.
    pub(crate) fn groups(&self) -> &Groups {
        self.log.groups()
    }

    /// The member of the group `<group>/<filter>` whose turn it is, with the QoS of its subscription: of those that are connected (by the addresses of their records) and
    /// `may` have it; if there is none, of those that are away.
    pub(crate) fn next_member(
        &mut self,
        key: &str,
        mut may: impl FnMut(usize) -> bool,
    ) -> Option<(Box<str>, u8)> {
        let clients = &self.clients;
        let groups = self.log.groups_mut();
        groups
            .next(key, |id| clients.record_of(id).is_some_and(&mut may))
            .or_else(|| groups.next(key, |id| clients.record_of(id).is_none()))
    }

    /// A client is on another node.
    pub(crate) fn moved(&mut self, moved: &Moved) {
        self.log.groups_mut().moved(&moved.client_id, moved.login);
    }

    /// Tells of those who have come back from other nodes, now that it is known how far the logs are.
    pub(crate) fn tell_resumed(&mut self, at: Positions) {
        while let Some(client_id) = self.log.groups_mut().next_resumed() {
            let what = What::Resumed {
                client_id: &client_id,
                downlink_position: at.downlink,
                uplink_position: at.uplink,
            };
            self.log.tell(now_ms(), what);
        }
    }

    /// BASIC_AUTH of 2.0: a client may be there soon.
    pub(crate) fn attempt(&mut self, arrival: &Arrival<'_>) {
        self.clients.attempt(arrival, now_ms(), &mut self.log);
    }

    /// CONNECT of 2.1: a client is there.
    pub(crate) fn arrived(&mut self, arrival: &Arrival<'_>) {
        self.clients.arrived(arrival, now_ms(), &mut self.log);
    }

    /// Only a client that was let in does what this one does.
    pub(crate) fn is_alive(&mut self, client: usize) {
        self.clients.is_alive(client, &mut self.log);
    }

    /// A client asks for a subscription.
    pub(crate) fn subscribes(
        &mut self,
        arrival: &Arrival<'_>,
        filter: &str,
        qos: u8,
        at: Positions,
    ) {
        let now = now_ms();
        if self.clients.acts(arrival, now, &mut self.log) {
            let what = What::Subscribed {
                client_id: arrival.client.id,
                filter,
                qos,
                downlink_position: at.downlink,
                uplink_position: at.uplink,
            };
            self.log.tell(now, what);
        }
    }

    /// A client gives a subscription up.
    pub(crate) fn unsubscribes(&mut self, arrival: &Arrival<'_>, filter: &str) {
        let now = now_ms();
        if self.clients.acts(arrival, now, &mut self.log) {
            let what = What::Unsubscribed {
                client_id: arrival.client.id,
                filter,
            };
            self.log.tell(now, what);
        }
    }

    /// A connection is over.
    pub(crate) fn gone(&mut self, client: usize, departure: Departure) {
        self.clients
            .gone(client, departure, now_ms(), &mut self.log);
    }

    /// Mosquitto is about to check every login again.
    pub(crate) fn on_reload(&mut self) {
        self.clients.on_reload();
    }

    /// TICK: what came between the last two passes is there.
    pub(crate) fn on_tick(&mut self, at: Positions) {
        self.clients.on_tick(&mut self.log);
        self.tell_resumed(at);
    }

    /// The client to close, if it is still of the login that is meant. Its end will be told with the reason.
    pub(crate) fn begin_close(&mut self, close: &Close) -> Option<usize> {
        self.clients.begin_close(close)
    }

    /// The client was closed, or was not.
    pub(crate) fn end_close(&mut self) {
        self.clients.end_close();
    }
}
