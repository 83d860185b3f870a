//! What the callbacks share: the bridge, the guard around it, and how each event is answered.

use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_int, c_void};
use std::rc::Rc;

use handoff::Counters;
use protocol::counters as count;
use protocol::message::Message;

use super::access::{AccessCheck, RawWrite};
use super::auth::Auth;
use super::borrow::{CText, borrow_bytes, borrow_text};
use super::broker::{Broker, Ending};
use super::c;
use super::client_record::ClientRecords;
use super::cluster::Closing;
use super::guard::{Guard, Guarded};
use super::properties::BorrowedProperties;
use super::registration::{Event, Registrations};
use super::swallow::swallow;
use crate::acl;
use crate::acl_file::AclFile;
use crate::bridge::Bridge;
use crate::broker_conf::BrokerConf;
use crate::events::{Client, NO_EXPIRY, Publish};
use crate::inject::Access;
use crate::pressure::{Delivery, QueueState, Queues};
use crate::reject::refusal;
use crate::selecting::Look;
use crate::start::Surroundings;
use crate::uplink::Outcome;
use crate::wanted::Wanted;
use crate::wills::Will;

/// The plugin as Mosquitto's userdata. Callbacks get it shared: an access check that we ask for calls back into us.
pub(crate) struct Plugin {
    pub(super) broker: Broker,
    pub(super) guard: Guard,
    pub(super) bridge: RefCell<Option<Bridge>>,
    /// Beside the bridge: still needed when that is off after a panic.
    pub(super) wanted: RefCell<Rc<Wanted>>,
    pub(super) counters: Rc<Counters>,
    pub(super) registrations: RefCell<Registrations>,
    pub(super) around: Surroundings,
    pub(super) acl: RefCell<acl::Plan>,
    pub(super) access: Option<AccessCheck>,
    /// For brokers that do not export their check.
    pub(super) acl_file: RefCell<Option<AclFile>>,
    pub(super) ending: Ending,
    /// An access check of our own is under way.
    pub(super) asking: Cell<bool>,
    pub(super) auth: RefCell<Auth>,
    pub(super) records: ClientRecords,
    /// The node belongs to a cluster.
    pub(super) in_cluster: bool,
    pub(super) closing: Closing,
}

impl Plugin {
    /// Runs `call` on the bridge inside the guard; `None` when the bridge is off.
    pub(super) fn guarded<T>(&self, what: &str, call: impl FnOnce(&mut Bridge) -> T) -> Option<T> {
        let guarded = self.guard.run(|| {
            let mut bridge = self.bridge.try_borrow_mut().ok()?;
            Some(call(bridge.as_mut()?))
        });
        match guarded {
            Guarded::Done(value) => value,
            Guarded::Off => None,
            Guarded::Panicked(message) => {
                self.counters.add(count::PLUGIN_PANICS, 1);
                self.broker.log(
                    log::Level::Error,
                    &format!(
                        "INTERNAL ERROR in {what}: {message}. The bridge is OFF until Mosquitto restarts; publishes of \
                         QoS 1 and 2 that it would have to keep are refused. Please report this"
                    ),
                );
                None
            }
        }
    }

    /// MESSAGE.
    pub(super) fn message(&self, event: &mut c::mosquitto_evt_message) -> c_int {
        let Some(client) = self.client(event.client) else {
            return c::MOSQ_ERR_SUCCESS;
        };
        // SAFETY: the event's own fields, the broker's until we return.
        let topic = unsafe { borrow_text(event.topic) };
        let CText::Text(topic) = topic else {
            // The broker checks topics: cannot be. Nothing to say about a message without one.
            return c::MOSQ_ERR_SUCCESS;
        };
        let publish = Publish {
            client,
            topic,
            // SAFETY: as above.
            payload: unsafe { borrow_bytes(event.payload, event.payloadlen) },
            qos: event.qos,
            retain: event.retain,
            // SAFETY: as above.
            properties: unsafe { BorrowedProperties::new(event.properties) },
            // SAFETY: the client of this event, which is asked about while the event lasts.
            expiry: &|publish| unsafe {
                self.records.expiry_s(&self.broker, event.client, publish)
            },
        };
        let outcome = self.guarded("MESSAGE", |bridge| {
            bridge.message(&publish, &|will| self.verdict(will))
        });
        if outcome == Some(Outcome::Carried) {
            // SAFETY: the broker's, for us to change, and nothing of it is borrowed any more.
            unsafe { swallow(event) };
            return c::MOSQ_ERR_SUCCESS;
        }
        let refused = match outcome {
            Some(outcome) => outcome == Outcome::Refused,
            None => self.would_be_wanted(topic),
        };
        if refused && publish.qos > 0 {
            refusal(client.mqtt_version, self.around.is_2_1)
        } else {
            c::MOSQ_ERR_SUCCESS
        }
    }

