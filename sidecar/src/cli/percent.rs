//! Values in the query of an address.

use std::fmt::Write as _;

/// The text, with all but letters, digits and `-._` as `%XX`.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                out.push(char::from(byte));
            }
            // Writing into a string can't fail.
            other => drop(write!(out, "%{other:02X}")),
        }
    }
    out
}

/// What [`encode`] was given; nothing when it is no text.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_gets_through() {
        for text in ["", "sensor-7", "a b&c=d%+#/ü", "\n"] {
            let encoded = encode(text);
            assert!(encoded.is_ascii() && !encoded.contains(['&', '=', ' ', '+']));
            assert_eq!(decode(&encoded).as_deref(), Some(text));
        }
        assert_eq!(decode("%4"), None);
        assert_eq!(decode("%FF"), None);
    }
}
