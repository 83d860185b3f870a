//! The trie against a matcher written from MQTT's words alone.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::topic::{LEVELS_MAX, TopicError};
use protocol::trie::{TopicTrie, validate_filter, validate_topic};

/// MQTT 5, section 4.7, level by level.
fn naive(filter: &str, topic: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let topic_levels: Vec<&str> = topic.split('/').collect();
    if topic.starts_with('$') && matches!(filter[0], "+" | "#") {
        return false;
    }
    for (index, level) in filter.iter().enumerate() {
        match (*level, topic_levels.get(index)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(topic_level)) if level == *topic_level => {}
            // `a/#` matches `a`: what follows is only the #.
            _ => return false,
        }
    }
    filter.len() == topic_levels.len()
}

fn matches(trie: &TopicTrie<usize>, topic: &str) -> Vec<usize> {
    let mut found = Vec::new();
    trie.matches(topic, |value| found.push(*value));
    found.sort_unstable();
    found
}

/// Few different levels, so that filters and topics often meet.
fn topic() -> impl Strategy<Value = String> {
    vec(prop_oneof!["", "a", "b", "ab", "\\$", "\\$SYS", "ä"], 1..6)
        .prop_map(|levels| levels.join("/"))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof!["", "a", "b", "ab", "\\$SYS", "ä", "\\+", "\\+"];
    (vec(level, 0..5), any::<bool>()).prop_filter_map("not empty", |(mut levels, hash)| {
        if hash {
            levels.push("#".to_owned());
        }
        let filter = levels.join("/");
        (!filter.is_empty()).then_some(filter)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_trie_finds_what_a_naive_matcher_finds(filters in vec(filter(), 0..20), topics in vec(topic(), 1..10)) {
        let mut trie = TopicTrie::new();
        for (index, filter) in filters.iter().enumerate() {
            trie.insert(filter, index).unwrap();
        }
        prop_assert_eq!(trie.len(), filters.len());
        for topic in topics {
            let expected: Vec<usize> =
                (0..filters.len()).filter(|index| naive(&filters[*index], &topic)).collect();
            prop_assert_eq!(matches(&trie, &topic), expected, "topic {}", topic);
        }
    }

    #[test]
    fn any_text_is_a_filter_or_an_error_and_any_text_can_be_looked_up(filter in "[a/+#$\\PC]{0,12}", topic in any::<String>()) {
        let mut trie = TopicTrie::new();
        let inserted = trie.insert(&filter, 0).is_ok();
        prop_assert_eq!(inserted, validate_filter(&filter).is_ok());
        prop_assert_eq!(trie.is_empty(), !inserted);
        matches(&trie, &topic);
    }
}

#[test]
fn wildcards_match_as_mqtt_says() {
    for (filter, topic, expected) in [
        ("sport/tennis/#", "sport/tennis", true),
        ("sport/tennis/#", "sport/tennis/player/ranking", true),
        ("sport/tennis/#", "sport/tennisx", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "a/b", true),
        ("#", "$SYS/broker", false),
        ("+/broker", "$SYS/broker", false),
        ("$SYS/#", "$SYS/broker", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/+", "$SYS/broker", true),
        ("a/+/#", "a", false),
        ("a/+/#", "a/b", true),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        ("a", "a/", false),
    ] {
        assert_eq!(
            naive(filter, topic),
            expected,
            "the reference: {filter} {topic}"
        );
        let mut trie = TopicTrie::new();
        trie.insert(filter, 0).unwrap();
        assert_eq!(
            !matches(&trie, topic).is_empty(),
            expected,
            "{filter} {topic}"
        );
    }
}

#[test]
fn filters_and_topics_are_checked_as_mosquitto_does() {
    for filter in ["a", "/", "a/+/b", "#", "+", "+/#", "$SYS/#", "a//", "ä/ö b"] {
        assert_eq!(validate_filter(filter), Ok(()), "{filter}");
    }
    for (filter, error) in [
        ("", TopicError::Empty),
        ("a#", TopicError::Hash),
        ("#/a", TopicError::Hash),
        ("a/#/b", TopicError::Hash),
        ("a+/b", TopicError::Plus),
        ("a/+b", TopicError::Plus),
        ("a\0b", TopicError::Character(0)),
        ("a\u{85}b", TopicError::Character(0x85)),
        ("a\u{ffff}", TopicError::Character(0xffff)),
    ] {
        assert_eq!(validate_filter(filter), Err(error), "{filter:?}");
    }
    assert_eq!(validate_topic("a/b c/ü"), Ok(()));
    assert_eq!(validate_topic("a/+"), Err(TopicError::Wildcard));
    assert_eq!(
        validate_topic(&"x".repeat(65_536)),
        Err(TopicError::TooLong)
    );
    assert_eq!(validate_topic(&"/".repeat(LEVELS_MAX - 1)), Ok(()));
    assert_eq!(
        validate_topic(&"/".repeat(LEVELS_MAX)),
        Err(TopicError::TooDeep)
    );
}
