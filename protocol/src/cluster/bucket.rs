//! Topic buckets: the tag by which a node asks RocketMQ for what its subscribers can want, and for little else.
//!
//! A message's tag tells the first two levels of its MQTT topic: two characters for the first (1,024 values), two for the second (256 values, and one
//! for topics of a single level). A filter that names both levels needs one tag, `a/#` needs 257, `+/b` needs 1,025, and
//! what leaves both open needs all messages. Different levels may share a value: exact filtering is Mosquitto's.
//!
//! Retained messages have a tag of their own, [`RETAINED_TAG`]: every node needs every one of them. So have those for one client, [`DIRECT_TAG`].
//!
//! The tags are a format: nodes of one cluster must agree on them.

use std::collections::BTreeSet;

/// The tag of retained messages.
pub const RETAINED_TAG: &str = "R";
/// The tag of messages for one client each (`p2p/<client id>`), wherever that is: every node looks for its own among them.
pub const DIRECT_TAG: &str = "P";
/// Their first level.
const DIRECT: &str = "p2p";

/// Stands for "no second level".
const NO_LEVEL: &str = "__";
const FIRST_VALUES: u32 = 1024;
const SECOND_VALUES: u32 = 256;
/// With more tags than this an expression costs RocketMQ more than the messages it keeps away.
const TAGS_MAX: usize = 4096;
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The client that a message published on this topic is for: on `p2p/<client id>`.
pub fn addressee(topic: &str) -> Option<&str> {
    let client = topic.strip_prefix(DIRECT)?.strip_prefix('/')?;
    (!client.is_empty()).then_some(client)
}

/// The tag of a message on this topic that is not retained.
pub fn bucket_of(topic: &str) -> String {
    if addressee(topic).is_some() {
        return DIRECT_TAG.to_owned();
    }
    let mut levels = topic.split('/');
    let mut tag = first(levels.next().unwrap_or_default());
    match levels.next() {
        Some(level) => tag.push_str(&second(level)),
        None => tag.push_str(NO_LEVEL),
    }
    tag
}

/// The tag of what is kept for this client. Different clients may share one.
pub fn client_tag(client_id: &str) -> String {
    let hash = crc32c::crc32c(client_id.as_bytes());
    let digit = |shift: u32| char::from(DIGITS[(hash >> shift) as usize % DIGITS.len()]);
    [0, 5, 10, 15].map(digit).iter().collect()
}

/// A set of buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Buckets {
    /// Everything.
    All,
    /// Those with these tags.
    Some(BTreeSet<String>),
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets::Some(BTreeSet::new())
    }
}

impl Buckets {
    /// Adds those of the other set. Too many become all.
    pub fn extend(&mut self, other: &Buckets) {
        match (&mut *self, other) {
            (Buckets::Some(tags), Buckets::Some(more)) => {
                tags.extend(more.iter().cloned());
                if tags.len() > TAGS_MAX {
                    *self = Buckets::All;
                }
            }
            (_, Buckets::All) => *self = Buckets::All,
            (Buckets::All, _) => {}
        }
    }

    /// As RocketMQ wants it: `*`, or the tags with bars and without blanks. Empty when there is none.
    pub fn expression(&self) -> String {
        match self {
            Buckets::All => "*".to_owned(),
            Buckets::Some(tags) => tags
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("||"),
        }
    }

    /// Whether a message with this tag is in it.
    pub fn contains(&self, tag: &str) -> bool {
        match self {
            Buckets::All => true,
            Buckets::Some(tags) => tags.contains(tag),
        }
    }
}

/// The buckets that messages for a subscription can be in: a topic filter, or `$share/<group>/<filter>`.
pub fn buckets_of_filter(filter: &str) -> Buckets {
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => shared.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    };
    let mut levels = filter.split('/');
    let one = levels.next().unwrap_or_default();
    let two = levels.next();
    let firsts = match one {
        "#" => return Buckets::All,
        "+" => (0..FIRST_VALUES).map(first_of).collect(),
        level => vec![first(level)],
    };
    let seconds = match two {
        None => vec![NO_LEVEL.to_owned()],
        // `a/#` matches `a` too.
        Some("#") => {
            let all = (0..SECOND_VALUES).map(second_of);
            all.chain([NO_LEVEL.to_owned()]).collect()
        }
        Some("+") => (0..SECOND_VALUES).map(second_of).collect(),
        Some(level) => vec![second(level)],
    };
    if firsts.len() * seconds.len() > TAGS_MAX {
        return Buckets::All;
    }
    let direct = matches!(one, "+" | DIRECT) && two.is_some();
    let pairs = firsts
        .iter()
        .flat_map(|first| seconds.iter().map(move |second| format!("{first}{second}")));
    let direct = direct.then(|| DIRECT_TAG.to_owned());
    Buckets::Some(pairs.chain(direct).collect())
}

