//! A page of counters in a file: one writing process, any number of readers.
//!
//! ```text
//!  0        8        12       16                       64
//!  +--------+--------+--------+------------------------+--------+--------+----
//!  | magic  | version| count  | zeros                  | u64    | u64    | ...
//!  +--------+--------+--------+------------------------+--------+--------+----
//!  behind the counters, for changes of several of them as one:
//!  +--------+--------+--------+-----------------+-----------------+----
//!  | begun  | done   | length | counter, value  | counter, value  | ...
//!  +--------+--------+--------+-----------------+-----------------+----
//! ```
//! Several counters change as one like this: what they shall be is written behind them, `begun` counts up, they are set, `done`
//! follows `begun`. Whoever finds `begun` ahead of `done` sets them (again): that is what they were to be. So after a kill at
//! any moment all of them have their new values, or none.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};

use crate::OpenError;
use crate::dir;
use crate::layout::u32_at;
use crate::log_files::allocate;
use crate::primitive::{AtomicU64, Ordering, fence};

const MAGIC: [u8; 8] = *b"MRMQCNTR";
/// The version of the page's format, which has nothing to do with the log's.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const VERSION_AT: usize = 8;
const COUNT_AT: usize = 12;
const _: () = assert!(HEADER_BYTES.is_multiple_of(8));
/// More counters than anyone needs; bounds what a damaged file can ask for.
const COUNT_MAX: usize = 1 << 22;
/// Words behind the counters.
const BEGUN: usize = 0;
const DONE: usize = 1;
const LENGTH: usize = 2;
const CHANGES: usize = 3;

/// Counters of one process, which others may look at while it runs and after it has died.
pub struct Counters {
    map: MmapRaw,
    len: usize,
    writable: bool,
    /// In a page to look at: what its writer had begun to set when it was opened.
    unfinished: Vec<(usize, u64)>,
}

