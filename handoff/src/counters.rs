//! A page of counters in a file: one writing process, any number of readers.
//!
//! ```text
//!  0        8        12       16                       64
//!  +--------+--------+--------+------------------------+--------+--------+----
//!  | magic  | version| count  | zeros                  | u64    | u64    | ...
//!  +--------+--------+--------+------------------------+--------+--------+----
//! ```
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};

use crate::OpenError;
use crate::dir;
use crate::layout::{VERSION, u32_at};
use crate::log_files::allocate;
use crate::primitive::{AtomicU64, Ordering};

const MAGIC: [u8; 8] = *b"MRMQCNTR";
const HEADER_BYTES: usize = 64;
const VERSION_AT: usize = 8;
const COUNT_AT: usize = 12;
const _: () = assert!(HEADER_BYTES.is_multiple_of(8));
/// More counters than anyone needs; bounds what a damaged file can ask for.
const COUNT_MAX: usize = 4096;

/// Counters of one process, which others may look at while it runs and after it has died.
pub struct Counters {
    map: MmapRaw,
    len: usize,
    writable: bool,
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
                allowed: "at most 4096",
            });
        }
        let made = match dir::open(path, true, false) {
            Ok(file) if matches!(read_count(&file), Ok(Ok(count)) if count == n) => Ok(file),
            Ok(_) => make(path, n),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, n),
            Err(error) => Err(error),
        };
        let counters = made
            .and_then(|file| Counters::map(&file, n, true))
            .map_err(|e| OpenError::io(path, "create the counters", e))?;
        for i in 0..n {
            counters.set(i, 0);
        }
        Ok(counters)
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
        Counters::map(&file, count, false).map_err(io)
    }

    fn map(file: &File, len: usize, writable: bool) -> io::Result<Counters> {
        let mut options = MmapOptions::new();
        options.len(file_bytes(len));
        let map = if writable {
            options.map_raw(file)?
        } else {
            options.map_raw_read_only(file)?
        };
        Ok(Counters { map, len, writable })
    }

    fn counter(&self, i: usize) -> Option<&AtomicU64> {
        if i >= self.len {
            return None;
        }
        // SAFETY: i < len, and the mapping (whose file was at least as long when it was mapped) has room for len counters behind its header; it is
        // page-aligned and lives as long as the reference. Where it is read-only, nobody stores through the reference (`add` and `set` look).
        Some(unsafe {
            &*self
                .map
                .as_ptr()
                .add(HEADER_BYTES)
                .cast::<AtomicU64>()
                .add(i)
        })
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
        self.counter(i)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
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

fn file_bytes(n: usize) -> usize {
    HEADER_BYTES + n * 8
}

fn make(path: &Path, n: usize) -> io::Result<File> {
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
    Ok(if count <= COUNT_MAX && file_bytes(count) as u64 <= bytes {
        Ok(count)
    } else {
        Err(None)
    })
}
