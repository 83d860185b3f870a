//! The file `cluster.retained`: a line for each version that became known; the last one of a topic counts.
//!
//! ```text
//! mosquitto-rocketmq cluster retained 1\n
//! <time> <epoch, hexadecimal> <position> <noted> <frame or -> <kept or deleted> <node> <topic>\n
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Entry, Origin, Version};
use crate::metrics::unix_ms;

const MAGIC: &str = "mosquitto-rocketmq cluster retained 1\n";
const FILE: &str = "cluster.retained";
/// Lines that no longer count, at most, beside as many as do.
const SPARE_LINES: usize = 4096;
/// That there is no message is known for so long: RocketMQ hardly keeps older ones that a node could read.
const DELETED_FOR_MS: u64 = 7 * 24 * 3_600_000;

pub(super) struct Journal {
    path: PathBuf,
    file: File,
    end: u64,
    lines: usize,
}

impl Journal {
    pub(super) fn open(
        spool_dir: &Path,
        nodes: &mut HashMap<Box<str>, Arc<str>>,
    ) -> io::Result<(Journal, HashMap<Box<str>, Entry>)> {
        let path = spool_dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut entries = HashMap::new();
        for line in text.strip_prefix(MAGIC).unwrap_or_default().lines() {
            if let Some((topic, entry)) = parse(line, nodes) {
                entries.insert(topic.into(), entry);
            }
        }
        let mut journal = Journal {
            file: fresh(&path)?,
            path,
            end: 0,
            lines: 0,
        };
        journal.rewrite(&mut entries)?;
        Ok((journal, entries))
    }

    pub(super) fn append(&mut self, topic: &str, entry: &Entry) -> io::Result<()> {
        let line = line(topic, entry);
        self.file.write_all_at(line.as_bytes(), self.end)?;
        self.end += line.len() as u64;
        self.lines += 1;
        Ok(())
    }

    pub(super) fn is_long(&self, entries: usize) -> bool {
        self.lines > 2 * entries + SPARE_LINES
    }

    /// Writes the file anew beside the old one, and puts it in its place. Old deletions are forgotten.
    pub(super) fn rewrite(&mut self, entries: &mut HashMap<Box<str>, Entry>) -> io::Result<()> {
        let oldest = unix_ms().saturating_sub(DELETED_FOR_MS);
        entries.retain(|_, entry| !entry.is_deleted || entry.noted_ms >= oldest);
        let mut text = MAGIC.to_owned();
        for (topic, entry) in &*entries {
            text.push_str(&line(topic, entry));
        }
        self.file = fresh(&self.path)?;
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.end = text.len() as u64;
        self.lines = entries.len();
        std::fs::rename(temporary(&self.path), &self.path)
    }
}

/// The one copy of a node's name.
pub(super) fn intern(nodes: &mut HashMap<Box<str>, Arc<str>>, name: &str) -> Arc<str> {
    if let Some(node) = nodes.get(name) {
        return Arc::clone(node);
    }
    let node: Arc<str> = name.into();
    nodes.insert(name.into(), Arc::clone(&node));
    node
}

fn line(topic: &str, entry: &Entry) -> String {
    let Version {
        at_ms,
        node,
        epoch,
        position,
    } = &entry.version;
    let frame = match entry.origin {
        Origin::Client => "-".to_owned(),
        Origin::Frame(position) => position.to_string(),
    };
    let state = if entry.is_deleted { "deleted" } else { "kept" };
    let noted = entry.noted_ms;
    format!("{at_ms} {epoch:x} {position} {noted} {frame} {state} {node} {topic}\n")
}

fn parse<'a>(line: &'a str, nodes: &mut HashMap<Box<str>, Arc<str>>) -> Option<(&'a str, Entry)> {
    let mut fields = line.splitn(8, ' ');
    let at_ms = fields.next()?.parse().ok()?;
    let epoch = u64::from_str_radix(fields.next()?, 16).ok()?;
    let position = fields.next()?.parse().ok()?;
    let noted_ms = fields.next()?.parse().ok()?;
    let origin = match fields.next()? {
        "-" => Origin::Client,
        frame => Origin::Frame(frame.parse().ok()?),
    };
    let is_deleted = match fields.next()? {
        "deleted" => true,
        "kept" => false,
        _ => return None,
    };
    let node = intern(nodes, fields.next().filter(|node| !node.is_empty())?);
    let topic = fields.next().filter(|topic| !topic.is_empty())?;
    let version = Version {
        at_ms,
        node,
        epoch,
        position,
    };
    Some((
        topic,
        Entry {
            version,
            origin,
            noted_ms,
            is_deleted,
            // At the latest then.
            stored_ms: noted_ms,
        },
    ))
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("retained.new")
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(temporary(path))
}
