//! Loading and unloading: from Mosquitto's call to a running bridge, and back.

use std::cell::{Cell, RefCell};

use log::Level;
use protocol::config::Wake as WakeOption;

use super::auth::Auth;
use super::broker::Broker;
use super::client_record::ClientRecords;
use super::cluster::Closing;
use super::guard::Guard;
use super::plugin::{Plugin, read_acl_file};
use super::registration::{Event, Registrations};
use super::{c, sys};
use crate::acl;
use crate::bridge::Bridge;
use crate::broker_conf::BrokerConf;
use crate::logger::LogQueue;
use crate::start::{StartError, Surroundings, start};
use crate::wake::{self, AuthPlan, Bell, EpollBell, PingBell};

impl Plugin {
    /// What `mosquitto_plugin_init` does. `None`: it failed, and the log says why.
    pub(super) fn load(
        identifier: *mut c::mosquitto_plugin_id_t,
        options: &[(&str, &str)],
    ) -> Option<Box<Plugin>> {
        let Ok(broker) = Broker::find() else {
            // Without its functions there is no way to write to its log.
            eprintln!("mosquitto-rocketmq: this is not a Mosquitto of version 2.0.11 or later");
            return None;
        };
        match Plugin::try_load(&broker, identifier, options) {
            Ok(plugin) => Some(plugin),
            Err(error) => {
                broker.log(Level::Error, &format!("not started: {error}"));
                None
            }
        }
    }

    fn try_load(
        broker: &Broker,
        identifier: *mut c::mosquitto_plugin_id_t,
        options: &[(&str, &str)],
    ) -> Result<Box<Plugin>, StartError> {
        let logs = LogQueue::install(log::LevelFilter::Info);
        let is_2_1 = probe_2_1(broker, identifier);
        broker.set_plugin_info(identifier);
        let plugin_path = sys::own_path();
        let conf = BrokerConf::of_this_process(plugin_path.clone());
        let around = Surroundings {
            version: broker.version(),
            is_2_1,
            conf,
            plugin: plugin_path,
        };
        let mut bridge = start(options, &around, Some(logs))?;
        bridge.set_selects(acl::is_heard_first(&around.conf, is_2_1));
        let acl = acl::plan(&around.conf.deciders(), is_2_1);
        let auth = Auth::new(&bridge, &around).map_err(StartError::Thread)?;
        let access = broker.access_check(is_2_1);
        let plugin = Box::new(Plugin {
            broker: broker.clone(),
            guard: Guard::default(),
            wanted: RefCell::new(bridge.wanted()),
            counters: bridge.counters(),
            bridge: RefCell::new(None),
            registrations: RefCell::new(Registrations::new(identifier)),
            acl_file: RefCell::new(read_acl_file(&around.conf, access.is_some())),
            access,
            ending: broker.ending(),
            around,
            acl: RefCell::new(acl),
            asking: Cell::new(false),
            auth: RefCell::new(auth),
            records: ClientRecords::new(broker),
            in_cluster: bridge.is_in_cluster(),
            closing: Closing::new(broker),
        });
        if let Err(error) = plugin.register_all() {
            plugin.registrations.borrow_mut().clear(broker);
            return Err(error);
        }
        plugin.announce(&bridge);
        bridge.drain_logs(|level, text| broker.log(level, text));
        *plugin.bridge.borrow_mut() = Some(bridge);
        Ok(plugin)
    }

    fn register_all(&self) -> Result<(), StartError> {
        let mut events = vec![
            Event::Message,
            Event::Tick,
            Event::Disconnect,
            Event::Reload,
        ];
        if self.around.is_2_1 {
            events.extend([Event::Connect, Event::ClientOffline]);
        }
        if self.around.is_2_1 && self.in_cluster {
            events.extend([Event::Subscribe, Event::Unsubscribe]);
        }
        if self.acl.borrow().answer.is_some() {
            events.push(Event::AclCheck);
        }
        if self.auth.borrow().comes_first() {
            // To be asked before a password_file, it has to be registered before that is.
            events.push(Event::BasicAuth);
        }
        for event in events {
            let code = self.register(event);
            if code != c::MOSQ_ERR_SUCCESS {
                return Err(StartError::Register {
                    event: event.number(),
                    code,
                });
            }
        }
        Ok(())
    }

