//! Which Mosquitto this is.
//!
//! Its API does not tell, and libmosquitto's own number is not always the broker's (Debian's 2.1.2 says 2.1.0). But
//! the broker's file holds its version as a string of its own (`VERSION`, for the log), once.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::events::BrokerVersion;

/// Reads the version from the file that is mapped at `address`, an address of the broker's code. (Not from
/// `/proc/self/exe`: that is the loader when the broker was started through it.)
pub(crate) fn of_file_mapped_at(address: usize) -> Option<BrokerVersion> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = file_at(&maps, address)?;
    only_version(&fs::read(path).ok()?)
}

/// Lines like `55d0c8a00000-55d0c8a10000 r-xp 00000000 08:01 1234    /usr/sbin/mosquitto`.
fn file_at(maps: &str, address: usize) -> Option<PathBuf> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let to = usize::from_str_radix(to, 16).ok()?;
        let path = rest.find('/').map(|at| PathBuf::from(&rest[at..]));
        (from..to).contains(&address).then_some(path).flatten()
    })
}

/// The one string `2.x.y` of a file, if there is exactly one.
fn only_version(file: &[u8]) -> Option<BrokerVersion> {
    let found: BTreeSet<&[u8]> = file
        .split(|byte| *byte == 0)
        .filter(|text| (5..=9).contains(&text.len()) && text.starts_with(b"2."))
        .collect();
    let mut versions = found
        .into_iter()
        .filter_map(|text| parse(std::str::from_utf8(text).ok()?));
    let version = versions.next()?;
    versions.next().is_none().then_some(version)
}

fn parse(text: &str) -> Option<BrokerVersion> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let version = BrokerVersion {
        major: parts.next()??,
        minor: parts.next()??,
        revision: parts.next()??,
    };
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_only_string_that_looks_like_one() {
        let version = |major, minor, revision| {
            Some(BrokerVersion {
                major,
                minor,
                revision,
            })
        };
        assert_eq!(
            only_version(b"\x01\0mosquitto version %s\x002.0.11\0x 2.9.9\0"),
            version(2, 0, 11)
        );
        assert_eq!(only_version(b"\x002.1.2\0\x002.1.2\0"), version(2, 1, 2));
        assert_eq!(only_version(b"\x002.0.11\0\x002.0.21\0"), None);
        assert_eq!(only_version(b"\x002.0.11-rc1\0\x002.0\0"), None);
        assert_eq!(only_version(b""), None);
    }

    #[test]
    fn the_file_at_an_address_is_found() {
        let maps = "1000-2000 r--p 00000000 08:01 12                     /usr/sbin/mosquitto\n\
                    2000-3000 rw-p 00000000 00:00 0 \n\
                    3000-4000 r-xp 00000000 08:01 13                     /opt/with blank/lib.so\n";
        assert_eq!(file_at(maps, 0x1fff), Some("/usr/sbin/mosquitto".into()));
        assert_eq!(file_at(maps, 0x2000), None);
        assert_eq!(file_at(maps, 0x3000), Some("/opt/with blank/lib.so".into()));
        assert_eq!(file_at(maps, 0x9000), None);
    }
}
