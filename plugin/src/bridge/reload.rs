//! What changes when Mosquitto is told to read its configuration again.

use std::rc::Rc;

use protocol::counters as count;

use super::Bridge;
use crate::broker_conf::BrokerConf;
use crate::carriers;
use crate::spool::{self, Durability};
use crate::wanted::Wanted;

impl Bridge {
    /// Mosquitto has read its configuration again.
    pub(crate) fn broker_reloaded(&mut self, conf: &BrokerConf) {
        if let Some(limits) = conf.queue_limits() {
            self.parts.pressure.set_limits(limits);
        }
        if let Some(cluster) = &mut self.parts.cluster {
            cluster.reconsider(conf);
        }
        // Since 2.1 that may be others.
        let dir = &self.parts.config.spool_dir;
        if let Err(error) = carriers::tell_own(dir, conf, Durability::Written) {
            log::warn!("{error}");
        }
    }

    /// RELOAD: the rules file again. Bad rules leave the old ones at work.
    pub(crate) fn reload(&mut self) {
        self.gate.on_reload();
        if let Some(cluster) = &mut self.parts.cluster {
            cluster.on_reload();
        }
        match self.try_reload() {
            Ok(()) => {
                let config = &self.parts.config;
                self.parts.counters.add(count::RELOADS_OK, 1);
                log::info!(
                    "rules read again: {} uplink, {} downlink",
                    config.uplink.len(),
                    config.downlink.len()
                );
            }
            Err(error) => {
                self.parts.counters.add(count::RELOADS_FAILED, 1);
                log::error!("the new rules were not taken, the old ones stay at work: {error}");
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let parts = &mut self.parts;
        let fresh = parts.config.reload_rules()?;
        let wanted = Rc::new(Wanted::new(&fresh, &mut parts.table)?);
        spool::write_options(
            &fresh.spool_dir,
            &fresh.effective_options(),
            Durability::Written,
        )?;
        parts.uplink.set_wanted(wanted);
        parts.config = fresh;
        Ok(())
    }
}
