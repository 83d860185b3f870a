//! The topic trie: which filters match a topic.
//!
//! A look-up walks the topic's levels once and branches only where a filter has a `+`: its cost depends on the topic
//! and on the filters that match its beginning, not on how many filters there are. It allocates nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::topic::TopicError;
pub use crate::topic::{validate_filter, validate_topic};

/// FNV-1a. Keys come from the configuration and a topic is only looked up, so nobody outside can make keys collide;
/// levels are short, where this is several times as fast as the standard hasher.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Clone)]
struct Node<T> {
    children: HashMap<Box<str>, Node<T>, BuildHasherDefault<Fnv>>,
    plus: Option<Box<Node<T>>>,
    /// Of filters that end here.
    here: Vec<T>,
    /// Of filters that go on with `#` and no more.
    below: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node {
            children: HashMap::default(),
            plus: None,
            here: Vec::new(),
            below: Vec::new(),
        }
    }
}

/// Maps topic filters to values; a filter may have several.
#[derive(Debug, Clone)]
pub struct TopicTrie<T> {
    root: Node<T>,
    len: usize,
}

impl<T> Default for TopicTrie<T> {
    fn default() -> Self {
        TopicTrie {
            root: Node::default(),
            len: 0,
        }
    }
}

impl<T> TopicTrie<T> {
    /// A trie with no filter.
    pub fn new() -> TopicTrie<T> {
        TopicTrie::default()
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `value` under `filter`.
    ///
    /// # Errors
    /// When `filter` is not a topic filter; the trie is unchanged then.
    pub fn insert(&mut self, filter: &str, value: T) -> Result<(), TopicError> {
        validate_filter(filter)?;
        self.len += 1;
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = match level {
                // Only the last level can be `#`: it was checked.
                "#" => {
                    node.below.push(value);
                    return Ok(());
                }
                "+" => node.plus.get_or_insert_default(),
                _ => node.children.entry(level.into()).or_default(),
            };
        }
        node.here.push(value);
        Ok(())
    }

    /// Calls `f` with the value of each filter that matches `topic`, as MQTT matches them: a leading wildcard does not
    /// match a topic that begins with `$`, and `a/#` matches `a` too.
    ///
    /// Works on any text. The depth of the recursion is bounded by the deepest filter.
    pub fn matches(&self, topic: &str, mut f: impl FnMut(&T)) {
        if topic.starts_with('$') {
            let (first, rest) = split_level(topic);
            if let Some(node) = self.root.children.get(first) {
                visit(node, rest, &mut f);
            }
        } else {
            visit(&self.root, Some(topic), &mut f);
        }
    }
}

fn split_level(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}

/// `rest` is what of the topic comes below `node`; nothing when the topic ends at it.
fn visit<T>(node: &Node<T>, rest: Option<&str>, f: &mut impl FnMut(&T)) {
    node.below.iter().for_each(&mut *f);
    let Some(rest) = rest else {
        node.here.iter().for_each(&mut *f);
        return;
    };
    if node.children.is_empty() && node.plus.is_none() {
        return;
    }
    let (level, rest) = split_level(rest);
    if let Some(child) = node.children.get(level) {
        visit(child, rest, f);
    }
    if let Some(plus) = &node.plus {
        visit(plus, rest, f);
    }
}
