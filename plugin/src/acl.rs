//! How to listen to access checks without deciding any.
//!
//! The trap: in Mosquitto the first answer that is not DEFER wins, and *all DEFER means denied*. A plugin that only
//! listens and answers DEFER locks everybody out of a broker that has no other access control; one that answers
//! SUCCESS opens a broker that has some. What is neutral depends on who else decides:
//!
//! - 2.1 has PLUGIN_IGNORE, "as if this plugin did not exist". The answer of the *last* callback counts there, so
//!   IGNORE after another plugin's DEFER would turn its denial into a grant: neutral only when nobody comes before us.
//! - 2.0 has not. Nobody else decides: SUCCESS. An `acl_file` or a plugin known to decide: DEFER. A plugin of unknown
//!   kind: neither is right, so nothing is registered; the price is that wills are not bridged, and the log says so.
//!
//! Whether others then allow a will is asked of the broker itself where it exports its check, else of the `acl_file`
//! (`acl_file`); with another plugin and no export it can't be known, and such wills stay behind.
//!
//! The first answer also hides the check from those behind: a plugin *before* us that grants a will hides it from us.
//! So the log asks for our `plugin` line to come first.

use std::ffi::c_int;

use crate::broker_conf::BrokerConf;
use crate::ffi::broker::ERR_PLUGIN_IGNORE;
use crate::ffi::c;

/// Who else has a say in access checks, from the broker's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deciders {
    /// An `acl_file` line (anywhere).
    pub(crate) acl_file: bool,
    /// Other plugins whose line stands before ours.
    pub(crate) before: Vec<String>,
    /// Other plugins whose line stands after ours.
    pub(crate) after: Vec<String>,
    /// `per_listener_settings true`: the lists differ from listener to listener.
    pub(crate) per_listener: bool,
    /// The configuration could not be read.
    pub(crate) unknown: Option<String>,
}

impl Deciders {
    fn plugins(&self) -> impl Iterator<Item = &String> {
        self.before.iter().chain(&self.after)
    }

    /// Whether nobody but us can decide.
    pub(crate) fn nobody(&self) -> bool {
        !self.acl_file && self.before.is_empty() && self.after.is_empty() && self.unknown.is_none()
    }
}

/// What to do about ACL_CHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The neutral answer; `None`: don't register.
    pub(crate) answer: Option<c_int>,
    /// Somebody else may deny a will: their verdict has to be asked for.
    pub(crate) ask_others: bool,
    /// What to tell the people who run the broker.
    pub(crate) warning: Option<String>,
}

/// Whether all access checks reach us before anybody has answered: then a message can be kept from a subscriber.
pub(crate) fn is_heard_first(conf: &BrokerConf, is_2_1: bool) -> bool {
    let deciders = conf.deciders();
    plan(&deciders, is_2_1).answer.is_some()
        && deciders.before.is_empty()
        && conf.is_for_all_listeners()
}

const KNOWN_DECIDERS: &[&str] = &[
    "mosquitto_dynamic_security",
    "mosquitto_acl_file",
    "mosquitto-auth",
    "go-auth",
];

fn is_known_decider(path: &str) -> bool {
    KNOWN_DECIDERS.iter().any(|name| path.contains(name))
}

fn not_at_all(why: &str) -> Plan {
    Plan {
        answer: None,
        ask_others: false,
        warning: Some(format!("wills will not reach RocketMQ: {why}")),
    }
}

/// Decides from who else decides.
pub(crate) fn plan(deciders: &Deciders, is_2_1: bool) -> Plan {
    if let Some(why) = &deciders.unknown {
        return not_at_all(&format!(
            "mosquitto.conf could not be read to see who else checks access ({why})"
        ));
    }
    let hidden = deciders.before.first().map(|first| {
        format!(
            "wills that `{first}` allows may not reach RocketMQ, because its line stands before ours: \
             put `plugin …mosquitto_rocketmq.so` with its options before it"
        )
    });
    if deciders.nobody() {
        let answer = if is_2_1 {
            ERR_PLUGIN_IGNORE
        } else {
            c::MOSQ_ERR_SUCCESS
        };
        return Plan {
            answer: Some(answer),
            ask_others: false,
            warning: None,
        };
    }
    if is_2_1 {
        return plan_for_2_1(deciders, hidden);
    }
    if deciders.per_listener {
        return not_at_all(
            "with `per_listener_settings true` it can't be told who else checks access on our listener",
        );
    }
    if deciders.acl_file || deciders.plugins().any(|path| is_known_decider(path)) {
        return Plan {
            answer: Some(c::MOSQ_ERR_PLUGIN_DEFER),
            ask_others: true,
            warning: hidden,
        };
    }
    let other = deciders.plugins().next().map_or("", String::as_str);
    not_at_all(&format!(
        "it can't be told whether the plugin `{other}` checks access, and Mosquitto 2.0 has no neutral answer; an \
         `acl_file` (one with `topic readwrite #` keeps everything allowed) settles it"
    ))
}

