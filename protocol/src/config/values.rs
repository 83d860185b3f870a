//! Reading single values: sizes, times, addresses, names.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::options::{GIB, KIB, PAGE, Problem};
use super::{node, units};
use crate::rules::rocketmq_name;

pub(super) fn not_among(value: &str, words: &[&'static str]) -> Problem {
    match super::nearest::nearest(value, words.iter().copied()) {
        Some(word) => Problem::Text(format!(
            "is not one of its words; the nearest is \"{word}\""
        )),
        None => "is not one of its words".into(),
    }
}

pub(super) fn size(value: &str, range: RangeInclusive<u64>) -> Result<u64, Problem> {
    let bytes = units::parse_size(value)
        .ok_or_else(|| Problem::Text(format!("is not a size ({})", units::SIZE_FORM)))?;
    if range.contains(&bytes) {
        Ok(bytes)
    } else {
        Err("is out of range".into())
    }
}

pub(super) fn segment(value: &str) -> Result<u64, Problem> {
    let bytes = size(value, 64 * KIB..=GIB)?;
    if bytes.is_multiple_of(PAGE) {
        Ok(bytes)
    } else {
        Err("is not a multiple of 4096".into())
    }
}

pub(super) fn time(value: &str, max: Duration) -> Result<Duration, Problem> {
    let time = units::parse_duration(value, None).ok_or_else(|| {
        Problem::Text(format!(
            "is not a time with its unit ({})",
            units::TIME_FORM
        ))
    })?;
    if time <= max {
        Ok(time)
    } else {
        Err("is out of range".into())
    }
}

pub(super) fn count(value: &str, range: RangeInclusive<u32>) -> Result<u32, Problem> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or("is not a whole number in range")?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err("is out of range".into())
    }
}

/// A whole number of percent, from 1 to 100, with its sign.
pub(super) fn percent(value: &str) -> Result<u8, Problem> {
    let number = value
        .strip_suffix('%')
        .ok_or("is not a number with a percent sign")?;
    // In range: it fits.
    count(number.trim_end(), 1..=100).map(|percent| u8::try_from(percent).unwrap_or(100))
}

pub(super) fn name_servers(value: &str) -> Result<Vec<String>, Problem> {
    value.split(';').map(str::trim).map(name_server).collect()
}

fn name_server(address: &str) -> Result<String, Problem> {
    let bad = |problem: &str| Problem::Text(format!("\"{address}\" {problem}"));
    if address.is_empty() {
        return Err("has an empty address".into());
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("has no port"))?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(bad("has no host name or IPv4 address before the port"));
    }
    match port.parse::<u16>() {
        Ok(1..) if !port.starts_with('+') => Ok(address.to_owned()),
        _ => Err(bad("has a port that is not 1 to 65535")),
    }
}

pub(super) fn node_id(value: &str) -> Result<String, Problem> {
    if node::is_valid(value) {
        return Ok(value.to_owned());
    }
    match value
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
    {
        Some(c) => Err(Problem::Text(format!(
            "has the character {c:?}, which can't stand in a RocketMQ group"
        ))),
        None => Err(Problem::Text(format!(
            "has more than {} characters",
            node::LEN_MAX
        ))),
    }
}

pub(super) fn group(value: &str) -> Result<String, Problem> {
    rocketmq_name::validate_group(value)?;
    Ok(value.to_owned())
}

pub(super) fn absolute(value: &str) -> Result<PathBuf, Problem> {
    let path = PathBuf::from(value);
    // Mosquitto may change its directory when it daemonises, and the sidecar reads the same options elsewhere.
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("is not an absolute path".into())
    }
}

/// A Unix socket's address has room for 107 bytes, and the sidecar's is in this directory.
pub(super) fn spool_dir(value: &str) -> Result<PathBuf, Problem> {
    const LEN_MAX: usize = 107 - "/sidecar.sock".len();
    let path = absolute(value)?;
    if value.len() > LEN_MAX {
        let problem = format!(
            "has {} bytes: too long for the address of a socket in it",
            value.len()
        );
        return Err(Problem::Text(problem));
    }
    Ok(path)
}

pub(super) fn show_path(path: Option<&PathBuf>) -> Vec<String> {
    path.map(|path| path.display().to_string())
        .into_iter()
        .collect()
}

pub(super) fn http_listen(value: &str) -> Result<Option<SocketAddr>, Problem> {
    if value == "off" {
        return Ok(None);
    }
    let address: SocketAddr = value
        .parse()
        .map_err(|_| Problem::from("is not an address and a port"))?;
    if !address.ip().is_loopback() {
        return Err(
            "is not a loopback address, and this version has no access control for others".into(),
        );
    }
    if address.port() == 0 {
        return Err("has no port".into());
    }
    Ok(Some(address))
}

pub(super) fn cluster(value: &str) -> Result<String, Problem> {
    if node::is_valid(value) {
        Ok(value.to_owned())
    } else {
        Err("is no name for a cluster".into())
    }
}

/// A topic for presence to be published under.
pub(super) fn presence(value: &str) -> Result<Option<String>, Problem> {
    if value == "off" {
        return Ok(None);
    }
    crate::topic::validate_topic(value).map_err(|error| Problem::Text(error.to_string()))?;
    if value == "$SYS" || value.starts_with("$SYS/") || value.starts_with("$share/") {
        return Err("is Mosquitto's own".into());
    }
    Ok(Some(value.trim_end_matches('/').to_owned()))
}
