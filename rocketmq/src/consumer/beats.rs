//! When a broker is to hear from us: every half minute, and when what we register there is another expression now.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::expression;
use crate::Subscription;
use crate::client::unix_ms;
use crate::heartbeat::Registered;

const PAUSE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(super) struct Beats {
    registered: Vec<Registered>,
    /// By address: when it has heard, and of which version.
    heard: HashMap<String, (Instant, i64)>,
}

impl Beats {
    /// Takes the expressions of the moment.
    pub(super) fn look(&mut self, subscriptions: &[Subscription]) {
        self.update(subscriptions.iter().map(|subscription| {
            let topic = subscription.topic.clone();
            (topic, expression(&subscription.select))
        }));
    }

    fn update(&mut self, expressions: impl Iterator<Item = (String, String)>) {
        let version = unix_ms().max(self.version() + 1);
        let old = std::mem::take(&mut self.registered);
        let registered = expressions.map(|(topic, expression)| {
            let same = old
                .iter()
                .find(|one| one.topic == topic && one.expression == expression);
            let version = same.map_or(version, |one| one.version);
            Registered {
                topic,
                expression,
                version,
            }
        });
        self.registered = registered.collect();
    }

    pub(super) fn registered(&self) -> &[Registered] {
        &self.registered
    }

    fn version(&self) -> i64 {
        let versions = self.registered.iter().map(|one| one.version);
        versions.max().unwrap_or(0)
    }

    /// Which of these are to hear from us now. Others are forgotten.
    pub(super) fn due(&mut self, addresses: HashSet<String>) -> Vec<String> {
        self.heard.retain(|address, _| addresses.contains(address));
        let version = self.version();
        let is_due = |address: &String| {
            self.heard
                .get(address)
                .is_none_or(|(at, of)| at.elapsed() >= PAUSE || *of < version)
        };
        addresses.into_iter().filter(is_due).collect()
    }

    pub(super) fn sent(&mut self, address: String) {
        let version = self.version();
        self.heard.insert(address, (Instant::now(), version));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_expression_is_told_at_once_and_with_a_higher_version() {
        let mut beats = Beats::default();
        let update = |beats: &mut Beats, of_a: &str| {
            let expressions = [("A", of_a), ("B", "*")];
            beats.update(
                expressions
                    .map(|(topic, tags)| (topic.to_owned(), tags.to_owned()))
                    .into_iter(),
            );
        };
        let addresses = || HashSet::from(["one:1".to_owned()]);
        update(&mut beats, "x");
        assert_eq!(beats.due(addresses()), ["one:1"]);
        assert_eq!(beats.due(addresses()), ["one:1"], "it has not heard");
        beats.sent("one:1".to_owned());
        update(&mut beats, "x");
        assert!(beats.due(addresses()).is_empty());
        let before = beats.registered().to_vec();
        update(&mut beats, "x||y");
        assert_eq!(beats.due(addresses()), ["one:1"]);
        assert!(beats.registered()[0].version > before[0].version);
        assert_eq!(beats.registered()[1], before[1]);
    }
}