    /// With the bridge off: whether acknowledging would be a false promise. The rules are immutable, so a panic
    /// elsewhere has not harmed them.
    fn would_be_wanted(&self, topic: &str) -> bool {
        self.wanted
            .try_borrow()
            .is_ok_and(|wanted| wanted.wants(topic))
    }

    /// ACL_CHECK. Listens only: see `acl` for what is answered.
    pub(super) fn acl_check(&self, event: &mut c::mosquitto_evt_acl_check) -> c_int {
        let neutral = self.acl.borrow().answer.unwrap_or(c::MOSQ_ERR_PLUGIN_DEFER);
        if self.asking.get() {
            return neutral;
        }
        let access = event.access.cast_unsigned();
        let key = event.client.addr();
        if access == c::MOSQ_ACL_READ {
            return match self.read_check(event) {
                true => neutral,
                false => c::MOSQ_ERR_ACL_DENIED,
            };
        }
        self.hear_check(event);
        if access != c::MOSQ_ACL_WRITE {
            let alive = access == c::MOSQ_ACL_SUBSCRIBE || access == c::MOSQ_ACL_UNSUBSCRIBE;
            self.guarded("ACL_CHECK", |bridge| {
                bridge.other_check(key, alive, &|will| self.verdict(will))
            });
            return neutral;
        }
        let Some(client) = self.client(event.client) else {
            return neutral;
        };
        if client.mqtt_version == 0 {
            // `check_retain_source`: before a retained message is handed to a subscriber, the broker asks whether its
            // sender may still write. It does so with a record on its stack, in which only the names are filled in:
            // no client (those have said their version) and no will, and its address means nothing once we return.
            self.guarded("ACL_CHECK", |bridge| {
                bridge.other_check(0, false, &|will| self.verdict(will))
            });
            return neutral;
        }
        // SAFETY: the event's own fields, the broker's until we return.
        let topic = unsafe { borrow_text(event.topic) };
        let CText::Text(topic) = topic else {
            return neutral;
        };
        let publish = Publish {
            client,
            topic,
            // SAFETY: as above.
            payload: unsafe { borrow_bytes(event.payload, event.payloadlen) },
            qos: event.qos,
            retain: event.retain,
            // SAFETY: as above.
            properties: unsafe { BorrowedProperties::new(event.properties) },
            expiry: NO_EXPIRY,
        };
        let raw = RawWrite {
            client: event.client,
            topic: event.topic,
            payload: event.payload,
            properties: event.properties,
            len: event.payloadlen,
            qos: event.qos,
            retain: event.retain,
        };
        let ending = self.ending.is_ending();
        self.guarded("ACL_CHECK", |bridge| {
            bridge.write_check(
                &publish,
                ending,
                || self.ask(&client, topic, &raw),
                &|will| self.verdict(will),
            );
        });
        neutral
    }

    /// ACL_CHECK for reading: a delivery. False: the message is not for this client.
    fn read_check(&self, event: &c::mosquitto_evt_acl_check) -> bool {
        // SAFETY: the event's own field, the broker's until we return.
        let topic = match unsafe { borrow_text(event.topic) } {
            CText::Text(topic) => Some(topic),
            _ => None,
        };
        let id = || self.client_id(event.client);
        let may_read = self.guarded("ACL_CHECK", |bridge| {
            bridge.read_check(topic, &|will| self.verdict(will));
            let Some(topic) = topic else {
                return true;
            };
            if self.in_cluster {
                // SAFETY: the client of this event, and the event's own fields, the broker's until we return.
                let (client_id, payload) = unsafe {
                    let id = self.broker.client_id(event.client).text();
                    (id, borrow_bytes(event.payload, event.payloadlen))
                };
                let look = Look {
                    topic,
                    payload,
                    qos: event.qos,
                };
                if !bridge.may_read(&look, client_id.unwrap_or_default()) {
                    return false;
                }
            }
            if !bridge.watches_queues() {
                return true;
            }
            // SAFETY: the client of this event.
            if let Some(state) = unsafe { self.records.queue(&self.broker, event.client) } {
                let delivery = Delivery {
                    client: event.client.expose_provenance(),
                    state,
                    qos: event.qos,
                    id: &id,
                };
                bridge.delivers(topic, &delivery);
            }
            true
        });
        may_read.unwrap_or(true)
    }

