//! `sidecar.counters` in the spool: the counters' values, kept over restarts and exact over a kill at any moment.
//!
//! A page of counters (`docs/handoff-format.md`): first those of the whole sidecar, then a row for each rule. Which rule has
//! which row says `sidecar.rules`, lines like those of `rules.table`: a rule keeps its row for ever.
//!
//! What ends a message is written together with the place in its log that is counted up to, in one change that a kill can't
//! tear. A frame that comes again after a kill is before that place, and is not counted again.
//!
//! Without a spool (in tests) the values live in memory alone.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use handoff::{Counters, OpenError};
use protocol::rules::{RuleTable, TableError};

/// The file of the values.
const COUNTERS: &str = "sidecar.counters";
/// The file of the rows' names.
const RULES: &str = "sidecar.rules";
/// Counters of the whole sidecar come before the rows.
const GLOBALS: usize = 64;
/// Counters of a rule.
pub(crate) const ROW: usize = 16;
/// Room for so many rules at least.
const ROWS_MIN: usize = 16;

/// Where the counters of the whole sidecar are. The numbers are part of the file's format: new ones get new numbers.
pub(crate) mod place {
    /// When the sidecar was alive last, Unix milliseconds.
    pub(crate) const HEARTBEAT: usize = 0;
    /// Its process id.
    pub(crate) const PID: usize = 1;
    /// The uplink log that is counted, by its epoch.
    pub(crate) const UPLINK_EPOCH: usize = 3;
    /// Everything before this position of it is counted.
    pub(crate) const UPLINK_POSITION: usize = 4;
    /// How many frames of the log that is.
    pub(crate) const UPLINK_FRAMES: usize = 5;
    /// The downlink log that is counted, by its epoch.
    pub(crate) const DOWNLINK_EPOCH: usize = 6;
    /// How many frames of it are counted.
    pub(crate) const DOWNLINK_FRAMES: usize = 7;
    /// The row of the rule whose frame is about to be appended to the downlink log; 0 when none is.
    pub(crate) const APPENDING: usize = 8;
    /// Payload bytes of that frame.
    pub(crate) const APPENDING_BYTES: usize = 9;
    /// `Metrics::downlink_repeated`.
    pub(crate) const DOWNLINK_REPEATED: usize = 10;
    /// `Metrics::uplink_base` and `downlink_base`.
    pub(crate) const UPLINK_BASE: usize = 11;
    pub(crate) const DOWNLINK_BASE: usize = 12;
    /// From here on: `Metrics::uplink_globals`, in their order.
    pub(crate) const FIRST: usize = 16;
}

