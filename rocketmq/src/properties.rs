//! The user properties of a message on its way into RocketMQ.

use std::fmt::{Display, Write};

const NAME_END: char = '\u{1}';
const VALUE_END: char = '\u{2}';

/// User properties in the form in which RocketMQ carries them: `name U+0001 value U+0002`, one behind the other.
///
/// All in one piece of memory: a message has a dozen of them, and many messages are under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    text: String,
    count: usize,
    has_empty_name: bool,
}

impl Properties {
    /// None yet, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Properties {
        Properties {
            text: String::with_capacity(bytes),
            ..Properties::default()
        }
    }

    /// Adds one behind the others.
    pub fn push(&mut self, name: &str, value: &str) {
        self.begin(name);
        self.text.push_str(value);
        self.text.push(VALUE_END);
    }

    /// Adds one whose value is made of what is given.
    pub fn push_display(&mut self, name: &str, value: impl Display) {
        self.begin(name);
        // Writing to a string can't fail; a `Display` that fails leaves what it wrote.
        let _ = write!(self.text, "{value}");
        self.text.push(VALUE_END);
    }

    fn begin(&mut self, name: &str) {
        self.count += 1;
        self.has_empty_name |= name.is_empty();
        self.text.push_str(name);
        self.text.push(NAME_END);
    }

    /// Takes the last one off, if it has this name.
    pub fn pop_if_named(&mut self, name: &str) {
        let begin = self
            .text
            .strip_suffix(VALUE_END)
            .map(|text| text.rfind(VALUE_END).map_or(0, |at| at + 1));
        if let Some(begin) = begin
            && self.text[begin..]
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(NAME_END))
        {
            self.text.truncate(begin);
            self.count -= 1;
        }
    }

    /// Takes out all with this name.
    pub fn remove(&mut self, name: &str) {
        if self.contains(name) {
            *self = self.iter().filter(|(other, _)| *other != name).collect();
        }
    }

    /// Whether there is one with this name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of the first one with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text
            .split_terminator(VALUE_END)
            .map(|pair| pair.split_once(NAME_END).unwrap_or((pair, "")))
    }

    /// The same as pairs of their own.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        self.iter().map(own).collect()
    }

    /// What RocketMQ gets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether RocketMQ would read what was put in: no name is empty, and none of RocketMQ's separators is in a name or a value.
    pub fn is_legal(&self) -> bool {
        let count = |separator: char| {
            let bytes = self.text.bytes();
            bytes.filter(|byte| char::from(*byte) == separator).count()
        };
        !self.has_empty_name && count(NAME_END) == self.count && count(VALUE_END) == self.count
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Properties {
        let mut properties = Properties::default();
        for (name, value) in pairs {
            properties.push(name.as_ref(), value.as_ref());
        }
        properties
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let mut properties = Properties::with_capacity(64);
        properties.push("a", "1");
        properties.push_display("b", format_args!("{}{}", 2, 'x'));
        properties.push("a", "");
        assert_eq!(properties.as_str(), "a\u{1}1\u{2}b\u{1}2x\u{2}a\u{1}\u{2}");
        let pairs: Vec<_> = properties.iter().collect();
        assert_eq!(pairs, [("a", "1"), ("b", "2x"), ("a", "")]);
        assert_eq!(
            (properties.get("b"), properties.get("c")),
            (Some("2x"), None)
        );
        properties.remove("a");
        assert_eq!(properties.to_pairs(), [("b".into(), "2x".into())]);
        assert!(properties.is_legal());
    }

    #[test]
    fn only_the_last_one_is_taken_off_and_only_by_its_name() {
        let mut properties: Properties = [("lane", "1"), ("x", "2"), ("lane", "3")]
            .into_iter()
            .collect();
        properties.pop_if_named("lan");
        properties.pop_if_named("x");
        assert_eq!(properties.iter().count(), 3);
        properties.pop_if_named("lane");
        properties.pop_if_named("lane");
        assert_eq!(
            properties.to_pairs(),
            [("lane", "1"), ("x", "2")].map(|(n, v)| (n.into(), v.into()))
        );
        properties.pop_if_named("x");
        properties.pop_if_named("lane");
        properties.pop_if_named("lane");
        assert!(properties.as_str().is_empty() && properties.is_legal());
    }

    #[test]
    fn what_rocketmq_would_read_otherwise_is_not_legal() {
        for (name, value) in [("", "x"), ("a\u{1}b", "x"), ("a", "x\u{2}"), ("a", "\u{1}")] {
            let properties: Properties = [("before", "1"), (name, value)].into_iter().collect();
            assert!(!properties.is_legal(), "{name:?} {value:?}");
        }
    }
}