    /// Whether everybody else would allow this write: asked of the broker, where it can be, else of the `acl_file`.
    fn ask(&self, client: &Client<'_>, topic: &str, raw: &RawWrite) -> bool {
        if !self.acl.borrow().ask_others {
            return true;
        }
        let Some(access) = &self.access else {
            return self.file_allows(client, topic);
        };
        self.asking.set(true);
        // SAFETY: an event that has not returned, or (`verdict`) a client that still exists.
        let allowed = unsafe { access.may_write(raw) };
        self.asking.set(false);
        allowed
    }

    /// What the `acl_file` says, where it alone decides.
    pub(super) fn file_allows(&self, client: &Client<'_>, topic: &str) -> bool {
        self.acl_file.try_borrow().is_ok_and(|file| {
            file.as_ref()
                .is_some_and(|file| file.may_write(client, topic))
        })
    }

    /// The same for a write whose event is over. The client still exists: the broker frees no client that has not
    /// disconnected before its clean-up, and `unload` does not come here.
    fn verdict(&self, will: &Will) -> bool {
        if !self.acl.borrow().ask_others {
            return true;
        }
        let Ok(topic) = CString::new(will.topic()) else {
            return false;
        };
        let payload = will.payload();
        let raw = RawWrite {
            client: std::ptr::with_exposed_provenance_mut(will.client().key),
            topic: topic.as_ptr(),
            payload: payload.as_ptr().cast(),
            properties: std::ptr::null_mut(),
            len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            qos: will.qos(),
            retain: will.retain(),
        };
        self.ask(&will.client(), will.topic(), &raw)
    }

    /// TICK.
    pub(super) fn tick(&self, event: &mut c::mosquitto_evt_tick) -> c_int {
        let ticked = self.guarded("TICK", |bridge| {
            let ticked = bridge.tick(&self.broker, self, &|will| self.verdict(will));
            if ticked.first {
                self.choose_bell(bridge);
            }
            bridge.drain_logs(|level, text| self.broker.log(level, text));
            ticked
        });
        self.follow_gate(ticked.is_some_and(|ticked| ticked.logins_refused));
        // Where 2.0 has `next_ns`, which it ignores, 2.1 has `next_ms`. Without it 2.1 may sleep for a day.
        event.next_s = 0;
        event.next_ns = ticked.map_or(1000, |ticked| ticked.next_ms);
        if ticked.is_some_and(|ticked| ticked.commanded) {
            self.close_clients();
        }
        c::MOSQ_ERR_SUCCESS
    }

    /// DISCONNECT.
    pub(super) fn disconnect(&self, event: &mut c::mosquitto_evt_disconnect) -> c_int {
        self.gone(event, false)
    }

    /// CLIENT_OFFLINE of 2.1.
    pub(super) fn client_offline(&self, event: &mut c::mosquitto_evt_disconnect) -> c_int {
        self.gone(event, true)
    }

    fn gone(&self, event: &mut c::mosquitto_evt_disconnect, offline: bool) -> c_int {
        self.hear_departure(event, offline);
        let key = event.client.expose_provenance();
        // SAFETY: it is the client of the event at hand.
        let id = unsafe { self.broker.client_id(event.client) }.text();
        self.guarded("DISCONNECT", |bridge| {
            bridge.gone(key, id.unwrap_or_default(), &|will| self.verdict(will))
        });
        c::MOSQ_ERR_SUCCESS
    }

    /// CONNECT of 2.1.
    pub(super) fn connect(&self, event: &mut c::mosquitto_evt_disconnect) -> c_int {
        let key = event.client.expose_provenance();
        self.guarded("CONNECT", |bridge| {
            bridge.connected(key, &|will| self.verdict(will))
        });
        self.hear_arrival(event.client);
        c::MOSQ_ERR_SUCCESS
    }

