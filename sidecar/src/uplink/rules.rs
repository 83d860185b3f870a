//! The rules by their numbers in the frames: those under which a message was accepted, also when others hold now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::rules::{RuleTable, UplinkRule};

use crate::metrics::{Metrics, UpRule};

/// The table is not read again for unknown numbers before this has passed.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// A rule and its counters.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) rule: UplinkRule,
    pub(super) counters: Arc<UpRule>,
}

pub(super) struct Rules {
    table: RuleTable,
    metrics: Arc<Metrics>,
    known: HashMap<u32, Arc<Rule>>,
    reloaded: Option<Instant>,
}

impl Rules {
    pub(super) fn new(table: RuleTable, metrics: Arc<Metrics>) -> Rules {
        Rules {
            table,
            metrics,
            known: HashMap::new(),
            reloaded: None,
        }
    }

    /// The rule with this number, or why there is none.
    pub(super) fn get(&mut self, id: u32) -> Result<Arc<Rule>, String> {
        if let Some(rule) = self.known.get(&id) {
            return Ok(Arc::clone(rule));
        }
        if self.table.text_of(id).is_none()
            && self
                .reloaded
                .is_none_or(|when| when.elapsed() >= RELOAD_PAUSE)
        {
            self.reloaded = Some(Instant::now());
            if let Err(error) = self.table.reload() {
                log::error!("{error}");
            }
        }
        let text = self
            .table
            .text_of(id)
            .ok_or_else(|| format!("rule {id} is not in rules.table"))?;
        let rule =
            UplinkRule::parse(text).map_err(|error| format!("rule {id} ({text}): {error}"))?;
        let rule = Arc::new(Rule {
            rule,
            counters: self.metrics.up_rule(text),
        });
        self.known.insert(id, Arc::clone(&rule));
        Ok(rule)
    }
}