impl Counters {
    /// Makes `n` counters in `path`, all zero. A page of that size that is there already is used again, so that those who have it open see the new values.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn create(path: &Path, n: usize) -> Result<Counters, OpenError> {
        if n > COUNT_MAX {
            return Err(OpenError::Options {
                option: "counters",
                value: n as u64,
                allowed: "at most 4194304",
            });
        }
        let made = match dir::open(path, true, false) {
            Ok(file) if is_page_of(&file, n) => Ok(file),
            Ok(_) => make(path, n, &[]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, n, &[]),
            Err(error) => Err(error),
        };
        let counters = made
            .and_then(|file| Counters::map(&file, n, true))
            .map_err(|e| OpenError::io(path, "create the counters", e))?;
        counters.forget_unfinished();
        for i in 0..n {
            counters.set(i, 0);
        }
        Ok(counters)
    }

    /// Goes on with the counters in `path`: with the values that an earlier process left, also one that was killed. Those that it
    /// did not have are zero; a file that is no page of counters is made anew.
    ///
    /// # Errors
    /// The file can't be read or written, or is of another version.
    pub fn keep(path: &Path, n: usize) -> Result<Counters, OpenError> {
        let old = match Counters::open(path) {
            Ok(old) => old,
            Err(OpenError::Version {
                path,
                found,
                supported,
            }) => {
                return Err(OpenError::Version {
                    path,
                    found,
                    supported,
                });
            }
            Err(_) => return Counters::create(path, n),
        };
        let io = |e| OpenError::io(path, "keep the counters", e);
        // An older page has no room behind its counters, and one with more counters comes from a newer process: both are copied.
        let has_room = std::fs::metadata(path).map_err(io)?.len() >= file_bytes(old.len) as u64;
        if old.len == n && has_room {
            let file = dir::open(path, true, false).map_err(io)?;
            let counters = Counters::map(&file, n, true).map_err(io)?;
            counters.finish();
            return Ok(counters);
        }
        let values: Vec<u64> = (0..n.max(old.len)).map(|i| old.get(i)).collect();
        let file = make(path, values.len(), &values).map_err(io)?;
        Counters::map(&file, values.len(), true).map_err(io)
    }

    /// Opens the counters of another process, to look at.
    ///
    /// # Errors
    /// There are none, or the file is no page of counters of this version.
    pub fn open(path: &Path) -> Result<Counters, OpenError> {
        let io = |e| OpenError::io(path, "open the counters", e);
        let file = dir::open(path, false, false).map_err(io)?;
        let count = read_count(&file)
            .map_err(io)?
            .map_err(|found| match found {
                Some(found) => OpenError::Version {
                    path: path.to_owned(),
                    found,
                    supported: VERSION,
                },
                None => OpenError::Corrupt {
                    path: path.to_owned(),
                    reason: "it is no page of counters".into(),
                },
            })?;
        let mut counters = Counters::map(&file, count, false).map_err(io)?;
        counters.unfinished = counters.begun_changes();
        Ok(counters)
    }

    fn map(file: &File, len: usize, writable: bool) -> io::Result<Counters> {
        let mut options = MmapOptions::new();
        // An older page ends behind its counters.
        let bytes = file.metadata()?.len().min(file_bytes(len) as u64);
        options.len(usize::try_from(bytes).unwrap_or(file_bytes(len)));
        let map = if writable {
            options.map_raw(file)?
        } else {
            options.map_raw_read_only(file)?
        };
        Ok(Counters {
            map,
            len,
            writable,
            unfinished: Vec::new(),
        })
    }

    fn counter(&self, i: usize) -> Option<&AtomicU64> {
        if i < self.len { self.word(i) } else { None }
    }

    /// A word behind the counters.
    fn behind(&self, i: usize) -> Option<&AtomicU64> {
        self.word(self.len.checked_add(i)?)
    }

    fn word(&self, i: usize) -> Option<&AtomicU64> {
        let end = i
            .checked_add(1)?
            .checked_mul(8)?
            .checked_add(HEADER_BYTES)?;
        if end > self.map.len() {
            return None;
        }
        // SAFETY: the word ends within the mapping, whose file was at least as long when it was mapped; the mapping is page-aligned and lives as long as the
        // reference. Where it is read-only, nobody stores through the reference (`add`, `set`, `set_all` and `finish` look).
        Some(unsafe {
            &*self
                .map
                .as_ptr()
                .add(HEADER_BYTES)
                .cast::<AtomicU64>()
                .add(i)
        })
    }

    /// Sets several counters as one, each named once: when this process is killed meanwhile, all of them or none have their new
    /// values for whoever opens the page then. One call at a time. Nothing happens if the page was opened to look at.
    pub fn set_all(&self, changes: &[(usize, u64)]) {
        let (Some(begun), Some(done), Some(length)) =
            (self.behind(BEGUN), self.behind(DONE), self.behind(LENGTH))
        else {
            return;
        };
        if !self.writable || changes.len() > self.len {
            return;
        }
        for (at, (counter, value)) in changes.iter().enumerate() {
            let words = (
                self.behind(CHANGES + 2 * at),
                self.behind(CHANGES + 2 * at + 1),
            );
            if let (Some(index), Some(word)) = words {
                index.store(*counter as u64, Ordering::Relaxed);
                word.store(*value, Ordering::Relaxed);
            }
        }
        length.store(changes.len() as u64, Ordering::Relaxed);
        let number = done.load(Ordering::Relaxed).wrapping_add(1);
        // Release: SYNC POINT with the Acquire in `begun_changes`: who sees this sees the changes.
        begun.store(number, Ordering::Release);
        // Release: no counter is seen changed before `begun` is. Of a killed process all stores before some one are seen.
        fence(Ordering::Release);
        for (counter, value) in changes {
            self.set(*counter, *value);
        }
        done.store(number, Ordering::Release);
    }

    /// What had been begun and is not known to be done.
    fn begun_changes(&self) -> Vec<(usize, u64)> {
        let load = |i| self.behind(i).map(|word| word.load(Ordering::Acquire));
        let (Some(begun), Some(done), Some(length)) = (load(BEGUN), load(DONE), load(LENGTH))
        else {
            return Vec::new();
        };
        if begun == done || length > self.len as u64 {
            return Vec::new();
        }
        (0..length as usize)
            .filter_map(|at| {
                let counter = usize::try_from(load(CHANGES + 2 * at)?).ok()?;
                Some((counter, load(CHANGES + 2 * at + 1)?))
            })
            .collect()
    }

    /// Does what a killed process had begun.
    fn finish(&self) {
        for (counter, value) in self.begun_changes() {
            self.set(counter, value);
        }
        self.forget_unfinished();
    }

    fn forget_unfinished(&self) {
        if let (Some(begun), Some(done)) = (self.behind(BEGUN), self.behind(DONE))
            && self.writable
        {
            done.store(begun.load(Ordering::Relaxed), Ordering::Release);
        }
    }

    /// Adds to counter `i`. Nothing happens if there is no such counter, or the page was opened to look at.
    pub fn add(&self, i: usize, v: u64) {
        if let Some(counter) = self.counter(i).filter(|_| self.writable) {
            // Relaxed: each counter stands for itself.
            counter.fetch_add(v, Ordering::Relaxed);
        }
    }

    /// Sets counter `i`; as [`Counters::add`].
    pub fn set(&self, i: usize, v: u64) {
        if let Some(counter) = self.counter(i).filter(|_| self.writable) {
            counter.store(v, Ordering::Relaxed);
        }
    }

    /// Counter `i`, or 0 if an older writer's page has none.
    pub fn get(&self, i: usize) -> u64 {
        let unfinished = self.unfinished.iter().find(|(counter, _)| *counter == i);
        unfinished.map_or_else(
            || {
                self.counter(i)
                    .map_or(0, |counter| counter.load(Ordering::Relaxed))
            },
            |(_, value)| *value,
        )
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The header, the counters, and the room for a change of all of them.
fn file_bytes(n: usize) -> usize {
    HEADER_BYTES + (n + CHANGES + 2 * n) * 8
}

fn is_page_of(file: &File, n: usize) -> bool {
    let bytes = file.metadata().map_or(0, |data| data.len());
    bytes >= file_bytes(n) as u64 && matches!(read_count(file), Ok(Ok(count)) if count == n)
}

fn make(path: &Path, n: usize, values: &[u64]) -> io::Result<File> {
    let mut unready = path.as_os_str().to_owned();
    unready.push(dir::UNREADY);
    // What a process that died here left, whatever it is.
    match fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = dir::open(Path::new(&unready), true, true)?;
    allocate(&file, file_bytes(n) as u64)?;
    let mut header = [0; HEADER_BYTES];
    header[..VERSION_AT].copy_from_slice(&MAGIC);
    header[VERSION_AT..COUNT_AT].copy_from_slice(&VERSION.to_le_bytes());
    header[COUNT_AT..COUNT_AT + 4].copy_from_slice(&(n as u32).to_le_bytes());
    file.write_all_at(&header, 0)?;
    let values: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    file.write_all_at(&values, HEADER_BYTES as u64)?;
    fs::rename(&unready, path)?;
    Ok(file)
}

/// How many counters the file has room for and speaks of; else its version if that is not ours.
fn read_count(file: &File) -> io::Result<Result<usize, Option<u32>>> {
    let bytes = file.metadata()?.len();
    if bytes < HEADER_BYTES as u64 {
        return Ok(Err(None));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    if header[..VERSION_AT] != MAGIC {
        return Ok(Err(None));
    }
    let version = u32_at(&header, VERSION_AT);
    if version != VERSION {
        return Ok(Err(Some(version)));
    }
    let count = u32_at(&header, COUNT_AT) as usize;
    let least = (HEADER_BYTES + count.min(COUNT_MAX) * 8) as u64;
    Ok(if count <= COUNT_MAX && least <= bytes {
        Ok(count)
    } else {
        Err(None)
    })
}
