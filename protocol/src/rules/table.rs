//! The rule table of a spool, `rules.table`: every uplink rule that the spool ever knew, by number.
//!
//! Frames carry the numbers, so that a message goes by the rule under which it was accepted, also after a restart with
//! other rules. Rules are only ever appended (as [`super::table_lines`] says, each twice), and synced before the id is used. A last
//! line without its end is one that was being written when the machine stopped: nothing refers to it, and it is cut off. Where
//! one copy of a rule is damaged, the other one serves, and the writer writes the table anew when it opens it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::table_lines::{self, Lines};

/// What can be wrong with a rule table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The file can't be opened, read or written.
    #[error("rule table {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A rule has no good copy left, or an id stands for two.
    #[error(
        "rule table {path} line {line}: {problem}; restore the file, or move the spool directory away (what it holds is lost then)",
        path = .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A text that can't be a line of the table.
    #[error("rule {0:?} has a line break")]
    Text(String),
    /// All numbers are used up.
    #[error("rule table {path} has no number left for another rule", path = .0.display())]
    Full(PathBuf),
}

/// The rules of a spool by number.
#[derive(Debug)]
pub struct RuleTable {
    path: PathBuf,
    /// Only the writer has one.
    file: Option<File>,
    ids: HashMap<String, u32>,
    texts: HashMap<u32, String>,
}

impl RuleTable {
    /// Opens the table for writing (the plugin), and makes it (mode 0600) when there is none.
    ///
    /// # Errors
    /// When the file can't be opened, or has lines that are no rules.
    pub fn open(path: impl Into<PathBuf>) -> Result<RuleTable, TableError> {
        let path = path.into();
        let fail = |source| TableError::Io {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&path).map_err(fail)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail)?;
        let whole = whole_lines(&bytes);
        if whole.len() < bytes.len() {
            file.set_len(whole.len() as u64).map_err(fail)?;
        }
        let lines = parse(&path, whole)?;
        if lines.is_damaged {
            file = write_anew(&path, &lines).map_err(fail)?;
        }
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        // The name must be as durable as the ids that will be handed out.
        sync_parent(&path).map_err(fail)?;
        Ok(RuleTable {
            path,
            file: Some(file),
            ids: lines.ids,
            texts: lines.texts,
        })
    }

    /// Opens the table for reading (the sidecar). A table that is not there yet is empty.
    ///
    /// # Errors
    /// When the file can't be read, or has lines that are no rules.
    pub fn open_read(path: impl Into<PathBuf>) -> Result<RuleTable, TableError> {
        let mut table = RuleTable {
            path: path.into(),
            file: None,
            ids: HashMap::new(),
            texts: HashMap::new(),
        };
        table.reload()?;
        Ok(table)
    }

    /// Reads the file again: what the writer appended meanwhile.
    ///
    /// # Errors
    /// As for opening; the table stays as it was then.
    pub fn reload(&mut self) -> Result<(), TableError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(TableError::Io {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        let lines = parse(&self.path, whole_lines(&bytes))?;
        (self.ids, self.texts) = (lines.ids, lines.texts);
        Ok(())
    }

    /// The id of a rule's canonical text; a new one is appended and synced first.
    ///
    /// # Errors
    /// As [`RuleTable::ids_of`].
    pub fn id_of(&mut self, text: &str) -> Result<u32, TableError> {
        match self.ids.get(text) {
            Some(id) => Ok(*id),
            None => Ok(self.ids_of([text])?.first().copied().unwrap_or_default()),
        }
    }

    /// The ids of several rules' canonical texts, in their order. The new ones are appended and synced first, all in
    /// one write: ten thousand rules are one sync, not ten thousand.
    ///
    /// # Errors
    /// When the file can't be written; the table stays as it was then. A table from [`RuleTable::open_read`] has no new
    /// ids to give.
    pub fn ids_of<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<Vec<u32>, TableError> {
        let mut found = Vec::new();
        let mut added: HashMap<&str, u32> = HashMap::new();
        let mut lines = String::new();
        let mut last = self.texts.keys().max().copied().unwrap_or(0);
        for text in texts {
            if let Some(id) = self.ids.get(text).or_else(|| added.get(text)) {
                found.push(*id);
                continue;
            }
            if text.contains(['\n', '\r']) {
                return Err(TableError::Text(text.to_owned()));
            }
            last = last
                .checked_add(1)
                .ok_or_else(|| TableError::Full(self.path.clone()))?;
            lines.push_str(&table_lines::encode(last, text));
            added.insert(text, last);
            found.push(last);
        }
        if !lines.is_empty() {
            self.append(lines.as_bytes())?;
        }
        for (text, id) in added {
            self.ids.insert(text.to_owned(), id);
            self.texts.insert(id, text.to_owned());
        }
        Ok(found)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), TableError> {
        let fail = |source| TableError::Io {
            path: self.path.clone(),
            source,
        };
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| fail(io::ErrorKind::PermissionDenied.into()))?;
        let before = file.stream_position().map_err(fail)?;
        file.write_all(lines)
            .and_then(|()| file.sync_data())
            .map_err(|error| {
                // Half a line must not be left for the next one to be glued to.
                let _ = file.set_len(before);
                let _ = file.seek(SeekFrom::Start(before));
                fail(error)
            })
    }

    /// The rule of an id.
    pub fn text_of(&self, id: u32) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    /// All ids with their rules, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.texts.iter().map(|(id, text)| (*id, text.as_str()))
    }

    /// How many rules the spool knows.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    &bytes[..end]
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Lines, TableError> {
    table_lines::parse(bytes).map_err(|bad| TableError::Corrupt {
        path: path.to_owned(),
        line: bad.line,
        problem: bad.problem,
    })
}

/// Replaces a table of which copies are damaged, whole or not at all: the sidecar may read it at any moment.
fn write_anew(path: &Path, lines: &Lines) -> io::Result<File> {
    let fresh = path.with_extension("table.new");
    let mut sorted: Vec<_> = lines.texts.iter().collect();
    sorted.sort_unstable();
    let text: String = sorted
        .into_iter()
        .map(|(id, text)| table_lines::encode(*id, text))
        .collect();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    Ok(file)
}
