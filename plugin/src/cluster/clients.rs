//! Who is connected, by which login.
//!
//! Mosquitto 2.1 tells when a client is there (CONNECT). 2.0 tells only that one tries (BASIC_AUTH). One that failed has its DISCONNECT in the same pass of
//! the broker's loop, so who has none by the next tick is there; and so is who subscribes, unsubscribes or publishes before that, or for whom another
//! connection of the same client is closed.
//!
//! Mosquitto knows a client by the address of its record, which another has once it is gone. Each connection gets a number, its login, which no other
//! connection at this broker has: by it the cluster means one connection and not the next of the same client.

use std::collections::HashMap;
use std::ffi::c_int;
use std::rc::Rc;

use protocol::message::What;

use super::Close;
use super::event_log::EventLog;
use crate::events::Client;

/// MQTT 5's "normal disconnection".
const NORMAL: u8 = 0x00;
/// MQTT 5's "unspecified error": the cause is not known.
const UNKNOWN: u8 = 0x80;
/// MQTT 5's "session taken over".
const TAKEN_OVER: u8 = 0x8E;
/// How many clients a tick tells anew after events were missed.
const TOLD_PER_TICK: usize = 256;

/// A client that logs in, or has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) client: Client<'a>,
    /// It wants no session of before.
    pub(crate) clean: bool,
    /// Its connection is there: 2.0 also checks sessions without one. False where that can't be told.
    pub(crate) connected: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Mosquitto's number for the reason; 2.0 has none.
    pub(crate) reason: c_int,
    /// Whether Mosquitto says that the session stays (2.1), or what its record says; nothing where that is not known.
    pub(crate) session_stays: Option<bool>,
}

struct Login {
    number: u64,
    id: Rc<str>,
    username: Option<Box<str>>,
    mqtt_version: u8,
    clean: bool,
    at_ms: u64,
    /// The sidecar knows of it.
    told: bool,
}

/// The connections.
#[derive(Default)]
pub(super) struct Clients {
    logins: HashMap<usize, Login>,
    by_id: HashMap<Rc<str>, usize>,
    /// Those that may be there at the next tick, in their order.
    attempts: Vec<(usize, Login)>,
    last_login: u64,
    /// Between a reload and the next tick Mosquitto checks those who are there.
    reloading: bool,
    /// Some are not `told`.
    untold: bool,
    /// The client that is being closed at the sidecar's command, and the reason.
    closing: Option<(usize, u8)>,
}

impl Login {
    fn new(arrival: &Arrival<'_>, at_ms: u64) -> Login {
        Login {
            number: 0,
            id: arrival.client.id.into(),
            username: arrival.client.username.map(Into::into),
            mqtt_version: arrival.client.mqtt_version,
            clean: arrival.clean,
            at_ms,
            told: false,
        }
    }

    fn tell(&mut self, log: &mut EventLog) {
        self.told = true;
        let what = What::Online {
            client_id: &self.id,
            username: self.username.as_deref(),
            login: self.number,
            mqtt_version: self.mqtt_version,
            clean: self.clean,
        };
        log.tell(self.at_ms, what);
    }
}

impl Clients {
    pub(super) fn attempt(&mut self, arrival: &Arrival<'_>, now_ms: u64, log: &mut EventLog) {
        if self.is_there(arrival.client, log, now_ms) {
            // SIGHUP has it checked again.
            return;
        }
        if !self.reloading || arrival.connected {
            self.attempts
                .retain(|(client, _)| *client != arrival.client.key);
            self.attempts
                .push((arrival.client.key, Login::new(arrival, now_ms)));
        }
    }

    pub(super) fn arrived(&mut self, arrival: &Arrival<'_>, now_ms: u64, log: &mut EventLog) {
        if !self.is_there(arrival.client, log, now_ms) {
            self.add(arrival.client.key, Login::new(arrival, now_ms), log);
        }
    }

    /// Whether this client is known. One whose end was not told, and whose record another has now, is gone.
    fn is_there(&mut self, client: Client<'_>, log: &mut EventLog, now_ms: u64) -> bool {
        let Some(login) = self.logins.get(&client.key) else {
            return false;
        };
        let same = &*login.id == client.id;
        if !same {
            let departure = Departure {
                reason: -1,
                session_stays: None,
            };
            self.gone(client.key, departure, now_ms, log);
        }
        same
    }

    pub(super) fn is_alive(&mut self, client: usize, log: &mut EventLog) {
        if let Some(at) = self.attempts.iter().position(|(key, _)| *key == client) {
            let (client, login) = self.attempts.remove(at);
            self.add(client, login, log);
        }
    }

