//! Where the sidecar's binary is.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const NAME: &str = "mosquitto-rocketmq";
const DIRS: &[&str] = &["/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// No binary to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BinaryError {
    /// The option names one that can't be started.
    #[error(
        "option `sidecar_path`: `{path}` {problem}; name the `mosquitto-rocketmq` binary, or leave the option out"
    )]
    Given { path: PathBuf, problem: String },
    /// It is in none of the usual places.
    #[error(
        "the sidecar binary `mosquitto-rocketmq` was not found in {looked}; install it there, name it with \
         `plugin_opt_sidecar_path`, or set `plugin_opt_sidecar external` and start it yourself"
    )]
    Nowhere { looked: String },
}

/// The binary that `given` names, else the one beside the plugin or in the usual places.
pub(crate) fn find(given: Option<&Path>, plugin: Option<&Path>) -> Result<PathBuf, BinaryError> {
    if let Some(path) = given {
        return match executable(path) {
            Ok(()) => Ok(path.to_owned()),
            Err(problem) => Err(BinaryError::Given {
                path: path.to_owned(),
                problem,
            }),
        };
    }
    let beside = plugin.and_then(Path::parent).map(Path::to_owned);
    let places: Vec<PathBuf> = beside
        .into_iter()
        .chain(DIRS.iter().map(PathBuf::from))
        .collect();
    places
        .iter()
        .map(|dir| dir.join(NAME))
        .find(|path| executable(path).is_ok())
        .ok_or_else(|| {
            let looked: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
            BinaryError::Nowhere {
                looked: looked.join(", "),
            }
        })
}

fn executable(path: &Path) -> Result<(), String> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err("does not exist".to_owned()),
        Err(error) => Err(format!("can't be looked at: {error}")),
        Ok(data) if !data.is_file() => Err("is not a file".to_owned()),
        Ok(data) if data.permissions().mode() & 0o111 == 0 => Err("is not executable".to_owned()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_binary_has_to_be_executable() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("side");
        let missing = find(Some(&path), None)
            .expect_err("nothing is there")
            .to_string();
        assert!(
            missing.contains("sidecar_path") && missing.contains("does not exist"),
            "{missing}"
        );
        std::fs::write(&path, "").expect("written");
        let plain = find(Some(&path), None)
            .expect_err("not executable")
            .to_string();
        assert!(plain.contains("is not executable"), "{plain}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
        assert_eq!(find(Some(&path), None).expect("now it is"), path);
    }

    #[test]
    fn the_one_beside_the_plugin_comes_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(NAME);
        std::fs::write(&path, "").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
        let plugin = dir.path().join("mosquitto_rocketmq.so");
        assert_eq!(find(None, Some(&plugin)).expect("found"), path);
    }
}
