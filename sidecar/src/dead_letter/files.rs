//! The files of the dead letters: appended to by the sidecar, and shortened by whoever purges or replays, each under a lock.
//!
//! `letters-<n>.jsonl`: JSON lines. The newest file grows to an eighth of the bound, then the next one begins; the oldest go
//! when all together pass the bound. A file that letters were taken out of is never appended to again, and the newest file is
//! never removed, so that no id is used twice. `removed` counts what the bound has cost so far.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::letter::Letter;

/// How long another process may have the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A file of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// What the bound has cost.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) letters: u64,
    pub(super) bytes: u64,
}

/// The newest file, and how many lines it had when it had so many bytes.
#[derive(Debug, Default)]
pub(super) struct Tail {
    number: u64,
    bytes: u64,
    lines: u64,
}

pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("letters-{number}.jsonl"))
}

/// The files, the oldest first. A folder that is not there has none.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Listed>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| {
            name.strip_prefix("letters-")?
                .strip_suffix(".jsonl")?
                .parse()
                .ok()
        });
        // One that is gone by now is none.
        if let (Some(number), Ok(data)) = (number, entry.metadata()) {
            let bytes = data.len();
            found.push(Listed { number, bytes });
        }
    }
    found.sort_unstable_by_key(|file| file.number);
    Ok(found)
}

/// Held as long as the file is open.
fn lock(dir: &Path) -> io::Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!("another process holds {}", path.display()),
                ));
            }
        }
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the file, empty. It is the newest from now on.
fn begin(dir: &Path, number: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .open(path(dir, number))?;
    sync_dir(dir)?;
    Ok(file)
}

/// Gives the letters their ids, appends them and syncs them. On an error none, some or all are there. Also what the bound cost.
pub(super) fn append(
    dir: &Path,
    bytes_max: u64,
    tail: &mut Tail,
    letters: &mut [Letter],
) -> io::Result<Removed> {
    let _lock = lock(dir)?;
    let mut removed = Removed::default();
    let mut rest = letters;
    while !rest.is_empty() {
        let mut file = find_tail(dir, tail, bytes_max / 8)?;
        let mut lines = Vec::new();
        let mut count = 0;
        for letter in rest.iter_mut() {
            letter.id = format!("{}-{}", tail.number, tail.lines + count + 1);
            let line = letter.line();
            let grown = tail.bytes + (lines.len() + line.len()) as u64;
            // At least one a file, however large it is.
            if grown > bytes_max / 8 && tail.bytes + lines.len() as u64 > 0 {
                break;
            }
            lines.extend(line);
            count += 1;
        }
        if count == 0 {
            // The file is full for this one: the next turn begins another.
            tail.bytes = tail.bytes.max(bytes_max);
            continue;
        }
        make_room(dir, bytes_max, lines.len() as u64, &mut removed)?;
        if let Err(error) = file.write_all(&lines).and_then(|()| file.sync_data()) {
            // Half a line may be there. If it stays, what follows goes to a new file.
            let _ = file.set_len(tail.bytes);
            return Err(error);
        }
        tail.bytes += lines.len() as u64;
        tail.lines += count;
        rest = rest
            .split_at_mut(usize::try_from(count).unwrap_or(usize::MAX))
            .1;
    }
    Ok(removed)
}

/// Opens the newest file, or begins the next one when that is full or ends within a line.
fn find_tail(dir: &Path, tail: &mut Tail, file_bytes_max: u64) -> io::Result<File> {
    let newest = list(dir)?.pop();
    let number = newest.map_or(1, |file| file.number + 1);
    if let Some(newest) = newest.filter(|file| file.bytes < file_bytes_max) {
        let is_known = newest.number == tail.number && newest.bytes == tail.bytes;
        let is_full = newest.number == tail.number && tail.bytes >= file_bytes_max;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(path(dir, newest.number))?;
        if is_known || (!is_full && measure(&mut file, newest, tail)?) {
            return Ok(file);
        }
    }
    let file = begin(dir, number)?;
    *tail = Tail {
        number,
        ..Tail::default()
    };
    Ok(file)
}

/// Counts the lines of a file that another process wrote. False when the last one has no end.
fn measure(file: &mut File, newest: Listed, tail: &mut Tail) -> io::Result<bool> {
    if newest.bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            return Ok(false);
        }
    }
    file.seek(SeekFrom::Start(0))?;
    *tail = Tail {
        number: newest.number,
        bytes: newest.bytes,
        lines: count_lines(file)?,
    };
    Ok(true)
}

pub(super) fn count_lines(from: impl Read) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, from);
    let mut lines = 0;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        let len = chunk.len();
        reader.consume(len);
    }
}

/// Removes the oldest files until `added` bytes fit, all but the newest.
fn make_room(dir: &Path, bytes_max: u64, added: u64, removed: &mut Removed) -> io::Result<()> {
    let mut files = list(dir)?;
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    let newest = files.pop();
    for file in files {
        if total + added <= bytes_max {
            break;
        }
        let path = path(dir, file.number);
        let letters = File::open(&path).and_then(count_lines).unwrap_or(0);
        fs::remove_file(&path)?;
        total -= file.bytes;
        removed.letters += letters;
        removed.bytes += file.bytes;
        write_removed(dir, read_removed(dir) + letters)?;
    }
    debug_assert!(newest.is_some(), "there is a file to write to");
    Ok(())
}

/// How many letters the bound has cost since the folder was made.
pub(super) fn read_removed(dir: &Path) -> u64 {
    let text = fs::read_to_string(dir.join("removed")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn write_removed(dir: &Path, count: u64) -> io::Result<()> {
    let new = dir.join("removed.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    writeln!(file, "{count}")?;
    fs::rename(new, dir.join("removed"))
}

/// Takes out every letter that `goes` says yes to; a line that can't be read is `None`. Only the given files, or all. How many
/// went.
pub(super) fn take_out(
    dir: &Path,
    only: Option<&BTreeSet<u64>>,
    mut goes: impl FnMut(Option<&Letter>) -> bool,
) -> io::Result<u64> {
    if list(dir)?.is_empty() {
        return Ok(0);
    }
    let _lock = lock(dir)?;
    let files = list(dir)?;
    let newest = files.last().map_or(0, |file| file.number);
    let mut gone = 0;
    for file in files {
        if file.bytes == 0 || only.is_some_and(|only| !only.contains(&file.number)) {
            continue;
        }
        let taken = rewrite(dir, file.number, &mut goes, file.number == newest)?;
        gone += taken;
    }
    sync_dir(dir)?;
    Ok(gone)
}

/// Writes the file again without the letters that go.
fn rewrite(
    dir: &Path,
    number: u64,
    goes: &mut impl FnMut(Option<&Letter>) -> bool,
    is_newest: bool,
) -> io::Result<u64> {
    let path = path(dir, number);
    let new = dir.join(format!("letters-{number}.new"));
    let copy = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let mut copy = BufWriter::new(copy);
    let (mut gone, mut kept) = (0, 0);
    super::read::lines(&path, number, |line| {
        if goes(line.letter()) {
            gone += 1;
        } else {
            copy.write_all(&line.bytes())?;
            kept += 1;
        }
        Ok(true)
    })?;
    if gone == 0 {
        return fs::remove_file(&new).map(|()| 0);
    }
    if is_newest {
        // Its numbers are used: what comes goes to another file.
        begin(dir, number + 1)?;
    }
    if kept == 0 {
        fs::remove_file(&new)?;
        fs::remove_file(&path)?;
    } else {
        copy.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&new, &path)?;
    }
    Ok(gone)
}
