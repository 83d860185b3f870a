//! What the tests run against, named by environment variables that `scripts/test` sets.

use std::path::PathBuf;

/// The value of an environment variable.
///
/// # Panics
/// Where it is not set: a test that can't run has failed.
pub fn required(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{name} is not set: run scripts/test, which builds everything and sets it"),
    }
}

/// The value of an environment variable that names a file or folder which has to be there.
///
/// # Panics
/// Where it is not set, or names nothing.
pub fn required_path(name: &str) -> PathBuf {
    let path = PathBuf::from(required(name));
    assert!(
        path.exists(),
        "{name} names {}, which isn't there: run scripts/test, which builds it",
        path.display()
    );
    path
}

/// The plugin, `mosquitto_rocketmq.so`.
pub fn plugin() -> PathBuf {
    required_path("MRMQ_PLUGIN")
}

/// The sidecar's and the CLI's binary, `mosquitto-rocketmq`.
pub fn sidecar() -> PathBuf {
    required_path("MRMQ_SIDECAR")
}

/// `HOST:PORT` of the RocketMQ that all tests share. No test may stop it, and each uses topics of its own.
pub fn shared_namesrv() -> String {
    required("MRMQ_NAMESRV")
}
