//! Something for each tag, and for all at once.

use std::collections::BTreeMap;

use crate::Interest;

/// More tags than this are not told to the broker, which is asked for everything then.
const TAGS_TOLD_MAX: usize = 4096;
/// What is asked for when nothing is wanted, so that reading keeps up with the queue all the same: an empty expression means
/// everything. Should a message carry this tag, it is left out here.
const NOTHING: &str = "%nothing%";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ByTag<V> {
    pub(super) all: Option<V>,
    pub(super) tags: BTreeMap<String, V>,
}

impl<V> Default for ByTag<V> {
    fn default() -> Self {
        ByTag {
            all: None,
            tags: BTreeMap::new(),
        }
    }
}

impl<V> ByTag<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_none() && self.tags.is_empty()
    }

    /// What holds for messages with this tag.
    pub(super) fn of(&self, tag: Option<&str>) -> impl Iterator<Item = &V> {
        let tagged = tag.and_then(|tag| self.tags.get(tag));
        self.all.iter().chain(tagged)
    }

    /// What stands for exactly this: a tag, or none for all.
    pub(super) fn get(&self, key: Option<&str>) -> Option<&V> {
        match key {
            Some(tag) => self.tags.get(tag),
            None => self.all.as_ref(),
        }
    }

    pub(super) fn remove(&mut self, key: Option<&str>) -> Option<V> {
        match key {
            Some(tag) => self.tags.remove(tag),
            None => self.all.take(),
        }
    }

    pub(super) fn insert(&mut self, key: Option<String>, value: V) {
        match key {
            Some(tag) => drop(self.tags.insert(tag, value)),
            None => self.all = Some(value),
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Option<&str>> {
        let all = self.all.iter().map(|_| None);
        all.chain(self.tags.keys().map(|tag| Some(tag.as_str())))
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = (Option<String>, V)> {
        let all = self.all.into_iter().map(|value| (None, value));
        all.chain(self.tags.into_iter().map(|(tag, value)| (Some(tag), value)))
    }

    /// As RocketMQ takes it: `*`, or the tags with bars and without blanks.
    pub(super) fn expression(&self) -> String {
        if self.all.is_some() || self.tags.len() > TAGS_TOLD_MAX {
            return "*".to_owned();
        }
        if self.tags.is_empty() {
            return NOTHING.to_owned();
        }
        let tags: Vec<&str> = self.tags.keys().map(String::as_str).collect();
        tags.join("||")
    }
}

impl ByTag<i64> {
    /// Since when each is of interest.
    pub(super) fn since(interest: &Interest) -> ByTag<i64> {
        ByTag {
            all: interest.all_since_ms,
            tags: interest.tags.clone(),
        }
    }

    /// The same value for each tag of an expression.
    pub(super) fn of_expression(expression: &str, value: i64) -> ByTag<i64> {
        if expression == "*" {
            return ByTag {
                all: Some(value),
                tags: BTreeMap::new(),
            };
        }
        let tags = expression.split("||");
        ByTag {
            all: None,
            tags: tags.map(|tag| (tag.to_owned(), value)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_has_bars_and_no_blanks_and_is_never_empty() {
        let mut wanted = ByTag::of_expression("b||a", 1);
        assert_eq!(wanted.expression(), "a||b");
        wanted.insert(None, 2);
        assert_eq!(wanted.expression(), "*");
        assert_eq!(ByTag::of_expression("*", 1).expression(), "*");
        // It would mean everything.
        assert_eq!(ByTag::<i64>::default().expression(), NOTHING);
        let many = (0..=TAGS_TOLD_MAX)
            .map(|tag| (tag.to_string(), 0))
            .collect();
        let many = ByTag {
            all: None,
            tags: many,
        };
        assert_eq!(many.expression(), "*");
    }

    #[test]
    fn what_holds_for_all_holds_for_each() {
        let mut wanted = ByTag::of_expression("a", 1);
        let of = |wanted: &ByTag<i64>, tag| wanted.of(tag).copied().collect::<Vec<_>>();
        assert_eq!(of(&wanted, Some("a")), [1]);
        assert!(of(&wanted, Some("b")).is_empty());
        assert!(of(&wanted, None).is_empty());
        wanted.insert(None, 2);
        assert_eq!(of(&wanted, Some("a")), [2, 1]);
        assert_eq!(of(&wanted, None), [2]);
        assert_eq!(wanted.get(Some("b")), None);
        assert_eq!(wanted.keys().collect::<Vec<_>>(), [None, Some("a")]);
    }
}
