//! The node's name and what is derived from it.

use super::errors::ConfigError;

/// Longest node id: leaves room in the 120 characters of a RocketMQ group.
pub(super) const LEN_MAX: usize = 64;
pub(super) const ALLOWED: &str = "1 to 64 letters (a-z, A-Z), digits, _ and -";

pub(super) fn is_valid(node_id: &str) -> bool {
    (1..=LEN_MAX).contains(&node_id.len()) && node_id.bytes().all(is_valid_byte)
}

fn is_valid_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// The host's name as a node id: a full name's dots become dashes.
pub(super) fn from_hostname() -> Result<String, Box<ConfigError>> {
    let read = |path| std::fs::read_to_string(path).ok();
    let hostname = read("/proc/sys/kernel/hostname")
        .or_else(|| read("/etc/hostname"))
        .unwrap_or_default();
    let node_id = sanitise(hostname.trim());
    if is_valid(&node_id) {
        Ok(node_id)
    } else {
        let problem = "is not set, and the host name can't serve";
        Err(Box::new(ConfigError::new(
            "node_id",
            hostname.trim(),
            problem,
            ALLOWED,
        )))
    }
}

fn sanitise(hostname: &str) -> String {
    hostname
        .bytes()
        .map(|byte| {
            if is_valid_byte(byte) {
                char::from(byte)
            } else {
                '-'
            }
        })
        .collect()
}

/// The consumer group that belongs to this node alone.
pub(super) fn consumer_group(node_id: &str) -> String {
    format!("GID_MQTT_{node_id}")
}

pub(super) fn producer_group(node_id: &str) -> String {
    format!("PID_MQTT_{node_id}")
}
