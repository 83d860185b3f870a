//! Opening the logs of the spool.

use std::time::{Duration, Instant};

use handoff::{LogOptions, OpenError, Reader, ReaderOptions, SyncPolicy, Writer};
use protocol::config::{Config, SpoolSync};
use protocol::message::Epochs;
use protocol::rules::RuleTable;

use super::{EXIT_FAILED, EXIT_IN_USE, Failure};
use crate::signals::Stop;

/// How long a predecessor may take to let go of the spool.
const PREDECESSOR: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The sidecar's sides of both logs, and the rules by number.
pub(super) struct Logs {
    pub(super) uplink: Reader,
    pub(super) epochs: Epochs,
    pub(super) downlink: Writer,
    pub(super) rules: RuleTable,
}

/// Opens everything; waits for a predecessor to end, and for the plugin to make the uplink log. Nothing when asked to end
/// meanwhile.
pub(super) async fn open(config: &Config, stop: &mut Stop) -> Result<Option<Logs>, Failure> {
    let dir = &config.spool_dir;
    let Some(uplink) = retry(stop, PREDECESSOR, || {
        Reader::open(&dir.join("uplink"), &ReaderOptions::default())
    })
    .await?
    else {
        return Ok(None);
    };
    let options = LogOptions {
        segment_bytes: config.downlink_segment_bytes(),
        bytes_max: config.downlink_bytes_max,
        sync: match config.spool_sync {
            SpoolSync::None => SyncPolicy::None,
            SpoolSync::Interval(interval) => SyncPolicy::Interval(interval),
            SpoolSync::Always => SyncPolicy::Always,
        },
        // It appends in a thread that waits for RocketMQ anyway.
        may_wait: true,
    };
    let Some(downlink) = retry(stop, PREDECESSOR, || {
        Writer::open(&dir.join("downlink"), &options)
    })
    .await?
    else {
        return Ok(None);
    };
    let rules = RuleTable::open_read(dir.join("rules.table"))
        .map_err(|error| Failure::new(EXIT_FAILED, error))?;
    let epochs = Epochs::read(dir, uplink.epoch()).map_err(|error| {
        Failure::new(
            EXIT_FAILED,
            format!("uplink.epochs in {}: {error}", dir.display()),
        )
    })?;
    Ok(Some(Logs {
        uplink,
        epochs,
        downlink,
        rules,
    }))
}

async fn retry<T>(
    stop: &mut Stop,
    predecessor: Duration,
    mut open: impl FnMut() -> Result<T, OpenError>,
) -> Result<Option<T>, Failure> {
    let started = Instant::now();
    loop {
        match open() {
            Ok(log) => return Ok(Some(log)),
            Err(OpenError::NotThere { .. }) => {}
            Err(OpenError::InUse { .. }) if started.elapsed() < predecessor => {}
            Err(error @ OpenError::InUse { .. }) => return Err(Failure::new(EXIT_IN_USE, error)),
            Err(error) => return Err(Failure::new(EXIT_FAILED, error)),
        }
        tokio::select! {
            () = stop.requested() => return Ok(None),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &std::path::Path) -> Config {
        let dir = dir.display().to_string();
        let options = [
            ("namesrv", "127.0.0.1:9876"),
            ("node_id", "n"),
            ("spool_dir", dir.as_str()),
            ("downlink", "A a"),
        ];
        Config::from_options(options.into_iter()).unwrap()
    }

    #[tokio::test]
    async fn the_plugin_may_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let (_sender, mut stop) = Stop::never();
        let path = dir.path().join("uplink");
        let plugin = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(150));
            Writer::open(&path, &LogOptions::default()).unwrap()
        });
        let logs = open(&config, &mut stop).await.unwrap().unwrap();
        assert_eq!(logs.uplink.epoch(), plugin.await.unwrap().epoch());
        assert!(logs.rules.is_empty());
    }

    #[tokio::test]
    async fn a_spool_in_use_has_its_own_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let _plugin = Writer::open(dir.path(), &LogOptions::default()).unwrap();
        let _other = Reader::open(dir.path(), &ReaderOptions::default()).unwrap();
        let (_sender, mut stop) = Stop::never();
        let opened = retry(&mut stop, Duration::from_millis(50), || {
            Reader::open(dir.path(), &ReaderOptions::default())
        })
        .await;
        assert_eq!(opened.err().unwrap().code, EXIT_IN_USE);
    }
}
