//! Who may still log in while the spool fills up.
//!
//! From a high-water mark on, new logins are refused: a device that can't be taken on goes elsewhere, or comes back
//! later, instead of filling what is left. Who is connected stays, also when SIGHUP has Mosquitto check every login
//! again.

use std::collections::HashSet;
use std::ffi::c_int;

use protocol::config::{Config, SpoolFull};

use crate::ffi::c;

/// Percent of the spool below the mark at which logins are let in again.
const HYSTERESIS: u64 = 5;
/// MQTT 5's "server busy", which Mosquitto 2.1 passes on.
const SERVER_BUSY: c_int = 0x89;

/// Opens and closes by how full the spool is, once a tick; a login only looks at it.
#[derive(Debug)]
pub(crate) struct LoginGate {
    /// Percent; `None`: it never closes.
    mark: Option<u64>,
    closed: bool,
    /// Between a reload and the next tick Mosquitto checks those who are there.
    reloading: bool,
    /// Addresses of the records of clients that have logged in, or are about to.
    known: HashSet<usize>,
    refused: u64,
}

impl LoginGate {
    pub(crate) fn new(config: &Config) -> LoginGate {
        let wanted = config.spool_high_water < 100 && config.spool_full == SpoolFull::Refuse;
        LoginGate {
            mark: wanted.then_some(u64::from(config.spool_high_water)),
            closed: false,
            reloading: false,
            known: HashSet::new(),
            refused: 0,
        }
    }

    /// Whether it may ever close.
    pub(crate) fn is_wanted(&self) -> bool {
        self.mark.is_some()
    }

    /// Whether new logins are refused now.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// A tick: `used` of `max` bytes are filled; `no_room`: the disk has none for the rest.
    pub(crate) fn on_tick(&mut self, used: u64, max: u64, no_room: bool) {
        self.reloading = false;
        let Some(mark) = self.mark else { return };
        // Widened: percents of a spool of 64 TiB fit no 64 bits when multiplied by more.
        let percent = u128::from(used) * 100 / u128::from(max.max(1));
        let percent = u64::try_from(percent).unwrap_or(u64::MAX);
        let reopen = mark.saturating_sub(HYSTERESIS);
        let closed = no_room || percent >= if self.closed { reopen.max(1) } else { mark };
        if closed && !self.closed {
            self.refused = 0;
            let why = if no_room {
                "its disk is full".to_owned()
            } else {
                format!("it is filled to {percent} % (spool_high_water {mark}%)")
            };
            log::warn!("new logins are refused until RocketMQ has taken more of the spool: {why}");
        } else if !closed && self.closed {
            log::info!(
                "new logins are let in again: the spool is filled to {percent} %; {} were refused",
                self.refused
            );
        }
        self.closed = closed;
    }

    /// Mosquitto reads its configuration again, and then checks every login.
    pub(crate) fn on_reload(&mut self) {
        self.reloading = true;
    }

    /// BASIC_AUTH: whether to refuse this one.
    pub(crate) fn refuses(&mut self, client: usize) -> bool {
        if !self.closed || self.reloading || self.known.contains(&client) {
            return false;
        }
        self.refused += 1;
        true
    }

    /// A client that will be there: 2.0 tells of it before its login is decided, and of the failure as of an end.
    pub(crate) fn joined(&mut self, client: usize) {
        // A reload also checks sessions without a connection, whose end nobody tells.
        if self.mark.is_some() && !self.reloading {
            self.known.insert(client);
        }
    }

    /// It is gone: its address may be another's next time.
    pub(crate) fn gone(&mut self, client: usize) {
        self.known.remove(&client);
    }
}

/// What refuses a login: as much as the broker lets a plugin say.
pub(crate) fn refusal(mqtt_version: u8, is_2_1: bool) -> c_int {
    if is_2_1 && mqtt_version == 5 {
        SERVER_BUSY
    } else {
        c::MOSQ_ERR_AUTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(options: &[(&str, &str)]) -> LoginGate {
        let all = [("namesrv", "a:1"), ("node_id", "n")];
        let config = Config::from_options(all.iter().chain(options).copied()).expect("good");
        LoginGate::new(&config)
    }

    #[test]
    fn it_closes_at_the_mark_and_opens_five_points_below() {
        let mut gate = gate(&[("spool_high_water", "50%")]);
        gate.on_tick(499, 1000, false);
        assert!(!gate.refuses(1));
        gate.on_tick(500, 1000, false);
        assert!(gate.refuses(1));
        gate.on_tick(450, 1000, false);
        assert!(gate.refuses(1), "still within the five points");
        gate.on_tick(449, 1000, false);
        assert!(!gate.refuses(1));
        gate.on_tick(500, 1000, false);
        assert!(gate.is_closed());
    }

    #[test]
    fn a_low_mark_opens_when_the_spool_is_empty() {
        let mut gate = gate(&[("spool_high_water", "1%")]);
        gate.on_tick(10, 1000, false);
        assert!(gate.is_closed());
        gate.on_tick(0, 1000, false);
        assert!(!gate.is_closed());
    }

    #[test]
    fn who_is_there_is_not_asked_again() {
        let mut gate = gate(&[]);
        gate.joined(7);
        gate.on_tick(1000, 1000, false);
        assert!(!gate.refuses(7), "SIGHUP checks it again");
        assert!(gate.refuses(8));
        gate.on_reload();
        gate.joined(8);
        assert!(!gate.refuses(8), "one that was not seen logging in");
        gate.on_tick(1000, 1000, false);
        assert!(gate.refuses(8));
        gate.gone(7);
        assert!(gate.refuses(7), "another one at that address");
    }

    #[test]
    fn a_full_disk_closes_it_however_little_is_used() {
        let mut gate = gate(&[]);
        gate.on_tick(1, 1000, true);
        assert!(gate.is_closed());
        gate.on_tick(1, 1000, false);
        assert!(!gate.is_closed());
    }

    #[test]
    fn it_can_be_switched_off() {
        for options in [[("spool_high_water", "100%")], [("spool_full", "drop")]] {
            let mut gate = gate(&options);
            gate.on_tick(1000, 1000, true);
            assert!(!gate.is_wanted() && !gate.refuses(1));
        }
    }

    #[test]
    fn only_mqtt_5_on_2_1_can_be_told_why() {
        assert_eq!(refusal(5, true), 137);
        for (version, is_2_1) in [(4, true), (3, true), (5, false), (4, false)] {
            assert_eq!(refusal(version, is_2_1), 11);
        }
    }
}
