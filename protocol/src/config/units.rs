//! Sizes and times with units.

use std::time::Duration;

/// Milliseconds in a second: the unit of [`parse_duration`]'s plain numbers where those are seconds.
pub(crate) const SECOND: u64 = 1000;
/// As [`SECOND`], where plain numbers are milliseconds.
pub(crate) const MILLISECOND: u64 = 1;

/// What a size may look like, for error messages.
pub(crate) const SIZE_FORM: &str = "64MiB, 1GiB, 500kB, or a plain number of bytes";
/// What a time may look like, for error messages.
pub(crate) const TIME_FORM: &str = "500ms, 5s, 2min, 1h";

const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// In milliseconds.
const TIMES: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Splits `64MiB` or `64 MiB` into its number and its unit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

fn unit_of(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .map(|(_, factor)| *factor)
}

/// Bytes: a whole number with a unit (KiB, MiB, GiB, TiB and K, M, G, T of 1024; kB, MB, GB, TB of 1000) or without.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    number.checked_mul(unit_of(SIZES, unit)?)
}

/// A time: a whole number with a unit. `plain_ms` is the unit of a plain number in milliseconds; without it only 0 may
/// be plain.
pub(crate) fn parse_duration(text: &str, plain_ms: Option<u64>) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let factor = match (unit, plain_ms) {
        ("", Some(factor)) => factor,
        ("", None) if number == 0 => 1,
        ("", None) => return None,
        (unit, _) => unit_of(TIMES, unit)?,
    };
    number.checked_mul(factor).map(Duration::from_millis)
}

/// Writes a size with the largest unit that needs no fraction.
pub(crate) fn format_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Writes a time with the largest unit that needs no fraction.
pub(crate) fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    for (unit, factor) in [("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if ms >= factor && ms.is_multiple_of(factor) {
            return format!("{}{unit}", ms / factor);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_and_decimal_units_and_plain_bytes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("64M", 64 << 20),
            ("1GiB", 1 << 30),
            ("1GB", 1_000_000_000),
            ("3kB", 3_000),
            ("3k", 3_072),
            ("10B", 10),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "1.5MiB",
            "-1",
            "64 Mi B",
            "64x",
            "99999999999999999999",
            "17179869184TiB",
            "１",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn times_take_units_and_plain_numbers_only_where_their_unit_is_known() {
        assert_eq!(
            parse_duration("500ms", None),
            Some(Duration::from_millis(500))
        );
        assert_eq!(parse_duration("5 s", None), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("2min", None), Some(Duration::from_secs(120)));
        assert_eq!(
            parse_duration("7d", None),
            Some(Duration::from_secs(604_800))
        );
        assert_eq!(parse_duration("0", None), Some(Duration::ZERO));
        assert_eq!(
            parse_duration("500", Some(MILLISECOND)),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            parse_duration("500", Some(SECOND)),
            Some(Duration::from_secs(500))
        );
        for text in ["5", "", "s", "1.5s", "5 parsecs", "-1s"] {
            assert_eq!(parse_duration(text, None), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [
            0,
            1,
            1023,
            1024,
            1025,
            5 << 20,
            (5 << 20) + 1,
            1 << 40,
            u64::MAX,
        ] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        for ms in [0, 1, 999, 1000, 1001, 60_000, 90_000, 3_600_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(
                parse_duration(&format_duration(duration), None),
                Some(duration)
            );
        }
    }
}
