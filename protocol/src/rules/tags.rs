//! Tag expressions of downlink rules.

use super::RuleError;

/// One or more RocketMQ tags: `A||B`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags(String);

impl Tags {
    /// Reads `A||B`, with or without blanks around the bars; nothing for `*`, which stands for every tag.
    ///
    /// The blanks have to go: RocketMQ's client takes `A || B` and then silently receives nothing.
    ///
    /// # Errors
    /// When a tag is empty or has a character that a tag in an expression can't have.
    pub fn parse(text: &str) -> Result<Option<Tags>, RuleError> {
        const ALLOWED: &str = "tags joined by ||, such as A||B, or * for all";
        if text.trim() == "*" {
            return Ok(None);
        }
        let mut normal = String::with_capacity(text.len());
        for tag in text.split("||").map(str::trim) {
            if tag.is_empty() {
                return Err(RuleError::new(
                    format!("tags \"{text}\" has an empty tag"),
                    ALLOWED,
                ));
            }
            if let Some(c) = tag
                .chars()
                .find(|c| matches!(c, '|' | '*') || c.is_whitespace() || c.is_control())
            {
                return Err(RuleError::new(
                    format!("tag \"{tag}\" has the character {c:?}"),
                    ALLOWED,
                ));
            }
            if !normal.is_empty() {
                normal.push_str("||");
            }
            normal.push_str(tag);
        }
        Ok(Some(Tags(normal)))
    }

    /// The expression as RocketMQ's client wants it, without blanks.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tags.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split("||")
    }

    /// Whether a message with `tag` (nothing: it has none) is wanted.
    pub fn matches(&self, tag: Option<&str>) -> bool {
        tag.is_some_and(|tag| self.iter().any(|wanted| wanted == tag))
    }
}

impl std::fmt::Display for Tags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
