//! What the files of the spool say, with or without a running sidecar.

use std::collections::BTreeMap;
use std::path::Path;

use handoff::LogState;
use protocol::config::Config;

use super::report::{Log, Report};

/// The log in this directory; nothing when there is none.
pub(crate) fn log(dir: &Path, bytes_max: u64) -> Option<Log> {
    let state = LogState::read(dir).ok()?;
    Some(Log {
        used_bytes: used(dir),
        bytes_max,
        released: state.released,
        end: state.end,
        waiting_bytes: state.waiting_bytes(),
        waiting_messages: state.waiting_frames(),
        messages: state.frames,
    })
}

fn used(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|data| data.len())
        .sum()
}

/// The plugin's counters by name; nothing before the plugin has run.
pub(crate) fn plugin_counters(spool_dir: &Path) -> Option<BTreeMap<String, u64>> {
    let page = handoff::Counters::open(&spool_dir.join("plugin.counters")).ok()?;
    // An older or newer plugin may have fewer or more of them.
    let names = protocol::counters::NAMES
        .iter()
        .enumerate()
        .take(page.len());
    Some(
        names
            .map(|(index, name)| ((*name).to_owned(), page.get(index)))
            .collect(),
    )
}

/// Fills in all that comes from the files.
pub(crate) fn fill(report: &mut Report, spool_dir: &Path, config: Option<&Config>) {
    report.uplink.log = log(
        &spool_dir.join("uplink"),
        config.map_or(0, |config| config.spool_bytes_max),
    );
    report.downlink.log = log(
        &spool_dir.join("downlink"),
        config.map_or(0, |config| config.downlink_bytes_max),
    );
    report.uplink.waiting_messages = report.uplink.log.and_then(|log| log.waiting_messages);
    report.downlink.waiting_messages = report.downlink.log.and_then(|log| log.waiting_messages);
    report.plugin = plugin_counters(spool_dir);
    let counter = |name| {
        report
            .plugin
            .as_ref()
            .and_then(|counters| counters.get(name))
            .copied()
            .unwrap_or(0)
    };
    report.wake = wake(counter("wakeup")).to_owned();
    report.broker_version = Some(counter("broker_version"))
        .filter(|version| *version > 0)
        .map(version);
}

fn wake(code: u64) -> &'static str {
    match code {
        1 => "eventfd",
        2 => "pingreq",
        _ => "unknown",
    }
}

fn version(code: u64) -> String {
    format!(
        "{}.{}.{}",
        code / 1_000_000,
        code / 1_000 % 1_000,
        code % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_positions_are_those_of_the_log_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(log(&path, 7), None);
        let mut writer = handoff::Writer::open(&path, &handoff::LogOptions::default()).unwrap();
        writer.append(b"one").unwrap();
        writer.append(b"two").unwrap();
        let mut reader = handoff::Reader::open(&path, &handoff::ReaderOptions::default()).unwrap();
        let next = reader.poll().unwrap().unwrap().next;
        reader.release(next);
        let found = log(&path, 7).unwrap();
        assert_eq!(
            (found.released, found.end, found.bytes_max),
            (writer.released(), writer.end(), 7)
        );
        assert_eq!(
            (found.released, found.waiting_bytes),
            (next, writer.end() - next)
        );
        assert_eq!((found.waiting_messages, found.messages), (Some(1), Some(2)));
        assert!(found.used_bytes > 0);
    }

    #[test]
    fn a_file_that_is_no_cursor_page_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cursor"), [1; 4096]).unwrap();
        assert_eq!(log(dir.path(), 0), None);
        std::fs::write(dir.path().join("cursor"), b"short").unwrap();
        assert_eq!(log(dir.path(), 0), None);
    }

    #[test]
    fn the_plugins_words_are_translated() {
        assert_eq!(version(2_000_021), "2.0.21");
        assert_eq!(
            (wake(0), wake(1), wake(2)),
            ("unknown", "eventfd", "pingreq")
        );
    }
}
