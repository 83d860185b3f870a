//! What the files of the spool say, with or without a running sidecar.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use protocol::config::Config;

use super::report::{Log, Report};

/// `docs/handoff-format.md`, the cursor page: the magic bytes, and where both positions stand.
const CURSOR_MAGIC: &[u8; 8] = b"MRMQCURS";
const END_AT: usize = 64;
const RELEASED_AT: usize = 128;
const CURSOR_READ: usize = 136;

/// The log in this directory; nothing when there is none.
pub(crate) fn log(dir: &Path, bytes_max: u64) -> Option<Log> {
    let mut page = [0; CURSOR_READ];
    File::open(dir.join("cursor"))
        .ok()?
        .read_exact_at(&mut page, 0)
        .ok()?;
    if page[..8] != CURSOR_MAGIC[..] {
        return None;
    }
    let word = |at: usize| {
        page[at..at + 8]
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    let (end, released) = (word(END_AT), word(RELEASED_AT));
    Some(Log {
        used_bytes: used(dir),
        bytes_max,
        released,
        end,
        waiting_bytes: end.saturating_sub(released),
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
