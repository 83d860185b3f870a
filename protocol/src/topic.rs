//! MQTT topic names and topic filters (MQTT 5, section 4.7), with the limits that Mosquitto sets.

/// Levels of a topic that Mosquitto takes (`TOPIC_HIERARCHY_LIMIT` in its sources: 200 slashes).
pub const LEVELS_MAX: usize = 201;
/// Bytes of an MQTT string.
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Why a text is not a topic name or not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// It is longer than an MQTT string can be.
    #[error("is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// It has more levels than Mosquitto takes.
    #[error("has more than {LEVELS_MAX} levels")]
    TooDeep,
    /// It has a control character or a Unicode non-character, which Mosquitto refuses in any topic.
    #[error("has a control character or non-character ({0:#06x})")]
    Character(u32),
    /// `+` or `#` in a topic name.
    #[error("has a wildcard (+ or #), which a topic to publish on can't have")]
    Wildcard,
    /// `+` that does not fill its level.
    #[error("has a + that does not stand alone between slashes")]
    Plus,
    /// `#` that is not the whole last level.
    #[error("has a # that is not the whole last level")]
    Hash,
}

fn validate_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if text.bytes().filter(|byte| *byte == b'/').count() >= LEVELS_MAX {
        return Err(TopicError::TooDeep);
    }
    match text.chars().find(|c| is_refused(*c)) {
        Some(c) => Err(TopicError::Character(c.into())),
        None => Ok(()),
    }
}

/// What Mosquitto's UTF-8 check refuses beside broken UTF-8 (`mosquitto_validate_utf8`).
fn is_refused(c: char) -> bool {
    let point = u32::from(c);
    c.is_control() || (0xFDD0..=0xFDEF).contains(&point) || point & 0xFFFE == 0xFFFE
}

/// Checks a topic to publish on.
///
/// # Errors
/// With the first rule of MQTT or Mosquitto that it breaks.
pub fn validate_topic(topic: &str) -> Result<(), TopicError> {
    validate_common(topic)?;
    if topic.contains(['+', '#']) {
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

/// Checks a topic filter.
///
/// # Errors
/// With the first rule of MQTT or Mosquitto that it breaks.
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    validate_common(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::Hash);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::Plus);
        }
    }
    Ok(())
}

/// Whether a filter matches a topic. Both are valid; for many filters at once there is the [trie](crate::trie).
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') != filter.starts_with('$') {
        // A wildcard at the beginning matches no topic that begins with `$`, and nothing else begins alike.
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trie::TopicTrie;

    #[test]
    fn a_filter_matches_what_the_trie_says() {
        let topics = ["a", "a/b", "a/b/c", "/", "a/", "/a", "$SYS/a", "$SYS", "ab"];
        let filters = [
            "a", "a/#", "#", "+", "+/+", "a/+", "a/b/#", "+/b", "/+", "+/", "$SYS/#", "$SYS/+",
            "a/b/c/#",
        ];
        for filter in filters {
            let mut trie = TopicTrie::new();
            trie.insert(filter, ()).unwrap();
            for topic in topics {
                let mut found = false;
                trie.matches(topic, |()| found = true);
                assert_eq!(filter_matches(filter, topic), found, "{filter} {topic}");
            }
        }
    }
}