fn plan_for_2_1(deciders: &Deciders, hidden: Option<String>) -> Plan {
    let last_is_behind_us =
        deciders.before.is_empty() || (deciders.acl_file && !deciders.per_listener);
    if last_is_behind_us {
        return Plan {
            answer: Some(ERR_PLUGIN_IGNORE),
            ask_others: true,
            warning: hidden,
        };
    }
    let first = deciders.before.first().map_or("", String::as_str);
    not_at_all(&format!(
        "the plugin `{first}` stands before ours, where Mosquitto 2.1 has no neutral answer: put \
         `plugin …mosquitto_rocketmq.so` with its options before it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deciders(acl_file: bool, before: &[&str], after: &[&str]) -> Deciders {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Deciders {
            acl_file,
            before: own(before),
            after: own(after),
            per_listener: false,
            unknown: None,
        }
    }

    #[test]
    fn alone_nobody_is_locked_out() {
        let alone = deciders(false, &[], &[]);
        assert_eq!(plan(&alone, false).answer, Some(0));
        assert_eq!(plan(&alone, true).answer, Some(32));
        assert!(!plan(&alone, true).ask_others);
    }

    #[test]
    fn with_an_acl_file_the_file_decides() {
        let file = deciders(true, &[], &[]);
        assert_eq!(plan(&file, false).answer, Some(17));
        assert_eq!(plan(&file, true).answer, Some(32));
        assert!(plan(&file, false).ask_others && plan(&file, true).ask_others);
    }

    #[test]
    fn on_2_1_ignore_never_follows_another_plugins_defer() {
        assert_eq!(plan(&deciders(false, &["x.so"], &[]), true).answer, None);
        assert_eq!(
            plan(&deciders(false, &["x.so"], &["y.so"]), true).answer,
            None
        );
        assert_eq!(
            plan(&deciders(false, &[], &["y.so"]), true).answer,
            Some(32)
        );
        // The acl_file's callback is registered behind all plugins.
        assert_eq!(plan(&deciders(true, &["x.so"], &[]), true).answer, Some(32));
    }

    #[test]
    fn on_2_0_an_unknown_plugin_is_left_alone() {
        let unknown = plan(&deciders(false, &[], &["/lib/payload_filter.so"]), false);
        assert_eq!(unknown.answer, None);
        assert!(
            unknown
                .warning
                .is_some_and(|w| w.contains("payload_filter.so"))
        );
        let known = plan(
            &deciders(false, &[], &["/lib/mosquitto_dynamic_security.so"]),
            false,
        );
        assert_eq!(known.answer, Some(17));
    }

    #[test]
    fn a_plugin_before_ours_and_a_listener_without_it_keep_checks_from_us() {
        let first = |text: &str, is_2_1| {
            let text = text.replace("OURS", "plugin /x/mosquitto_rocketmq.so");
            is_heard_first(&BrokerConf::of_text(&text), is_2_1)
        };
        let dynsec = "plugin /x/mosquitto_dynamic_security.so\n";
        for is_2_1 in [false, true] {
            assert!(first("listener 1883\nOURS\n", is_2_1));
            assert!(first("listener 1883\nOURS\nacl_file /f\n", is_2_1));
            assert!(first(&format!("listener 1883\nOURS\n{dynsec}"), is_2_1));
            assert!(!first(&format!("listener 1883\n{dynsec}OURS\n"), is_2_1));
            let some = "per_listener_settings true\nlistener 1883\nOURS\nlistener 1884\n";
            assert!(!first(some, is_2_1));
        }
        assert!(!first("listener 1883\nOURS\nplugin /x/y.so\n", false));
    }

    #[test]
    fn what_cannot_be_known_is_not_guessed() {
        let unread = Deciders {
            unknown: Some("no such file".to_owned()),
            ..Deciders::default()
        };
        assert_eq!(plan(&unread, false).answer, None);
        assert_eq!(plan(&unread, true).answer, None);
        let listeners = Deciders {
            per_listener: true,
            ..deciders(true, &[], &[])
        };
        assert_eq!(plan(&listeners, false).answer, None);
    }
}
