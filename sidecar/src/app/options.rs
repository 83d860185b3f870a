//! `options.conf` in the spool: read, and followed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use protocol::config::{Config, is_sound, parse_options_file};

use super::{EXIT_CONFIG, Failure, WATCH_EVERY};
use crate::signals::Stop;

/// The file that the plugin writes.
const FILE: &str = "options.conf";
/// The same once more, for when a byte of that is damaged.
const COPY: &str = "options.conf.copy";

/// The configuration of a spool.
///
/// # Errors
/// When there is none, or it is wrong; the text names the file.
pub(crate) fn read_config(spool_dir: &Path) -> anyhow::Result<Config> {
    let path = spool_dir.join(FILE);
    let mut bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    if !is_sound(&bytes) {
        let copy = spool_dir.join(COPY);
        log::warn!(
            "{} is damaged (its checksum is wrong); taking {}. Mosquitto writes both anew when it starts",
            path.display(),
            copy.display()
        );
        bytes = std::fs::read(&copy)
            .ok()
            .filter(|bytes| is_sound(bytes))
            .with_context(|| {
                format!(
                    "{} and its copy are damaged: start Mosquitto again, which writes them anew",
                    path.display()
                )
            })?;
    }
    let text = String::from_utf8(bytes).with_context(|| path.display().to_string())?;
    parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Config, protocol::config::ConfigErrors> {
    let options = parse_options_file(text)?;
    Config::from_options(
        options
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )
}

/// What a look at the file found.
pub(super) enum Change {
    None,
    /// Only the rules are others.
    Rules(Arc<Config>),
    /// Something else is another too.
    Options,
    Bad(anyhow::Error),
}

/// Notices when the file is replaced.
pub(super) struct Watch {
    spool_dir: PathBuf,
    seen: Option<Stamp>,
}

/// A replaced file is another inode; one that was edited in place has another time or size.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Stamp(u64, i64, i64, u64);

impl Stamp {
    fn of(data: &Metadata) -> Stamp {
        Stamp(data.ino(), data.mtime(), data.mtime_nsec(), data.size())
    }
}

impl Watch {
    /// Waits for the file to be there, which it is unless the sidecar was started before Mosquitto. Nothing when asked to end
    /// meanwhile.
    pub(super) async fn start(
        spool_dir: &Path,
        stop: &mut Stop,
    ) -> Result<Option<(Watch, Config)>, Failure> {
        let mut watch = Watch {
            spool_dir: spool_dir.to_owned(),
            seen: None,
        };
        let mut is_said = false;
        loop {
            watch.seen = watch.stamp();
            if watch.seen.is_some() {
                let mut config = read_config(spool_dir)
                    .map_err(|error| Failure::new(EXIT_CONFIG, format!("{error:#}")))?;
                // The directory we were given is the one that is ours, by whatever name the plugin knows it.
                config.spool_dir = spool_dir.to_owned();
                return Ok(Some((watch, config)));
            }
            if !std::mem::replace(&mut is_said, true) {
                log::info!(
                    "waiting for {}: Mosquitto's plugin writes it when it starts",
                    spool_dir.join(FILE).display()
                );
            }
            tokio::select! {
                () = stop.requested() => return Ok(None),
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        std::fs::metadata(self.spool_dir.join(FILE))
            .ok()
            .map(|data| Stamp::of(&data))
    }

    /// Looks whether the file is another than `config` came from.
    pub(super) fn look(&mut self, config: &Config) -> Change {
        // While it is away there is nothing newer to follow.
        let Some(stamp) = self.stamp().filter(|stamp| Some(*stamp) != self.seen) else {
            return Change::None;
        };
        self.seen = Some(stamp);
        let mut fresh = match read_config(&self.spool_dir) {
            Ok(fresh) => fresh,
            Err(error) => return Change::Bad(error),
        };
        fresh.spool_dir.clone_from(&config.spool_dir);
        if settings(&fresh) != settings(config) {
            Change::Options
        } else if fresh.effective_options() == config.effective_options() {
            Change::None
        } else {
            Change::Rules(Arc::new(fresh))
        }
    }
}

/// The options without the rules.
fn settings(config: &Config) -> Vec<String> {
    let is_rule = |line: &&str| line.starts_with("uplink ") || line.starts_with("downlink ");
    config
        .effective_options()
        .lines()
        .filter(|line| !is_rule(line))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "namesrv 127.0.0.1:9876\nnode_id edge-1\n";

    #[test]
    fn a_damaged_file_is_not_believed_and_its_copy_serves() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = protocol::config::seal(OPTIONS);
        let damaged = sealed.replace("edge-1", "edge-2");
        std::fs::write(dir.path().join(FILE), &damaged).unwrap();
        let error = read_config(dir.path()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        std::fs::write(dir.path().join(COPY), &sealed).unwrap();
        assert_eq!(read_config(dir.path()).unwrap().node_id, "edge-1");
        std::fs::write(dir.path().join(COPY), &damaged).unwrap();
        assert!(read_config(dir.path()).is_err());
    }

    fn replace(dir: &Path, text: &str) {
        let new = dir.join("options.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, dir.join(FILE)).unwrap();
    }

    async fn start(dir: &Path) -> (Watch, Config) {
        let (_sender, mut stop) = Stop::never();
        Watch::start(dir, &mut stop).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn new_rules_are_noticed_and_told_from_other_options() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), &format!("{OPTIONS}downlink A a\n"));
        let (mut watch, config) = start(dir.path()).await;
        assert!(matches!(watch.look(&config), Change::None));
        replace(
            dir.path(),
            &format!("{OPTIONS}downlink A a\ndownlink B b\n"),
        );
        let Change::Rules(config) = watch.look(&config) else {
            panic!("rules were added")
        };
        assert_eq!(config.downlink.len(), 2);
        assert!(matches!(watch.look(&config), Change::None));
        replace(
            dir.path(),
            &format!("{OPTIONS}downlink A a\ndownlink B b\nbatch_messages_max 8\n"),
        );
        assert!(matches!(watch.look(&config), Change::Options));
    }

    #[tokio::test]
    async fn a_bad_file_is_said_once_and_a_missing_one_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), &format!("{OPTIONS}downlink A a\n"));
        let (mut watch, config) = start(dir.path()).await;
        replace(dir.path(), "nonsense 1\n");
        assert!(matches!(watch.look(&config), Change::Bad(_)));
        assert!(matches!(watch.look(&config), Change::None));
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(matches!(watch.look(&config), Change::None));
    }

    #[tokio::test]
    async fn a_wrong_file_at_start_is_a_configuration_error() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "nonsense 1\n");
        let (_sender, mut stop) = Stop::never();
        let failure = Watch::start(dir.path(), &mut stop).await.err().unwrap();
        assert_eq!(failure.code, EXIT_CONFIG);
        assert!(
            failure.reason.contains("options.conf") && failure.reason.contains("nonsense"),
            "{}",
            failure.reason
        );
    }

    #[tokio::test]
    async fn waiting_for_the_plugin_can_be_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut stop) = Stop::never();
        sender.send_replace(true);
        assert!(Watch::start(dir.path(), &mut stop).await.unwrap().is_none());
    }
}
