//! Reading the letters, while the sidecar writes them or without one.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::files;
use super::letter::{Direction, Letter, parse_id};

/// A line of a file: a letter, or text that is none.
#[derive(Debug)]
pub(crate) enum Line {
    Letter(Box<Letter>),
    /// Bytes that are no letter, with their end.
    Damaged(Vec<u8>),
}

impl Line {
    pub(super) fn letter(&self) -> Option<&Letter> {
        match self {
            Line::Letter(letter) => Some(letter),
            Line::Damaged(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Line::Letter(letter) => letter.line().into(),
            Line::Damaged(bytes) => bytes.into(),
        }
    }
}

/// Which letters are meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Only those of this rule, by its whole text.
    pub(crate) rule: Option<String>,
    pub(crate) direction: Option<Direction>,
    /// Only those written at this time or later, Unix milliseconds.
    pub(crate) since_ms: Option<u64>,
    /// Only those written before this time.
    pub(crate) before_ms: Option<u64>,
}

impl Filter {
    pub(crate) fn wants(&self, letter: &Letter) -> bool {
        self.rule.as_ref().is_none_or(|rule| *rule == letter.rule)
            && self.direction.is_none_or(|way| way == letter.direction)
            && self.since_ms.is_none_or(|since| letter.time_ms >= since)
            && self.before_ms.is_none_or(|before| letter.time_ms < before)
    }

    /// Whether it wants every letter, whatever it says.
    pub(crate) fn is_empty(&self) -> bool {
        self.rule.is_none()
            && self.direction.is_none()
            && self.since_ms.is_none()
            && self.before_ms.is_none()
    }
}

/// Gives each whole line of a file, until `each` says no. A last line without its end is being written, or was when its writer died.
pub(super) fn lines(
    path: &Path,
    number: u64,
    mut each: impl FnMut(Line) -> io::Result<bool>,
) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        // Taken away since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut bytes = Vec::new();
    let mut count = 0_u64;
    loop {
        bytes.clear();
        reader.read_until(b'\n', &mut bytes)?;
        if bytes.last() != Some(&b'\n') {
            return Ok(true);
        }
        count += 1;
        let line = match serde_json::from_slice::<Letter>(&bytes) {
            Ok(mut letter) => {
                if parse_id(&letter.id).is_none() {
                    // Written by a version that gave no ids.
                    letter.id = format!("{number}-{count}");
                }
                Line::Letter(Box::new(letter))
            }
            Err(_) => Line::Damaged(bytes.clone()),
        };
        if !each(line)? {
            return Ok(false);
        }
    }
}

/// Gives each letter, the oldest first, until `each` says no. How many lines could not be read.
///
/// # Errors
/// When a file can't be read, or when `each` fails.
pub(crate) fn each(
    dir: &Path,
    mut each: impl FnMut(Letter) -> io::Result<bool>,
) -> io::Result<u64> {
    let mut damaged = 0;
    for file in files::list(dir)? {
        let path = files::path(dir, file.number);
        let go_on = lines(&path, file.number, |line| match line {
            Line::Letter(letter) => each(*letter),
            Line::Damaged(_) => {
                damaged += 1;
                Ok(true)
            }
        })?;
        if !go_on {
            break;
        }
    }
    Ok(damaged)
}

/// The letters with these ids, in the order of the files. Ids of letters that are not there are left out.
pub(crate) fn find(dir: &Path, ids: &[String]) -> io::Result<Vec<Letter>> {
    find_some(dir, ids, usize::MAX, usize::MAX)
}

/// The first of them: at most so many, and about so many bytes, but at least one.
pub(crate) fn find_some(
    dir: &Path,
    ids: &[String],
    letters_max: usize,
    bytes_max: usize,
) -> io::Result<Vec<Letter>> {
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let max = letters_max.min(wanted.len());
    let (mut found, mut bytes) = (Vec::new(), 0);
    for number in files_of(ids) {
        let go_on = lines(&files::path(dir, number), number, |line| {
            if let Line::Letter(letter) = line
                && wanted.contains(letter.id.as_str())
            {
                bytes += letter.bytes();
                found.push(*letter);
            }
            Ok(found.len() < max && bytes < bytes_max)
        })?;
        if !go_on {
            break;
        }
    }
    Ok(found)
}

/// The files that these ids are in.
pub(super) fn files_of(ids: &[String]) -> BTreeSet<u64> {
    ids.iter()
        .filter_map(|id| parse_id(id))
        .map(|(file, _)| file)
        .collect()
}

/// Takes the letters with these ids out of the files. How many were there.
///
/// # Errors
/// When a file can't be written; some may be out then.
pub(crate) fn remove(dir: &Path, ids: &[String]) -> io::Result<u64> {
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    files::take_out(dir, Some(&files_of(ids)), |letter| {
        letter.is_some_and(|letter| wanted.contains(letter.id.as_str()))
    })
}

/// Takes out all letters that the filter wants; with one that wants everything also what is no letter.
///
/// # Errors
/// As for [`remove`].
pub(crate) fn remove_all(dir: &Path, filter: &Filter) -> io::Result<u64> {
    let all = filter.is_empty();
    files::take_out(dir, None, |letter| {
        all || letter.is_some_and(|letter| filter.wants(letter))
    })
}
