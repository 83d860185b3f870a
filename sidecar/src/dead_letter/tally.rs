//! How many letters there are, without reading all of them each time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files;

/// The dead letters at this moment, as the status shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Letters.
    pub(crate) count: u64,
    /// Bytes that they take on the disk.
    pub(crate) bytes: u64,
    /// Their bound; 0 when unknown.
    pub(crate) bytes_max: u64,
    /// Letters that were removed because of the bound, since the spool was made.
    pub(crate) removed: u64,
    /// Letters that were replayed into RocketMQ since the sidecar started.
    pub(crate) replayed_uplink: u64,
    /// Letters that were appended to the downlink log again since then.
    pub(crate) replayed_downlink: u64,
}

/// What is known of each file. A file that was written again is another inode.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    known: BTreeMap<u64, Counted>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    inode: u64,
    bytes: u64,
    lines: u64,
}

impl Tally {
    /// Looks at the folder; reads only what was added since the last time.
    pub(crate) fn summary(&mut self, dir: &Path, bytes_max: u64) -> io::Result<Summary> {
        let mut known = BTreeMap::new();
        for file in files::list(dir)? {
            let before = self.known.get(&file.number).copied().unwrap_or_default();
            match count(dir, file.number, before) {
                Ok(counted) => {
                    known.insert(file.number, counted);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.known = known;
        Ok(Summary {
            count: self.known.values().map(|file| file.lines).sum(),
            bytes: self.known.values().map(|file| file.bytes).sum(),
            bytes_max,
            removed: files::read_removed(dir),
            ..Summary::default()
        })
    }
}

fn count(dir: &Path, number: u64, before: Counted) -> io::Result<Counted> {
    let mut file = File::open(files::path(dir, number))?;
    let data = file.metadata()?;
    let (inode, bytes) = (data.ino(), data.len());
    let is_same = before.inode == inode && before.bytes <= bytes;
    if is_same && before.bytes == bytes {
        return Ok(before);
    }
    let (from, lines) = if is_same {
        (before.bytes, before.lines)
    } else {
        (0, 0)
    };
    file.seek(SeekFrom::Start(from))?;
    let more = files::count_lines(io::Read::take(&file, bytes - from))?;
    Ok(Counted {
        inode,
        bytes,
        lines: lines + more,
    })
}
