//! The ids of the rules that want a message.

/// Rule ids, either the plugin's own slice (to be encoded) or the bytes of a frame (decoded).
#[derive(Clone, Copy)]
pub struct RuleIds<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Ids(&'a [u32]),
    /// Little-endian, four bytes each; a frame's bytes have no alignment.
    Encoded(&'a [u8]),
}

impl<'a> RuleIds<'a> {
    /// No rule.
    pub const EMPTY: RuleIds<'static> = RuleIds(Source::Ids(&[]));

    /// Borrows ids for encoding.
    pub fn from_slice(ids: &'a [u32]) -> RuleIds<'a> {
        RuleIds(Source::Ids(ids))
    }

    pub(super) fn from_encoded(bytes: &'a [u8]) -> RuleIds<'a> {
        RuleIds(Source::Encoded(bytes))
    }

    /// How many ids.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Ids(ids) => ids.len(),
            Source::Encoded(bytes) => bytes.len() / 4,
        }
    }

    /// Whether no rule wants the message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids in the order they were matched.
    pub fn iter(&self) -> RuleIdsIter<'a> {
        RuleIdsIter(self.0)
    }
}

impl Default for RuleIds<'_> {
    fn default() -> Self {
        RuleIds::EMPTY
    }
}

impl PartialEq for RuleIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for RuleIds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for RuleIds<'a> {
    type Item = u32;
    type IntoIter = RuleIdsIter<'a>;

    fn into_iter(self) -> RuleIdsIter<'a> {
        self.iter()
    }
}

/// Iterator over rule ids.
#[derive(Clone)]
pub struct RuleIdsIter<'a>(Source<'a>);

impl Iterator for RuleIdsIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            Source::Ids(ids) => {
                let (first, rest) = ids.split_first()?;
                *ids = rest;
                Some(*first)
            }
            Source::Encoded(bytes) => {
                let (first, rest) = bytes.split_first_chunk::<4>()?;
                *bytes = rest;
                Some(u32::from_le_bytes(*first))
            }
        }
    }
}
