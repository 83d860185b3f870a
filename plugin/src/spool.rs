//! The files that the plugin keeps in the spool directory beside the logs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::config::seal;
use protocol::message::Epochs;

/// A file or directory of the spool that could not be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "option `spool_dir`: can't {action} `{path}`: {source}; make it a directory that Mosquitto's user may write to, or name another"
)]
pub(crate) struct SpoolError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| SpoolError {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Makes the directory, for its owner alone, where it is not there.
pub(crate) fn make_dir(dir: &Path) -> Result<(), SpoolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("make the directory", dir))
}

/// Begins a new epoch of the uplink log.
pub(crate) fn begin_epoch(
    dir: &Path,
    log_epoch: u64,
    released: u64,
    end: u64,
) -> Result<(), SpoolError> {
    Epochs::begin(dir, log_epoch, released, end)
        .map(drop)
        .map_err(failed("write", &dir.join("uplink.epochs")))
}

/// Whether what was written waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// At the start: nothing is served yet.
    Synced,
    /// At a reload: all devices would wait for the disk. A loss of power may take the file, but Mosquitto with it, whose
    /// next start writes it anew.
    Written,
}

/// Replaces `options.conf`, and first the copy that serves when that is damaged.
pub(crate) fn write_options(
    dir: &Path,
    text: &str,
    durability: Durability,
) -> Result<(), SpoolError> {
    let sealed = seal(text);
    replace(dir, "options.conf.copy", &sealed, durability)?;
    replace(dir, "options.conf", &sealed, durability)
}

/// Whole or not at all: the sidecar may read it at any moment.
pub(crate) fn replace(
    dir: &Path,
    name: &str,
    text: &str,
    durability: Durability,
) -> Result<(), SpoolError> {
    let path = dir.join(name);
    let fresh = dir.join("options.conf.new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        let synced = durability == Durability::Synced;
        if synced {
            file.sync_all()?;
        }
        fs::rename(&fresh, &path)?;
        if synced {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(failed("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_spool_is_for_its_owner_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("a/b");
        make_dir(&dir).expect("made");
        write_options(&dir, "node_id x\n", Durability::Synced).expect("written");
        write_options(&dir, "node_id y\n", Durability::Written).expect("written again");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("options.conf")), 0o600);
        for name in ["options.conf", "options.conf.copy"] {
            let text = fs::read_to_string(dir.join(name)).expect("read");
            assert_eq!(text, seal("node_id y\n"), "{name}");
        }
        assert!(!dir.join("options.conf.new").exists());
    }

    #[test]
    fn a_spool_that_cannot_be_made_is_named() {
        let text = make_dir(Path::new("/proc/version/spool"))
            .expect_err("not a directory")
            .to_string();
        assert!(
            text.contains("spool_dir") && text.contains("/proc/version/spool"),
            "{text}"
        );
    }
}
