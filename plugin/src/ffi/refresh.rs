//! SIGHUP can add or remove an `acl_file` or a `password_file`. Then another answer is the neutral one: a SUCCESS of
//! ours that was right before would open what the new file closes.

use log::Level;

use super::plugin::{Plugin, read_acl_file};
use super::registration::Event;
use crate::acl;
use crate::broker_conf::BrokerConf;

impl Plugin {
    /// Called by RELOAD, after the broker has read its configuration and before it takes the files in use.
    /// Returns what was read.
    pub(super) fn refresh_neutral_answers(&self) -> Option<BrokerConf> {
        // Those who are there are checked next, and are none of the gate's business.
        self.follow_gate(false);
        let fresh = BrokerConf::of_this_process(self.around.plugin.clone());
        // Plugins are not loaded again: those of the start are still the ones.
        let conf = match fresh.with_plugins_of(&self.around.conf) {
            Ok(conf) => conf,
            Err(why) => {
                log::error!(
                    "mosquitto.conf could not be read again ({why}): if an acl_file or password_file was added to it \
                     or removed, restart Mosquitto"
                );
                return None;
            }
        };
        self.refresh_acl(&conf);
        self.refresh_auth(&conf);
        Some(conf)
    }

    fn refresh_acl(&self, conf: &BrokerConf) {
        let file = read_acl_file(conf, self.access.is_some());
        self.acl_file.replace(file);
        let plan = acl::plan(&conf.deciders(), self.around.is_2_1);
        let old = self.acl.replace(plan.clone());
        if old == plan {
            return;
        }
        self.set_registered(Event::AclCheck, plan.answer.is_some());
        if let Some(warning) = &plan.warning {
            self.broker.log(Level::Warn, warning);
        }
    }

    pub(super) fn set_registered(&self, event: Event, wanted: bool) {
        let has = self.registrations.borrow().has(event);
        if wanted && !has {
            let code = self.register(event);
            if code != 0 {
                log::error!(
                    "Mosquitto refused to report event {} (code {code})",
                    event.number()
                );
            }
        } else if !wanted && has {
            self.registrations.borrow_mut().remove(&self.broker, event);
        }
    }
}
