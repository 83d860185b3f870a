//! The events of clients and subscriptions, for the cluster, and closing a client's connection at its command.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Write;

use super::borrow::{CText, borrow_text};
use super::broker::Broker;
use super::plugin::Plugin;
use super::{c, sys};
use crate::cluster::{Arrival, Close, Cluster, Departure, Positions};
use crate::events::Client;

type CleanSession = unsafe extern "C" fn(*const c::mosquitto) -> bool;
type Kick = unsafe extern "C" fn(*const c_char, bool) -> c_int;

/// `ident` of a client's record, its first field: what the broker's epoll set tells clients from listeners by.
const IDENT_CLIENT: c_int = 2;
/// What Mosquitto's record has as the socket of a session without a connection.
const NO_SOCKET: c_int = -1;

/// Both SUBSCRIBE and UNSUBSCRIBE of 2.1, as far as we read them.
#[repr(C)]
pub(super) struct SubscriptionEvent {
    future: *mut c_void,
    client: *mut c::mosquitto,
    client_id: *const c_char,
    topic_filter: *const c_char,
    properties: *mut c::mosquitto_property,
    identifier: u32,
    options: u8,
}

const _: () = assert!(std::mem::offset_of!(SubscriptionEvent, options) == 44);

/// What closing a client needs of the broker: functions that all brokers have exported so far.
pub(super) struct Closing {
    clean_session: Option<CleanSession>,
    kick: Option<Kick>,
}

impl Closing {
    pub(super) fn new(broker: &Broker) -> Closing {
        let clean_session = broker.own_symbol(c"mosquitto_client_clean_session");
        let kick = broker.own_symbol(c"mosquitto_kick_client_by_clientid");
        Closing {
            // SAFETY: the signature of mosquitto_client_clean_session since 2.0.0.
            clean_session: clean_session.map(|address| unsafe {
                std::mem::transmute::<*mut c_void, CleanSession>(address)
            }),
            // SAFETY: the signature of mosquitto_kick_client_by_clientid since 2.0.0.
            kick: kick.map(|address| unsafe { std::mem::transmute::<*mut c_void, Kick>(address) }),
        }
    }
}

impl Plugin {
    /// Runs `call` on the bridge's part in the cluster, where there is one.
    fn with_cluster<T>(
        &self,
        what: &str,
        call: impl FnOnce(&mut Cluster, Positions) -> T,
    ) -> Option<T> {
        self.guarded(what, |bridge| {
            let at = bridge.positions();
            let cluster = bridge.cluster()?;
            let result = call(cluster, at);
            cluster.tell_resumed(at);
            Some(result)
        })
        .flatten()
    }

    /// The client of the event at hand, as one that logs in. A client without an id is none for a cluster.
    fn arrival<'a>(&self, raw: *mut c::mosquitto) -> Option<Arrival<'a>> {
        let client = self.client(raw).filter(|client| !client.id.is_empty())?;
        let clean_session = self.closing.clean_session;
        Some(Arrival {
            client,
            // SAFETY: the client of the event at hand.
            clean: clean_session.is_some_and(|clean| unsafe { clean(raw) }),
            connected: socket_of(raw).is_some_and(|socket| socket != NO_SOCKET),
        })
    }

    /// BASIC_AUTH of 2.0, of one whom we let pass.
    pub(super) fn hear_attempt(&self, raw: *mut c::mosquitto) {
        if self.in_cluster
            && !self.around.is_2_1
            && let Some(arrival) = self.arrival(raw)
        {
            self.with_cluster("BASIC_AUTH", |cluster, _| cluster.attempt(&arrival));
        }
    }

