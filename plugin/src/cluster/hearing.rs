//! Whether this broker tells us of every client and every subscription.
//!
//! 2.1 does, with events of their own. On 2.0 the checks of logins and of access tell, and those reach us only where a neutral answer is known (`acl`,
//! `wake::plan`) and nobody answers before us.

use crate::acl;
use crate::broker_conf::BrokerConf;
use crate::wake::{self, AuthPlan};

/// Why not everything is heard. `None`: it is.
pub(super) fn deaf_because(conf: &BrokerConf, is_2_1: bool) -> Option<String> {
    let deciders = conf.deciders();
    if conf.conf.is_ok() && !conf.is_for_all_listeners() {
        return Some(
            "our plugin belongs to some of the listeners, and hears of the clients of those alone"
                .to_owned(),
        );
    }
    if is_2_1 {
        return None;
    }
    let plan = acl::plan(&deciders, is_2_1);
    if plan.answer.is_none() {
        let why = deciders.unknown.as_deref().map_or_else(
            || "who else checks access leaves no neutral answer to Mosquitto 2.0".to_owned(),
            |why| format!("mosquitto.conf could not be read ({why})"),
        );
        return Some(format!("subscriptions can't be heard: {why}"));
    }
    if let Some(first) = deciders.before.first() {
        return Some(format!(
            "what `{first}` allows can't be heard, because its line stands before ours: put `plugin \
             …mosquitto_rocketmq.so` with its options before it"
        ));
    }
    let parsed = conf.conf.as_ref().ok()?;
    if parsed
        .listeners
        .iter()
        .any(|listener| listener.names_from_certificates)
    {
        return Some("logins can't be heard: Mosquitto 2.0 lets clients with certificates in without asking a plugin".to_owned());
    }
    match wake::auth_plan(parsed, &deciders) {
        AuthPlan::Impossible(why) => Some(format!("logins can't be heard: {why}")),
        AuthPlan::Answer(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn because(text: &str, is_2_1: bool) -> String {
        let text = text.replace("OURS", "plugin /x/mosquitto_rocketmq.so");
        deaf_because(&BrokerConf::of_text(&text), is_2_1).unwrap_or_default()
    }

    #[test]
    fn alone_and_with_an_acl_file_all_is_heard() {
        for is_2_1 in [false, true] {
            assert_eq!(
                because("listener 1883\nOURS\nallow_anonymous true\n", is_2_1),
                ""
            );
            assert_eq!(
                because(
                    "listener 1883\nOURS\nacl_file /f\npassword_file /p\n",
                    is_2_1
                ),
                ""
            );
        }
    }

    #[test]
    fn on_2_0_other_plugins_may_keep_it_from_us() {
        let dynsec = "plugin /x/mosquitto_dynamic_security.so\n";
        let behind = format!("listener 1883\nOURS\n{dynsec}");
        let before = format!("listener 1883\n{dynsec}OURS\n");
        assert_eq!(because(&behind, false), "");
        assert!(because(&before, false).contains("stands before ours"));
        assert!(because("listener 1883\nOURS\nplugin /x/y.so\n", false).contains("subscriptions"));
        let unknown = "listener 1883\nOURS\nacl_file /f\nplugin /x/y.so\nallow_anonymous true\n";
        assert!(because(unknown, false).contains("logins"));
        let certificates = "listener 8883\nuse_identity_as_username true\nOURS\n";
        assert!(because(certificates, false).contains("certificates"));
        for text in [behind.as_str(), &before, unknown, certificates] {
            assert_eq!(because(text, true), "");
        }
    }

    #[test]
    fn the_clients_of_other_listeners_are_not_heard() {
        let one = "per_listener_settings true\nlistener 1883\nOURS\nallow_anonymous true\n";
        let two = format!("{one}listener 1884\nallow_anonymous true\n");
        for is_2_1 in [false, true] {
            assert_eq!(because(one, is_2_1), "");
            assert!(because(&two, is_2_1).contains("some of the listeners"));
        }
        let global = two.replace("OURS", "global_OURS");
        assert_eq!(because(&global, true), "");
        let used = "plugin_load us /x/mosquitto_rocketmq.so\nlistener 1883\nplugin_use us\nlistener 1884\n";
        assert!(because(used, true).contains("some of the listeners"));
    }
}
