//! A checksum in the last line of `options.conf`, so that a byte that a bad disk changed is not taken for an option.

const MARK: &str = "# crc32c ";

/// The text with its checksum in a last line, which is a comment to [`super::parse_options_file`].
pub fn seal(text: &str) -> String {
    format!("{text}{MARK}{:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// Whether the bytes are as they were sealed. A text without a checksum, such as one that people wrote, is.
pub fn is_sound(bytes: &[u8]) -> bool {
    let Some(at) = bytes
        .windows(MARK.len())
        .rposition(|window| window == MARK.as_bytes())
    else {
        // A seal whose mark is damaged leads here too: then what it seals is not damaged.
        return true;
    };
    let (text, seal) = bytes.split_at(at);
    let sum = format!("{:08x}\n", crc32c::crc32c(text));
    seal[MARK.len()..] == *sum.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_seen_unless_it_is_in_the_mark() {
        let text = "node_id edge-1\nnamesrv 10.0.0.1:9876\n";
        let sealed = seal(text);
        assert!(is_sound(sealed.as_bytes()) && is_sound(text.as_bytes()));
        for at in 0..sealed.len() {
            for change in [1, 4, 32, 255] {
                let mut bytes = sealed.clone().into_bytes();
                bytes[at] ^= change;
                let is_mark = (text.len()..text.len() + MARK.len()).contains(&at);
                assert_eq!(is_sound(&bytes), is_mark, "byte {at}, {change}");
            }
        }
        assert!(!is_sound(&sealed.as_bytes()[..sealed.len() - 3]), "cut off");
    }
}