    /// CONNECT of 2.1. Our own connection is nobody's.
    pub(super) fn hear_arrival(&self, raw: *mut c::mosquitto) {
        let is_ours = |client: &Client<'_>| {
            let auth = self.auth.try_borrow();
            auth.is_ok_and(|auth| auth.credentials.as_ref().is_some_and(|us| us.is(client.id)))
        };
        if self.in_cluster
            && let Some(arrival) = self.arrival(raw)
            && !is_ours(&arrival.client)
        {
            self.with_cluster("CONNECT", |cluster, _| cluster.arrived(&arrival));
        }
    }

    /// ACL_CHECK of 2.0 for anything but reading.
    pub(super) fn hear_check(&self, event: &c::mosquitto_evt_acl_check) {
        if !self.in_cluster || self.around.is_2_1 {
            return;
        }
        // SAFETY: the event's own field, the broker's until we return.
        let filter = unsafe { borrow_text(event.topic) };
        match (event.access.cast_unsigned(), filter) {
            (c::MOSQ_ACL_SUBSCRIBE, CText::Text(filter)) => {
                self.hear_subscribe(event.client, filter, event.qos);
            }
            (c::MOSQ_ACL_UNSUBSCRIBE, CText::Text(filter)) if self.may_unsubscribe(event) => {
                self.hear_unsubscribe(event.client, filter);
            }
            _ => {
                let client = event.client.addr();
                self.with_cluster("ACL_CHECK", |cluster, _| cluster.is_alive(client));
            }
        }
    }

    /// Whether others allow it: one who may not unsubscribe goes on getting messages. Where they can't be asked he is taken for one.
    fn may_unsubscribe(&self, event: &c::mosquitto_evt_acl_check) -> bool {
        // An `acl_file` never forbids it.
        if !self.acl.borrow().ask_others || self.around.conf.only_acl_file().is_some() {
            return true;
        }
        let Some(access) = &self.access else {
            return false;
        };
        self.asking.set(true);
        // SAFETY: an event that has not returned.
        let allowed = unsafe { access.may_unsubscribe(event.client, event.topic) };
        self.asking.set(false);
        allowed
    }

    /// SUBSCRIBE of 2.1, behind the access check. Always 0: anything else would refuse.
    pub(super) fn subscribe_event(&self, event: &mut SubscriptionEvent) -> c_int {
        // SAFETY: the event's own field, the broker's until we return.
        if let CText::Text(filter) = unsafe { borrow_text(event.topic_filter) } {
            self.hear_subscribe(event.client, filter, event.options & 3);
        }
        c::MOSQ_ERR_SUCCESS
    }

    /// UNSUBSCRIBE of 2.1, likewise.
    pub(super) fn unsubscribe_event(&self, event: &mut SubscriptionEvent) -> c_int {
        // SAFETY: as above.
        if let CText::Text(filter) = unsafe { borrow_text(event.topic_filter) } {
            self.hear_unsubscribe(event.client, filter);
        }
        c::MOSQ_ERR_SUCCESS
    }

    fn hear_subscribe(&self, raw: *mut c::mosquitto, filter: &str, qos: u8) {
        if let Some(arrival) = self.arrival(raw) {
            self.with_cluster("SUBSCRIBE", |cluster, at| {
                cluster.subscribes(&arrival, filter, qos, at);
            });
        }
    }

    fn hear_unsubscribe(&self, raw: *mut c::mosquitto, filter: &str) {
        if let Some(arrival) = self.arrival(raw) {
            self.with_cluster("UNSUBSCRIBE", |cluster, _| {
                cluster.unsubscribes(&arrival, filter);
            });
        }
    }

    /// DISCONNECT, and CLIENT_OFFLINE of 2.1 (`offline`).
    pub(super) fn hear_departure(&self, event: &c::mosquitto_evt_disconnect, offline: bool) {
        if !self.in_cluster {
            return;
        }
        // SAFETY: the client of the event at hand.
        let version = unsafe { self.broker.client_version(event.client) };
        let session_stays = match (self.around.is_2_1, version) {
            (true, _) => Some(offline),
            // SAFETY: the client of the event at hand.
            (false, 5) => unsafe { self.records.session_stays(&self.broker, event.client) },
            // Before MQTT 5, what it wanted at its login tells.
            (false, _) => None,
        };
        let departure = Departure {
            reason: event.reason,
            session_stays,
        };
        let client = event.client.addr();
        self.with_cluster("DISCONNECT", |cluster, _| cluster.gone(client, departure));
    }

    /// After a tick: what the sidecar has told us to close. Outside of the bridge, which hears of the end of each as of any other.
    pub(super) fn close_clients(&self) {
        let closes = self.guarded("TICK", crate::bridge::Bridge::take_closes);
        for close in closes.unwrap_or_default() {
            self.close(&close);
        }
    }

    fn close(&self, close: &Close) {
        let (Some(kick), Ok(id)) = (self.closing.kick, CString::new(close.client_id.as_str()))
        else {
            return;
        };
        let client = self.with_cluster("TICK", |cluster, _| cluster.begin_close(close));
        let Some(client) = client.flatten() else {
            return;
        };
        let raw = std::ptr::with_exposed_provenance_mut(client);
        self.say_why(raw, close.reason);
        // The broker checks the subscriptions of a session that stays: they are no new ones.
        self.asking.set(true);
        // SAFETY: a C string, on the main thread, and no callback of the broker is under way but the tick.
        unsafe { kick(id.as_ptr(), false) };
        self.asking.set(false);
        self.with_cluster("TICK", |cluster, _| cluster.end_close());
    }

    /// Tells an MQTT 5 client why it is closed. The API has no way to, so this writes to its socket, where that is known to carry plain MQTT. Behind it
    /// comes the broker's own DISCONNECT, which nobody reads any more.
    fn say_why(&self, raw: *mut c::mosquitto, reason: u8) {
        // SAFETY: a connected client, whose end was not told: the broker keeps it.
        let (version, address) = unsafe {
            (
                self.broker.client_version(raw),
                self.broker.client_address(raw),
            )
        };
        let (5, Some(socket), CText::Text(address)) = (version, socket_of(raw), address) else {
            return;
        };
        let Ok(mut stream) = sys::copy_of_socket(socket) else {
            return;
        };
        let is_its_own = stream
            .peer_addr()
            .is_ok_and(|peer| peer.ip().to_string() == address);
        let is_plain = stream
            .local_addr()
            .is_ok_and(|local| self.around.conf.is_plain_port(local.port()));
        if is_its_own && is_plain {
            // Mosquitto's sockets never block: what can't be sent now is not.
            let _ = stream.write_all(&[0xE0, 2, reason, 0]);
        }
    }
}

/// The socket of a client's record, where it begins as the records of all versions so far do.
fn socket_of(raw: *const c::mosquitto) -> Option<c_int> {
    let record = raw.cast::<c_int>();
    // SAFETY: the client of the event at hand, or one that is connected: a record of many fields.
    let (ident, socket) = unsafe { (record.read(), record.add(1).read()) };
    (ident == IDENT_CLIENT).then_some(socket)
}
