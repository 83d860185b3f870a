//! Which uplink rules want which topic.

use protocol::config::Config;
use protocol::rules::{RuleTable, TableError};
use protocol::trie::TopicTrie;

/// Which rules want which topic. Immutable: a reload makes another.
#[derive(Debug)]
pub(crate) struct Wanted {
    trie: TopicTrie<u32>,
    /// The number of the share rules.
    shared: Option<u32>,
}

/// Why no rules could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WantedError {
    /// The rule table in the spool.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A filter; the configuration has checked it before.
    #[error("the uplink rule `{0}` has a topic filter that can't be used")]
    Filter(String),
}

impl Wanted {
    /// Gives every rule its number in the spool's rule table, and sorts them by filter.
    ///
    /// All share rules are one rule: what several of them match goes once.
    pub(crate) fn new(config: &Config, table: &mut RuleTable) -> Result<Wanted, WantedError> {
        let rules = &config.uplink;
        let shared = config.shared_uplink();
        let shared = shared.map(|rule| table.id_of(&rule.text)).transpose()?;
        let ids = table.ids_of(rules.iter().map(|rule| rule.text.as_str()))?;
        let mut trie = TopicTrie::new();
        for (rule, id) in rules.iter().zip(ids) {
            trie.insert(&rule.filter, id)
                .map_err(|_| WantedError::Filter(rule.text.clone()))?;
        }
        if let Some(id) = shared {
            for rule in &config.share {
                trie.insert(&rule.filter, id)
                    .map_err(|_| WantedError::Filter(rule.text.clone()))?;
            }
        }
        Ok(Wanted { trie, shared })
    }

    /// Calls `found` with the number of each rule that wants `topic`.
    pub(crate) fn matches(&self, topic: &str, mut found: impl FnMut(u32)) {
        self.trie.matches(topic, |id| found(*id));
    }

    /// Whether these rules share the message with the cluster.
    pub(crate) fn shares(&self, rules: &[u32]) -> bool {
        self.shared.is_some_and(|shared| rules.contains(&shared))
    }

    /// Whether any rule wants `topic`.
    pub(crate) fn wants(&self, topic: &str) -> bool {
        let mut wanted = false;
        self.trie.matches(topic, |_| wanted = true);
        wanted
    }
}