    /// RELOAD. Always 0: anything else ends a 2.1 broker, and can drop the password and ACL files of a 2.0.
    pub(super) fn reload(&self, _event: &mut c::mosquitto_evt_reload) -> c_int {
        self.guarded("RELOAD", |bridge| {
            bridge.reload();
            if let Some(conf) = self.refresh_neutral_answers() {
                bridge.broker_reloaded(&conf);
                bridge.set_selects(acl::is_heard_first(&conf, self.around.is_2_1));
            }
            if let Ok(mut wanted) = self.wanted.try_borrow_mut() {
                *wanted = bridge.wanted();
            }
            bridge.drain_logs(|level, text| self.broker.log(level, text));
        });
        c::MOSQ_ERR_SUCCESS
    }

    /// Its id, for people.
    fn client_id(&self, client: *const c::mosquitto) -> String {
        // SAFETY: the client of the event at hand.
        let id = unsafe { self.broker.client_id(client) };
        id.text().unwrap_or_default().to_owned()
    }

    /// The client of the event at hand.
    pub(super) fn client<'a>(&self, raw: *mut c::mosquitto) -> Option<Client<'a>> {
        if raw.is_null() {
            return None;
        }
        // SAFETY: the client of the event at hand.
        let id = unsafe { self.broker.client_id(raw) };
        // SAFETY: as above.
        let username = unsafe { self.broker.client_username(raw) };
        // SAFETY: as above.
        let mqtt_version = unsafe { self.broker.client_version(raw) };
        Some(Client {
            key: raw.expose_provenance(),
            // The broker checks client ids; user names can come from a certificate, unchecked.
            id: id.text().unwrap_or(""),
            username: username.text(),
            mqtt_version,
        })
    }

    pub(super) fn register(&self, event: Event) -> c_int {
        let userdata: *const Plugin = self;
        let mut registrations = self.registrations.borrow_mut();
        // SAFETY: this plugin outlives its registrations: `unload`, and a failed `load`, take them back first.
        unsafe { registrations.add(&self.broker, event, userdata.cast_mut().cast::<c_void>()) }
    }
}

/// The safe code asks about clients that are connected, and of whose end it has not been told: those the broker keeps.
impl Queues for Plugin {
    fn of(&self, client: usize) -> Option<QueueState> {
        let client = std::ptr::with_exposed_provenance(client);
        // SAFETY: as above.
        unsafe { self.records.queue(&self.broker, client) }
    }

    fn id(&self, client: usize) -> Option<String> {
        let client = std::ptr::with_exposed_provenance(client);
        // SAFETY: as above.
        let id = unsafe { self.broker.client_id(client) };
        id.text().map(str::to_owned)
    }
}

/// As above: clients that are connected.
impl Access for Plugin {
    fn may_read(&self, client: usize, message: &Message<'_>) -> bool {
        if !self.acl.borrow().ask_others {
            return true;
        }
        let raw = std::ptr::with_exposed_provenance_mut(client);
        let (Some(access), Ok(topic)) = (&self.access, CString::new(message.topic)) else {
            let client = self.client(raw);
            return client.is_some_and(|client| {
                let file = self.acl_file.try_borrow();
                file.is_ok_and(|file| {
                    let file = file.as_ref();
                    file.is_some_and(|file| file.may_read(&client, message.topic))
                })
            });
        };
        let read = RawWrite {
            client: raw,
            topic: topic.as_ptr(),
            payload: message.payload.as_ptr().cast(),
            properties: std::ptr::null_mut(),
            len: u32::try_from(message.payload.len()).unwrap_or(u32::MAX),
            qos: message.qos.as_u8(),
            retain: false,
        };
        self.asking.set(true);
        // SAFETY: a client that is connected, and memory that stays for the call.
        let allowed = unsafe { access.may_read(&read) };
        self.asking.set(false);
        allowed
    }
}

/// The `acl_file`, where it is needed: the broker's own check can't be called, and nobody else decides.
pub(super) fn read_acl_file(conf: &BrokerConf, can_ask: bool) -> Option<AclFile> {
    let path = conf.only_acl_file().filter(|_| !can_ask)?;
    match AclFile::read(path) {
        Ok(file) => Some(file),
        Err(error) => {
            log::warn!(
                "wills will not reach RocketMQ: the acl_file `{}` can't be read: {error}",
                path.display()
            );
            None
        }
    }
}