    /// A client does what only one that is connected does. False: it is none, but a session without a connection.
    pub(super) fn acts(&mut self, arrival: &Arrival<'_>, now_ms: u64, log: &mut EventLog) -> bool {
        let client = arrival.client.key;
        self.is_alive(client, log);
        self.look_for_missed(log);
        if let Some(login) = self.logins.get_mut(&client) {
            if !login.told {
                login.tell(log);
            }
            return true;
        }
        if arrival.connected {
            // Its login was not heard: another plugin stands before ours, or it has shown who it is in another way.
            self.add(client, Login::new(arrival, now_ms), log);
        }
        arrival.connected
    }

    fn add(&mut self, client: usize, mut login: Login, log: &mut EventLog) {
        login.number = login.at_ms.max(self.last_login + 1);
        self.last_login = login.number;
        login.tell(log);
        self.by_id.insert(Rc::clone(&login.id), client);
        self.logins.insert(client, login);
    }

    pub(super) fn gone(
        &mut self,
        client: usize,
        departure: Departure,
        now_ms: u64,
        log: &mut EventLog,
    ) {
        // It failed, or has left already without doing anything: that looks the same.
        self.attempts.retain(|(key, _)| *key != client);
        let Some(login) = self.logins.remove(&client) else {
            return;
        };
        // The broker closes the old connection once it lets the new one in. 2.0 gives no reason.
        let successor = self.attempts_as(&login.id);
        let taken_over = successor.is_some() || departure.reason == c_int::from(TAKEN_OVER);
        let (cause, session_stays) = match self.closing {
            Some((closing, reason)) if closing == client => (reason, departure.session_stays),
            // The session goes to the new connection, and that says whether it wants it.
            _ if taken_over => (TAKEN_OVER, None),
            _ => (cause(departure.reason), departure.session_stays),
        };
        if self.by_id.get(&login.id) == Some(&client) {
            self.by_id.remove(&login.id);
        }
        let what = What::Offline {
            client_id: &login.id,
            login: login.number,
            cause,
            // How long an MQTT 5 session stays it says apart from `clean`. Told to stay, it costs messages that nobody wants;
            // told to go, it would miss some.
            session_stays: session_stays.unwrap_or(!login.clean || login.mqtt_version >= 5),
        };
        log.tell(now_ms, what);
        if let Some(successor) = successor {
            self.is_alive(successor, log);
        }
    }

    /// Whether nothing is missing in the log. After something was, all are told anew.
    fn look_for_missed(&mut self, log: &mut EventLog) -> bool {
        let settled = log.settle();
        if log.take_anew() {
            self.logins
                .values_mut()
                .for_each(|login| login.told = false);
            self.untold = true;
        }
        settled
    }

    fn attempts_as(&self, id: &str) -> Option<usize> {
        let mut attempts = self.attempts.iter();
        let found = attempts.find(|(_, login)| &*login.id == id);
        found.map(|(client, _)| *client)
    }

    pub(super) fn on_reload(&mut self) {
        self.reloading = true;
    }

    pub(super) fn on_tick(&mut self, log: &mut EventLog) {
        self.reloading = false;
        for (client, login) in std::mem::take(&mut self.attempts) {
            self.add(client, login, log);
        }
        if self.look_for_missed(log) && self.untold {
            let mut untold = self.logins.values_mut().filter(|login| !login.told);
            untold
                .by_ref()
                .take(TOLD_PER_TICK)
                .for_each(|login| login.tell(log));
            self.untold = untold.next().is_some();
        }
    }

    /// The record of this client, while it is connected.
    pub(super) fn record_of(&self, client_id: &str) -> Option<usize> {
        self.by_id.get(client_id).copied()
    }

    pub(super) fn begin_close(&mut self, close: &Close) -> Option<usize> {
        let client = *self.by_id.get(&*close.client_id)?;
        let login = self.logins.get(&client)?;
        if login.number != close.login {
            return None;
        }
        self.closing = Some((client, close.reason));
        Some(client)
    }

    pub(super) fn end_close(&mut self) {
        self.closing = None;
    }
}

/// Mosquitto's reasons are its own error numbers, or MQTT 5's codes.
fn cause(reason: c_int) -> u8 {
    match reason {
        0 => NORMAL,
        2 => 0x82,  // protocol error
        11 => 0x87, // not authorised
        19 => 0x8D, // keep alive timeout
        21 => 0x81, // malformed packet
        25 => 0x95, // packet too large
        _ => u8::try_from(reason)
            .ok()
            .filter(|code| *code >= UNKNOWN)
            .unwrap_or(UNKNOWN),
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