    fn announce(&self, bridge: &Bridge) {
        let config = bridge.config();
        self.broker.log(
            Level::Info,
            &format!(
                "version {}, Mosquitto {}, node {}, {} uplink and {} downlink rules, spool {}",
                env!("CARGO_PKG_VERSION"),
                self.around.version,
                config.node_id,
                config.uplink.len(),
                config.downlink.len(),
                config.spool_dir.display()
            ),
        );
        self.announce_auth();
        if bridge.watches_queues()
            && (!self.records.can_read() || self.acl.borrow().answer.is_none())
        {
            self.broker.log(
                Level::Warn,
                "the queues of clients can't be watched here: what RocketMQ sends faster than a client takes it may be \
                 dropped by Mosquitto (max_queued_messages)",
            );
        }
        let carries = !config.uplink.is_empty() || !config.share.is_empty();
        if carries && !self.records.can_read() {
            self.broker.log(
                Level::Warn,
                &format!(
                    "the records that Mosquitto {} keeps of its clients are not known: what MQTT 5 devices publish \
                     goes to RocketMQ without its message expiry",
                    self.around.version
                ),
            );
        }
        let acl = self.acl.borrow();
        if let Some(warning) = &acl.warning {
            self.broker.log(Level::Warn, warning);
        }
        if acl.ask_others && self.access.is_none() && self.around.conf.only_acl_file().is_none() {
            self.broker.log(
                Level::Warn,
                "wills will not reach RocketMQ: this build of Mosquitto does not export its access check, so it can't \
                 be told whether another plugin allows them",
            );
        }
    }

    /// At the first tick: the listeners and the epoll set are there.
    pub(super) fn choose_bell(&self, bridge: &mut Bridge) {
        let bell = self
            .eventfd(bridge.wake_option())
            .or_else(|| self.pingreq());
        self.keep_auth(matches!(bell, Some(Bell::Pingreq(_))));
        bridge.set_bell(bell);
    }

    fn eventfd(&self, option: WakeOption) -> Option<Bell> {
        let version = self.around.version;
        let known = wake::eventfd_is_known(version) && (version.minor >= 1) == self.around.is_2_1;
        if option == WakeOption::Pingreq || (option == WakeOption::Auto && !known) {
            return None;
        }
        match EpollBell::install() {
            Ok(bell) => Some(Bell::Eventfd(bell)),
            Err(error) => {
                log::warn!("no eventfd in the broker's epoll set: {error}");
                None
            }
        }
    }

    fn pingreq(&self) -> Option<Bell> {
        let auth = self.auth.borrow();
        let credentials = auth.credentials.as_ref()?;
        if let AuthPlan::Impossible(why) = &auth.plan {
            log::warn!("no wake-up connection to the broker: {why}");
            return None;
        }
        let conf = self.around.conf.conf.as_ref().ok()?;
        let address = wake::ping_address(conf);
        if address.is_none() {
            log::warn!("no wake-up connection to the broker: it has no plain MQTT listener");
        }
        address.map(|address| Bell::Pingreq(PingBell::new(address, credentials.clone())))
    }

    /// What `mosquitto_plugin_cleanup` does.
    pub(super) fn unload(self: Box<Self>) {
        self.registrations.borrow_mut().clear(&self.broker);
        let Some(mut bridge) = self.bridge.take() else {
            return;
        };
        // The broker's clients are freed by now, so the broker can't be asked about them. Where `ending` is known, it
        // was asked before.
        bridge.stop(&|will| {
            !self.acl.borrow().ask_others || self.file_allows(&will.client(), will.topic())
        });
        bridge.drain_logs(|level, text| self.broker.log(level, text));
    }
}

/// CLIENT_OFFLINE exists from 2.1 on: registering it tells.
fn probe_2_1(broker: &Broker, identifier: *mut c::mosquitto_plugin_id_t) -> bool {
    let mut probe = Registrations::new(identifier);
    // SAFETY: taken back below, before any event can happen: Mosquitto is still in our init.
    let result = unsafe { probe.add(broker, Event::ClientOffline, std::ptr::null_mut()) };
    probe.clear(broker);
    result == c::MOSQ_ERR_SUCCESS
}
