//! A segment's bytes, for recovery: read and not mapped.
//!
//! In a mapping a sector that the disk does not give any more, and a file that is cut short, would be a SIGBUS, and the end of Mosquitto. Here they are zeros and
//! bytes that are not there. At most one segment is held in memory at a time.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::dir;
use crate::layout::PAGE_BYTES;
use crate::segment::file_bytes;

/// How much is read at a time, while the disk gives it.
const CHUNK_BYTES: usize = 1 << 20;

/// A part of a segment file.
pub(crate) struct Contents {
    /// As many as there are. What the disk does not give is zero.
    pub(crate) bytes: Vec<u8>,
    /// Whether the disk has given all that was asked for.
    pub(crate) is_whole: bool,
}

impl Contents {
    /// The bytes of the file at `path` between two offsets.
    pub(crate) fn read(path: &Path, part: Range<usize>) -> io::Result<Contents> {
        let file = dir::open(path, false, false)?;
        let there = usize::try_from(file_bytes(&file)?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; part.end.min(there).saturating_sub(part.start)];
        let mut unreadable = 0;
        for (index, chunk) in bytes.chunks_mut(CHUNK_BYTES).enumerate() {
            let at = part.start + index * CHUNK_BYTES;
            unreadable += read_chunk(&file, chunk, at as u64)?;
        }
        if unreadable > 0 {
            log::error!(
                "{}: the disk does not give {unreadable} bytes of it",
                path.display()
            );
        }
        let is_whole = unreadable == 0 && bytes.len() == part.len();
        Ok(Contents { bytes, is_whole })
    }
}

/// Reads what lies at offset `at`, page by page when the disk does not give it in one. Returns how many bytes it does not give.
fn read_chunk(file: &File, chunk: &mut [u8], at: u64) -> io::Result<usize> {
    if is_read(file, chunk, at)? {
        return Ok(0);
    }
    let mut unreadable = 0;
    let mut done = 0;
    while done < chunk.len() {
        let at = at + done as u64;
        let to_page_end = (PAGE_BYTES - at % PAGE_BYTES) as usize;
        let len = to_page_end.min(chunk.len() - done);
        let page = &mut chunk[done..done + len];
        if !is_read(file, page, at)? {
            page.fill(0);
            unreadable += len;
        }
        done += len;
    }
    Ok(unreadable)
}

/// False when the disk does not give it.
fn is_read(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(error)
            if error.raw_os_error() == Some(libc::EIO)
                // Cut short since it was looked at.
                || error.kind() == io::ErrorKind::UnexpectedEof =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
