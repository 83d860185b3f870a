//! BASIC_AUTH: lets our own connection in, refuses new logins while the spool is nearly full, and decides nothing else.
//!
//! Where a neutral answer is known (`wake::auth_plan`) it is registered from init on, before a `password_file` is: the
//! first answer wins. Where none is known, it is registered only while it refuses, and not while a reload checks those
//! who are there: so below the mark everything is as without us.

use std::ffi::c_int;
use std::io;

use log::Level;
use protocol::counters as count;

use super::borrow::{CText, borrow_text};
use super::broker::ERR_PLUGIN_IGNORE;
use super::c;
use super::plugin::Plugin;
use super::registration::Event;
use crate::bridge::Bridge;
use crate::broker_conf::BrokerConf;
use crate::login_gate;
use crate::start::Surroundings;
use crate::wake::{self, AuthPlan, Credentials};

/// What is known of logins.
pub(super) struct Auth {
    /// The neutral answer.
    pub(super) plan: AuthPlan,
    /// Of the wake-up connection, while there may be one.
    pub(super) credentials: Option<Credentials>,
    /// Logins may be refused.
    pub(super) gated: bool,
    /// Only BASIC_AUTH tells of clients that come.
    listening: bool,
    /// No plugin before ours can keep RELOAD from us, as 2.0 allows.
    sees_reload: bool,
}

impl Auth {
    pub(super) fn new(bridge: &Bridge, around: &Surroundings) -> io::Result<Auth> {
        let wake_up =
            bridge.wake_option() != protocol::config::Wake::Eventfd && around.conf.conf.is_ok();
        Ok(Auth {
            plan: plan(&around.conf, around.is_2_1),
            credentials: wake_up.then(Credentials::new).transpose()?,
            gated: bridge.may_refuse_logins(),
            listening: !around.is_2_1 && (bridge.watches_queues() || bridge.is_in_cluster()),
            sees_reload: around.is_2_1 || around.conf.deciders().before.is_empty(),
        })
    }

    /// Whether it has to be registered before a `password_file` is.
    pub(super) fn comes_first(&self) -> bool {
        self.is_wanted() && matches!(self.plan, AuthPlan::Answer(_))
    }

    fn is_wanted(&self) -> bool {
        self.gated || self.listening || self.credentials.is_some()
    }
}

fn plan(conf: &BrokerConf, is_2_1: bool) -> AuthPlan {
    match &conf.conf {
        _ if is_2_1 => AuthPlan::Answer(ERR_PLUGIN_IGNORE),
        Ok(parsed) => wake::auth_plan(parsed, &conf.deciders()),
        Err(_) => AuthPlan::Impossible("mosquitto.conf could not be read"),
    }
}

impl Plugin {
    /// BASIC_AUTH.
    pub(super) fn basic_auth(&self, event: &mut c::mosquitto_evt_basic_auth) -> c_int {
        let auth = self.auth.borrow();
        let neutral = match &auth.plan {
            AuthPlan::Answer(code) => *code,
            AuthPlan::Impossible(_) => c::MOSQ_ERR_PLUGIN_DEFER,
        };
        // SAFETY: the client of this event.
        let id = unsafe { self.broker.client_id(event.client) };
        if id == CText::Null {
            // A client has one by now. (2.1 also asks for the users of its HTTP API, whose record is no client's, but not
            // on this thread: see `entry`.)
            return neutral;
        }
        // SAFETY: null or a C string, the broker's until we return.
        let password = unsafe { borrow_text(event.password) }.text();
        let ours = |who: &Credentials| id.text().is_some_and(|id| who.admit(id, password));
        if auth.credentials.as_ref().is_some_and(ours) {
            return c::MOSQ_ERR_SUCCESS;
        }
        let key = event.client.expose_provenance();
        let refused = self
            .guarded("BASIC_AUTH", |bridge| bridge.login(key, self.around.is_2_1))
            .unwrap_or(false);
        if !refused {
            self.hear_attempt(event.client);
            return neutral;
        }
        self.counters.add(count::LOGINS_REFUSED, 1);
        // SAFETY: as above.
        let version = unsafe { self.broker.client_version(event.client) };
        login_gate::refusal(version, self.around.is_2_1)
    }

    /// After a tick, and before a reload checks those who are there (`closed` false).
    pub(super) fn follow_gate(&self, closed: bool) {
        // Without RELOAD we would refuse those who are there.
        let only_while_closed = self.auth.try_borrow().is_ok_and(|auth| {
            auth.gated && auth.sees_reload && matches!(auth.plan, AuthPlan::Impossible(_))
        });
        if only_while_closed {
            self.set_registered(Event::BasicAuth, closed);
        }
    }

    /// Says at start what can't be done.
    pub(super) fn announce_auth(&self) {
        let auth = self.auth.borrow();
        let (true, AuthPlan::Impossible(why)) = (auth.gated, &auth.plan) else {
            return;
        };
        let what = if auth.sees_reload {
            "logins that another plugin or a password_file allows are let in all the same"
        } else {
            "all logins are let in all the same (put our `plugin` line first)"
        };
        self.broker.log(
            Level::Info,
            &format!("above spool_high_water, {what}: {why}"),
        );
    }

    /// The bell was chosen. Whether BASIC_AUTH is needed for it.
    pub(super) fn keep_auth(&self, for_the_bell: bool) {
        let Ok(mut auth) = self.auth.try_borrow_mut() else {
            return;
        };
        if !for_the_bell {
            auth.credentials = None;
        }
        // On 2.1 the HTTP API's thread may be walking the list of callbacks; and our answer changes nothing there.
        if !auth.is_wanted() && !self.around.is_2_1 {
            self.set_registered(Event::BasicAuth, false);
        }
    }

    pub(super) fn refresh_auth(&self, conf: &BrokerConf) {
        let fresh = plan(conf, self.around.is_2_1);
        let Ok(mut auth) = self.auth.try_borrow_mut() else {
            return;
        };
        if let AuthPlan::Impossible(why) = fresh {
            self.set_registered(Event::BasicAuth, false);
            if auth.credentials.is_some() && auth.plan != fresh {
                log::warn!("the wake-up connection can't be made again once it ends: {why}");
            }
        }
        // What was impossible and is not any more: registered now it would stand behind a password_file, which is right
        // for the neutral answer, and for refusals the best that can be had.
        let possible = matches!(fresh, AuthPlan::Answer(_));
        auth.plan = fresh;
        let wanted = possible && auth.is_wanted();
        drop(auth);
        if wanted {
            self.set_registered(Event::BasicAuth, true);
        }
    }
}
