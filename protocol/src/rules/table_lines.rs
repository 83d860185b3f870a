//! The lines of a rule table: `<id>\t<CRC32C of id and rule, 8 hexadecimal digits>\t<rule>`, each twice, and an empty line behind each.
//!
//! Twice, because without its rule a message can't be sent: a byte that a bad disk changes damages one copy. The empty lines keep
//! a line break that is changed from gluing both copies of a rule together.

use std::collections::HashMap;

/// What a table's bytes hold.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) ids: HashMap<String, u32>,
    pub(super) texts: HashMap<u32, String>,
    /// Some copy is missing or damaged: the table should be written anew.
    pub(super) is_damaged: bool,
}

/// A line, from 1, that can't be made good, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

/// A rule as it stands in the table.
pub(super) fn encode(id: u32, text: &str) -> String {
    let line = format!("{id}\t{:08x}\t{text}\n\n", crc(id, text));
    line.repeat(2)
}

fn crc(id: u32, text: &str) -> u32 {
    let id = id.to_string();
    crc32c::crc32c_append(crc32c::crc32c(id.as_bytes()), text.as_bytes())
}

/// A line whose checksum is right.
fn decode(line: &[u8]) -> Option<(u32, &str)> {
    let mut parts = std::str::from_utf8(line).ok()?.splitn(3, '\t');
    let (id, sum, text) = (parts.next()?, parts.next()?, parts.next()?);
    let id = id.parse().ok()?;
    (sum == format!("{:08x}", crc(id, text))).then_some((id, text))
}

/// Reads whole lines.
pub(super) fn parse(bytes: &[u8]) -> Result<Lines, BadLine> {
    let mut lines = Lines::default();
    let mut copies: HashMap<u32, u32> = HashMap::new();
    let mut bad = None;
    let mut is_last_bad = false;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let Some((id, text)) = decode(line) else {
            bad.get_or_insert(index + 1);
            is_last_bad = true;
            continue;
        };
        is_last_bad = false;
        if lines.texts.get(&id).is_some_and(|other| other != text) {
            return Err(BadLine {
                line: index + 1,
                problem: "has an id that an earlier line has",
            });
        }
        lines.texts.insert(id, text.to_owned());
        // A rule under two ids is harmless: both lead to it, and new messages get the first.
        lines.ids.entry(text.to_owned()).or_insert(id);
        *copies.entry(id).or_default() += 1;
    }
    let is_ended = bytes.is_empty() || bytes.ends_with(b"\n\n");
    lines.is_damaged = bad.is_some() || !is_ended || copies.values().any(|count| *count != 2);
    if let Some(line) = bad {
        let last = lines.texts.keys().max().copied().unwrap_or(0);
        // Ids are given from 1 on. A damaged line at the end may be the second copy of the last rule, or hide another one.
        let is_whole = lines.texts.len() as u64 == u64::from(last);
        let hides_one = is_last_bad && copies.get(&last).is_none_or(|count| *count > 1);
        if !is_whole || hides_one {
            return Err(BadLine {
                line,
                problem: "is damaged, and there is no good copy of it",
            });
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_single_byte_that_is_changed_loses_a_rule() {
        let rules = ["a/# T", "b/+/c U key=%c", "ü V"];
        let table: String = (1..)
            .zip(rules)
            .map(|(id, text)| encode(id, text))
            .collect();
        let whole = parse(table.as_bytes()).unwrap();
        assert!(!whole.is_damaged);
        for at in 0..table.len() {
            for change in [1, 2, 3, 16, 32, 128, 255, b'\n' ^ table.as_bytes()[at]] {
                if change == 0 {
                    continue;
                }
                let mut bytes = table.clone().into_bytes();
                bytes[at] ^= change;
                // What stands behind the last line break is a line that was being written.
                let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
                let found = parse(&bytes[..end])
                    .unwrap_or_else(|bad| panic!("byte {at} changed by {change:#x}: {bad:?}"));
                assert_eq!(found.texts, whole.texts, "byte {at} changed by {change:#x}");
                assert_eq!(found.ids, whole.ids);
            }
        }
    }

    #[test]
    fn a_rule_without_a_good_copy_is_an_error_and_never_another_rule() {
        let (first, second) = (encode(1, "a T"), encode(2, "b U"));
        let broken = |text: &str| text.replace("a T", "a X").replace("b U", "b X");
        for (table, line) in [
            (format!("{}{second}", broken(&first)), 1),
            (format!("{first}{}", broken(&second)), 5),
            (broken(&first), 1),
            ("nonsense\n".to_owned(), 1),
        ] {
            assert_eq!(parse(table.as_bytes()).unwrap_err().line, line, "{table:?}");
        }
        let twice = format!("{first}{}", encode(1, "b U"));
        assert_eq!(parse(twice.as_bytes()).unwrap_err().line, 5);
    }
}