fn first(level: &str) -> String {
    first_of(crc32c::crc32c(level.as_bytes()) % FIRST_VALUES)
}

fn second(level: &str) -> String {
    second_of(crc32c::crc32c(level.as_bytes()) % SECOND_VALUES)
}

fn first_of(value: u32) -> String {
    digits(value / 32, value % 32)
}

fn second_of(value: u32) -> String {
    digits(value / 16, value % 16)
}

fn digits(high: u32, low: u32) -> String {
    [high, low]
        .map(|digit| char::from(DIGITS[digit as usize % DIGITS.len()]))
        .iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(filter: &str) -> Option<usize> {
        match buckets_of_filter(filter) {
            Buckets::All => None,
            Buckets::Some(tags) => Some(tags.len()),
        }
    }

    #[test]
    fn a_filter_needs_no_more_buckets_than_it_must() {
        for (filter, buckets) in [
            ("a", Some(1)),
            ("a/b", Some(1)),
            ("a/b/#", Some(1)),
            ("a/b/+/d", Some(1)),
            ("a/+", Some(256)),
            ("a/+/c", Some(256)),
            ("a/#", Some(257)),
            ("+", Some(1024)),
            ("+/b", Some(1025)),
            ("+/+", None),
            ("+/#", None),
            ("#", None),
            ("$share/group/a/b", Some(1)),
            ("$share/group/#", None),
        ] {
            assert_eq!(count(filter), buckets, "{filter}");
        }
    }

    #[test]
    fn whatever_matches_a_filter_is_in_one_of_its_buckets() {
        let levels = ["", "a", "b", "sensors", "ü", "p2p"];
        let mut topics: Vec<String> = levels.iter().map(|one| (*one).to_owned()).collect();
        for one in levels {
            for two in levels {
                topics.push(format!("{one}/{two}"));
                topics.push(format!("{one}/{two}/x"));
            }
        }
        let filters = [
            "#",
            "+",
            "a",
            "a/#",
            "a/+",
            "+/b",
            "+/b/#",
            "+/+",
            "a/b",
            "/#",
            "/+",
            "+/",
            "sensors/+/x",
            "p2p/#",
            "p2p/+",
            "p2p/a",
            "p2p/a/x",
            "p2p",
            "ü/#",
        ];
        for filter in filters {
            let mut trie = crate::trie::TopicTrie::new();
            trie.insert(filter, ()).unwrap();
            let buckets = buckets_of_filter(filter);
            for topic in topics.iter().filter(|topic| !topic.is_empty()) {
                let mut matches = false;
                trie.matches(topic, |()| matches = true);
                assert!(
                    !matches || buckets.contains(&bucket_of(topic)),
                    "{filter} {topic}"
                );
            }
        }
    }

    #[test]
    fn tags_are_a_format() {
        assert_eq!(bucket_of("sensors/7/temperature"), "250b");
        assert_eq!(bucket_of("chat"), "np__");
        assert_eq!(
            (bucket_of("p2p/c/1"), addressee("p2p/c/1")),
            ("P".into(), Some("c/1"))
        );
        assert_eq!(
            (addressee("p2p/"), addressee("p2p"), addressee("p2px/c")),
            (None, None, None)
        );
        assert_eq!(client_tag("device-1").len(), 4);
        assert_eq!(client_tag("device-1"), client_tag("device-1"));
        assert_ne!(client_tag("device-1"), client_tag("device-2"));
        assert!(!Buckets::Some([bucket_of("chat")].into()).contains(RETAINED_TAG));
    }

    #[test]
    fn too_many_buckets_are_all() {
        let mut sum = Buckets::default();
        for level in 0..16 {
            sum.extend(&buckets_of_filter(&format!("{level}/#")));
        }
        assert_eq!(sum, Buckets::All);
        assert_eq!(sum.expression(), "*");
        let mut few = buckets_of_filter("b/c");
        few.extend(&buckets_of_filter("a"));
        assert_eq!(few.expression().split("||").count(), 2);
    }
}
