//! How any text gets through a RocketMQ property and back.
//!
//! RocketMQ separates properties by U+0001 and U+0002, and drops one with an empty value. So those are written as `%01`,
//! `%02`, and an empty value as `%00`. A `%` that would then be read as one of these is written as `%25`; every other `%`
//! stays as it is, so that ordinary text is never changed.

use std::borrow::Cow;

const EMPTY: &str = "%00";

/// The text as it stands in a property. Borrows when nothing has to change, which is nearly always.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed(EMPTY);
    }
    if !text.bytes().any(|byte| matches!(byte, 1 | 2 | b'%')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for (at, c) in text.char_indices() {
        match c {
            '\u{1}' => out.push_str("%01"),
            '\u{2}' => out.push_str("%02"),
            '%' if is_code(&text.as_bytes()[at + 1..]) => out.push_str("%25"),
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// What [`escape`] was given. Any text has a meaning: what isn't one of the codes stands for itself.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    if text == EMPTY {
        return Cow::Borrowed("");
    }
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = match rest.as_bytes().get(at + 1..at + 3) {
            Some(b"01") => Some('\u{1}'),
            Some(b"02") => Some('\u{2}'),
            Some(b"25") => Some('%'),
            _ => None,
        };
        out.push(code.unwrap_or('%'));
        rest = &rest[at + if code.is_some() { 3 } else { 1 }..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn is_code(after_percent: &[u8]) -> bool {
    matches!(after_percent.get(..2), Some(b"00" | b"01" | b"02" | b"25"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["a/b", "50%", "100%/x%zz", "%", "%2", "größe/温度"] {
            assert_eq!(escape(text), text);
            assert_eq!(unescape(text), text);
        }
    }

    #[test]
    fn separators_and_emptiness_have_codes() {
        assert_eq!(escape("a\u{1}b\u{2}"), "a%01b%02");
        assert_eq!(escape(""), "%00");
        assert_eq!(unescape("%00"), "");
        assert_eq!(escape("%01"), "%2501");
        assert_eq!(escape("%00"), "%2500");
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "[%0125a\u{1}\u{2}é]{0,24}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.is_empty());
            prop_assert!(!escaped.bytes().any(|byte| byte == 1 || byte == 2));
            prop_assert_eq!(unescape(&escaped), text.as_str());
        }

        #[test]
        fn any_property_can_be_unescaped(text in any::<String>()) {
            let _ = unescape(&text);
        }
    }
}
