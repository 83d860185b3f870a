//! The topic trie: which filters match a topic.
//!
//! A look-up walks the topic's levels once and branches only where a filter has a `+`: its cost depends on the topic
//! and on the filters that match its beginning, not on how many filters there are. It allocates nothing.

use rustc_hash::FxHashMap;

use crate::topic::TopicError;
pub use crate::topic::{validate_filter, validate_topic};

/// So many children are compared one after the other, which is faster than to compute a hash.
const LIST_MAX: usize = 4;

/// The nodes below a node, by level. Keys come from the configuration and a topic is only looked up, so nobody outside can make hashes collide.
#[derive(Debug, Clone)]
enum Children<T> {
    List(Vec<(Box<[u8]>, Node<T>)>),
    Map(FxHashMap<Box<[u8]>, Node<T>>),
}

impl<T> Children<T> {
    fn get(&self, level: &[u8]) -> Option<&Node<T>> {
        match self {
            Children::List(list) => list
                .iter()
                .find(|(key, _)| **key == *level)
                .map(|(_, node)| node),
            Children::Map(map) => map.get(level),
        }
    }

    fn get_or_insert(&mut self, level: &[u8]) -> &mut Node<T> {
        if let Children::List(list) = self
            && list.len() == LIST_MAX
            && list.iter().all(|(key, _)| **key != *level)
        {
            *self = Children::Map(list.drain(..).collect());
        }
        match self {
            Children::List(list) => {
                let at = list.iter().position(|(key, _)| **key == *level);
                let at = at.unwrap_or_else(|| {
                    list.push((level.into(), Node::default()));
                    list.len() - 1
                });
                &mut list[at].1
            }
            Children::Map(map) => map.entry(level.into()).or_default(),
        }
    }

    fn is_empty(&self) -> bool {
        // A map is made of a full list.
        matches!(self, Children::List(list) if list.is_empty())
    }
}

#[derive(Debug, Clone)]
struct Node<T> {
    children: Children<T>,
    plus: Option<Box<Node<T>>>,
    /// Of filters that end here.
    here: Vec<T>,
    /// Of filters that go on with `#` and no more.
    below: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node {
            children: Children::List(Vec::new()),
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
                _ => node.children.get_or_insert(level.as_bytes()),
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
        let topic = topic.as_bytes();
        if topic.first() == Some(&b'$') {
            let (first, rest) = split_level(topic);
            if let Some(node) = self.root.children.get(first) {
                visit(node, rest, &mut f);
            }
        } else {
            visit(&self.root, Some(topic), &mut f);
        }
    }
}

fn split_level(topic: &[u8]) -> (&[u8], Option<&[u8]>) {
    // Levels are short: a plain loop is faster than a search that looks at many bytes at once.
    match topic.iter().position(|byte| *byte == b'/') {
        Some(at) => (&topic[..at], Some(&topic[at + 1..])),
        None => (topic, None),
    }
}

/// `rest` is what of the topic comes below `node`; nothing when the topic ends at it.
fn visit<T>(node: &Node<T>, rest: Option<&[u8]>, f: &mut impl FnMut(&T)) {
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
