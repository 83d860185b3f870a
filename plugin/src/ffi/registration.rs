//! Which events are registered, and taking them back.

use std::ffi::{c_int, c_void};

use super::broker::{Broker, EVT_CLIENT_OFFLINE, EVT_CONNECT, EVT_SUBSCRIBE, EVT_UNSUBSCRIBE};
use super::{c, entry};

/// The events that we listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Message,
    AclCheck,
    BasicAuth,
    Tick,
    Disconnect,
    Reload,
    /// 2.1 only.
    Connect,
    /// 2.1 only.
    ClientOffline,
    /// 2.1 only.
    Subscribe,
    /// 2.1 only.
    Unsubscribe,
}

impl Event {
    pub(crate) fn number(self) -> u32 {
        match self {
            Event::Message => c::MOSQ_EVT_MESSAGE,
            Event::AclCheck => c::MOSQ_EVT_ACL_CHECK,
            Event::BasicAuth => c::MOSQ_EVT_BASIC_AUTH,
            Event::Tick => c::MOSQ_EVT_TICK,
            Event::Disconnect => c::MOSQ_EVT_DISCONNECT,
            Event::Reload => c::MOSQ_EVT_RELOAD,
            Event::Connect => EVT_CONNECT,
            Event::ClientOffline => EVT_CLIENT_OFFLINE,
            Event::Subscribe => EVT_SUBSCRIBE,
            Event::Unsubscribe => EVT_UNSUBSCRIBE,
        }
    }

    fn callback(self) -> c::MOSQ_FUNC_generic_callback {
        Some(match self {
            Event::Message => entry::on_message,
            Event::AclCheck => entry::on_acl_check,
            Event::BasicAuth => entry::on_basic_auth,
            Event::Tick => entry::on_tick,
            Event::Disconnect => entry::on_disconnect,
            Event::Reload => entry::on_reload,
            Event::Connect => entry::on_connect,
            Event::ClientOffline => entry::on_client_offline,
            Event::Subscribe => entry::on_subscribe,
            Event::Unsubscribe => entry::on_unsubscribe,
        })
    }
}

/// What Mosquitto calls us for.
pub(crate) struct Registrations {
    identifier: *mut c::mosquitto_plugin_id_t,
    events: Vec<Event>,
}

impl Registrations {
    /// `identifier` is what Mosquitto gave to init.
    pub(crate) fn new(identifier: *mut c::mosquitto_plugin_id_t) -> Registrations {
        Registrations {
            identifier,
            events: Vec::new(),
        }
    }

    /// # Safety
    /// `userdata` is the plugin, and outlives this registration.
    pub(crate) unsafe fn add(
        &mut self,
        broker: &Broker,
        event: Event,
        userdata: *mut c_void,
    ) -> c_int {
        // SAFETY: as the caller promises; the identifier is init's.
        let result =
            unsafe { broker.register(self.identifier, event.number(), event.callback(), userdata) };
        if result == c::MOSQ_ERR_SUCCESS {
            self.events.push(event);
        }
        result
    }

    /// Whether it is there.
    pub(crate) fn has(&self, event: Event) -> bool {
        self.events.contains(&event)
    }

    /// Takes one back, if it is there.
    pub(crate) fn remove(&mut self, broker: &Broker, event: Event) {
        let Some(at) = self.events.iter().position(|have| *have == event) else {
            return;
        };
        self.events.swap_remove(at);
        // SAFETY: the identifier is init's.
        unsafe { broker.unregister(self.identifier, event.number(), event.callback()) };
    }

    /// Takes all back.
    pub(crate) fn clear(&mut self, broker: &Broker) {
        while let Some(event) = self.events.last().copied() {
            self.remove(broker, event);
        }
    }
}