/// Why the counters can't be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookError {
    /// The values.
    #[error(transparent)]
    Page(#[from] OpenError),
    /// The names.
    #[error(transparent)]
    Rules(#[from] TableError),
}

/// Which way a rule leads; with its text the name of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Way {
    fn name(self, rule: &str) -> String {
        match self {
            Way::Up => format!("uplink {rule}"),
            Way::Down => format!("downlink {rule}"),
        }
    }

    /// The way and the rule of a row's name.
    fn parse(name: &str) -> Option<(Way, &str)> {
        match name.split_once(' ')? {
            ("uplink", rule) => Some((Way::Up, rule)),
            ("downlink", rule) => Some((Way::Down, rule)),
            _ => None,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Book {
    files: Mutex<Option<Files>>,
}

struct Files {
    page: Counters,
    path: PathBuf,
    rules: RuleTable,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").finish_non_exhaustive()
    }
}

fn row_of(id: u32) -> usize {
    GLOBALS + (id as usize).saturating_sub(1) * ROW
}

impl Book {
    /// Opens the book of a spool, and begins one when there is none.
    pub(crate) fn open(spool_dir: &Path) -> Result<Book, BookError> {
        let rules = RuleTable::open(spool_dir.join(RULES))?;
        let path = spool_dir.join(COUNTERS);
        let rows = rules.len().next_power_of_two().max(ROWS_MIN);
        let page = Counters::keep(&path, GLOBALS + rows * ROW)?;
        Ok(Book {
            files: Mutex::new(Some(Files { page, path, rules })),
        })
    }

    /// The row of a rule. Without one (a full disk) the rule is counted in memory alone: `None`.
    pub(crate) fn row(&self, way: Way, rule: &str) -> Option<usize> {
        let mut files = self.lock();
        let files = files.as_mut()?;
        let kept = files.row(&way.name(rule));
        if let Err(error) = &kept {
            log::error!("the counters of {rule} are not kept: {error}");
        }
        kept.ok()
    }

    /// A value; 0 without a spool.
    pub(crate) fn get(&self, place: usize) -> u64 {
        self.lock()
            .as_ref()
            .map_or(0, |files| files.page.get(place))
    }

    /// Sets these values as one.
    pub(crate) fn set_all(&self, changes: &[(usize, u64)]) {
        if let Some(files) = self.lock().as_ref() {
            files.page.set_all(changes);
        }
    }

    /// Says that the sidecar is alive.
    pub(crate) fn beat(&self, now_ms: u64) {
        if let Some(files) = self.lock().as_ref() {
            files.page.set(place::HEARTBEAT, now_ms);
        }
    }

    /// The rules that have rows, each with its row.
    pub(crate) fn rules(&self) -> Vec<(Way, String, usize)> {
        self.lock()
            .as_ref()
            .map_or_else(Vec::new, |files| rules_of(&files.rules))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Files>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn row(&mut self, name: &str) -> Result<usize, BookError> {
        let row = row_of(self.rules.id_of(name)?);
        if row + ROW > self.page.len() {
            let n = GLOBALS + 2 * (row + ROW - GLOBALS);
            self.page = Counters::keep(&self.path, n)?;
        }
        Ok(row)
    }
}

fn rules_of(table: &RuleTable) -> Vec<(Way, String, usize)> {
    let mut rules: Vec<_> = table
        .iter()
        .filter_map(|(id, name)| {
            let (way, rule) = Way::parse(name)?;
            Some((way, rule.to_owned(), row_of(id)))
        })
        .collect();
    rules.sort_by_key(|(_, _, row)| *row);
    rules
}

/// The book of a spool to look at, with or without a sidecar at work.
pub(crate) struct Look {
    page: Counters,
    rules: RuleTable,
}

impl Look {
    /// Nothing when no sidecar has been here, or its files can't be read.
    pub(crate) fn at(spool_dir: &Path) -> Option<Look> {
        Some(Look {
            page: Counters::open(&spool_dir.join(COUNTERS)).ok()?,
            rules: RuleTable::open_read(spool_dir.join(RULES)).ok()?,
        })
    }

    pub(crate) fn get(&self, place: usize) -> u64 {
        self.page.get(place)
    }

    pub(crate) fn rules(&self) -> Vec<(Way, String, usize)> {
        rules_of(&self.rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_its_row_and_its_values_over_restarts_and_growth() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        let row = book.row(Way::Up, "a/# A").unwrap();
        assert_ne!(book.row(Way::Down, "a/# A").unwrap(), row);
        book.set_all(&[(row, 7), (place::UPLINK_POSITION, 64)]);
        for i in 0..100 {
            book.row(Way::Down, &format!("T{i} t")).unwrap();
        }
        assert_eq!(book.get(row), 7);
        drop(book);
        let look = Look::at(dir.path()).unwrap();
        assert_eq!((look.get(row), look.get(place::UPLINK_POSITION)), (7, 64));
        assert_eq!(look.rules()[0], (Way::Up, "a/# A".to_owned(), row));
        let again = Book::open(dir.path()).unwrap();
        assert_eq!(again.row(Way::Up, "a/# A"), Some(row));
        assert_eq!(again.rules().len(), 102);
    }

    #[test]
    fn without_a_spool_nothing_is_kept_and_nothing_fails() {
        let book = Book::default();
        assert_eq!(book.row(Way::Up, "a A"), None);
        book.set_all(&[(1, 1)]);
        assert_eq!(book.get(1), 0);
    }
}
