//! The rules by their numbers in the frames: those under which a message was accepted, also when others hold now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::rules::{RuleTable, TableError, UplinkRule};

use crate::metrics::{Metrics, UpRule};

/// The table is not read again for the same unknown number before this has passed.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);
/// Unknown numbers that are remembered. More are only in a log that somebody has made up.
const MISSING_MAX: usize = 1024;

/// A rule and its counters.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) rule: UplinkRule,
    pub(super) counters: Arc<UpRule>,
}

/// Why there is no rule with a number.
#[derive(Debug)]
pub(super) enum NoRule {
    /// The table does not have it, or not as a rule.
    Missing(String),
    /// It can't be known now, because the table can't be read: to be asked again.
    Unreadable(TableError),
}

pub(super) struct Rules {
    table: RuleTable,
    metrics: Arc<Metrics>,
    known: HashMap<u32, Arc<Rule>>,
    /// Numbers that the table did not have when it was read last for them.
    missing: HashMap<u32, Instant>,
}

impl Rules {
    pub(super) fn new(table: RuleTable, metrics: Arc<Metrics>) -> Rules {
        Rules {
            table,
            metrics,
            known: HashMap::new(),
            missing: HashMap::new(),
        }
    }

    /// The rule with this number, or why there is none.
    ///
    /// The plugin writes a rule into the table before the first message that names it. So a number counts as missing only when
    /// the table was read behind the message that names it.
    pub(super) fn get(&mut self, id: u32) -> Result<Arc<Rule>, NoRule> {
        if let Some(rule) = self.known.get(&id) {
            return Ok(Arc::clone(rule));
        }
        self.look_up(id)?;
        let text = self
            .table
            .text_of(id)
            .ok_or_else(|| NoRule::Missing(format!("rule {id} is not in rules.table")))?;
        let rule = UplinkRule::parse(text)
            .map_err(|error| NoRule::Missing(format!("rule {id} ({text}): {error}")))?;
        let rule = Arc::new(Rule {
            rule,
            counters: self.metrics.up_rule(text),
        });
        self.known.insert(id, Arc::clone(&rule));
        Ok(rule)
    }

    /// Reads the table again for a number that it does not have yet.
    fn look_up(&mut self, id: u32) -> Result<(), NoRule> {
        let is_known_to_be_missing = self
            .missing
            .get(&id)
            .is_some_and(|when| when.elapsed() < RELOAD_PAUSE);
        if self.table.text_of(id).is_some() || is_known_to_be_missing {
            return Ok(());
        }
        match self.table.reload() {
            Ok(()) => {}
            Err(error @ TableError::Io { .. }) => return Err(NoRule::Unreadable(error)),
            Err(error) => log::error!("{error}"),
        }
        if self.missing.len() >= MISSING_MAX {
            self.missing.clear();
        }
        match self.table.text_of(id) {
            Some(_) => self.missing.remove(&id),
            None => self.missing.insert(id, Instant::now()),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_however_soon_after_another_one_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.table");
        let mut plugin = RuleTable::open(&path).unwrap();
        let mut rules = Rules::new(RuleTable::open_read(&path).unwrap(), Arc::default());
        for number in 1..20 {
            let id = plugin.id_of(&format!("a/{number} T")).unwrap();
            assert!(rules.get(id).is_ok(), "rule {id}");
            assert!(matches!(rules.get(id + 1000), Err(NoRule::Missing(_))));
        }
    }

    #[test]
    fn a_table_that_cannot_be_read_makes_no_rule_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.table");
        let mut rules = Rules::new(RuleTable::open_read(&path).unwrap(), Arc::default());
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(rules.get(1), Err(NoRule::Unreadable(_))));
        std::fs::remove_dir(&path).unwrap();
        RuleTable::open(&path).unwrap().id_of("a T").unwrap();
        assert!(rules.get(1).is_ok());
    }
}
