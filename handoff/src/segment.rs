//! A mapped segment file: the only place that touches the bytes of frames.
//!
//! Why slices into memory that another process writes to are sound here: bytes before the published end are committed, and the one writer (flock) never
//! writes to a committed frame again before the reader has released it; bytes behind the end are only ever touched by the writer. So a slice of committed
//! bytes does not change while it is lent out, and the exclusive slice that the writer fills overlaps no other one. A process of the same user that writes
//! into the files from outside breaks this promise as it could break any process of its user (ptrace); the code treats what it reads as untrusted all the same:
//! each length is copied and checked once, so that such bytes lead to a wrong checksum or a wrong payload and never beyond the mapping.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use crate::layout::{PAGE_BYTES, SEGMENT_HEADER_BYTES};
use crate::primitive::{AtomicU32, Ordering};

/// How many bytes an open segment file has: none, if it is no regular file.
pub(crate) fn file_bytes(file: &File) -> io::Result<u64> {
    let found = file.metadata()?;
    Ok(if found.is_file() { found.len() } else { 0 })
}

/// What a segment file that is shorter than it should be is called.
pub(crate) fn too_short(found: u64, bytes: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the segment has {found} bytes instead of {bytes}"),
    )
}

pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: File,
    map: MmapRaw,
    /// Bytes from the start that `forget_before` has let go.
    forgotten: usize,
    writable: bool,
}

impl Segment {
    /// Maps `bytes` of an open segment file. A file that is shorter is an error here, and not a SIGBUS later.
    pub(crate) fn map(file: File, number: u64, bytes: u64, writable: bool) -> io::Result<Segment> {
        let found = file_bytes(&file)?;
        if found < bytes {
            return Err(too_short(found, bytes));
        }
        let mut options = MmapOptions::new();
        options.len(bytes as usize);
        let map = if writable {
            options.map_raw(&file)?
        } else {
            options.map_raw_read_only(&file)?
        };
        Ok(Segment {
            number,
            file,
            map,
            forgotten: 0,
            writable,
        })
    }

    /// Has the kernel back the whole segment with pages, so that no append has to wait for one.
    pub(crate) fn prefault(&self) {
        // Best effort: kernels before 5.14 do not know it, and the pages come one fault at a time then.
        let _ = self.map.advise(Advice::PopulateWrite);
    }

    /// Committed bytes, from offset `from` up to `to`; both are cut to the mapping.
    ///
    /// # Safety
    /// Nobody may write to these bytes while the slice lives: they lie before the published end and are not released, or no writer is at work.
    pub(crate) unsafe fn committed(&self, from: usize, to: usize) -> &[u8] {
        let to = to.min(self.map.len());
        let from = from.min(to);
        // SAFETY: from ≤ to ≤ the mapping's length, the mapping lives as long as the slice, and the caller promises that the bytes hold still.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(from), to - from) }
    }

    /// The uncommitted bytes of a claim, for the writer.
    ///
    /// # Panics
    /// If the claim leads beyond the mapping or the segment is mapped read-only: the caller's error.
    pub(crate) fn claim(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(
            self.writable
                && offset >= SEGMENT_HEADER_BYTES as usize
                && offset
                    .checked_add(len)
                    .is_some_and(|to| to <= self.map.len())
        );
        // SAFETY: the bytes are inside the writable mapping (asserted). They are exclusive: the one writer of the log hands them out through `&mut self`, and
        // no reader looks behind the published end.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(offset), len) }
    }

    /// Stores a frame's length word: from here on the frame is there, whoever dies.
    ///
    /// # Panics
    /// As [`Segment::claim`].
    pub(crate) fn commit(&mut self, offset: usize, word: u32) {
        let claim: *mut u32 = self.claim(offset, 4).as_mut_ptr().cast();
        // SAFETY: inside the mapping (`claim` asserts it), and 16-byte aligned because frames are and mappings are page-aligned.
        let length = unsafe { AtomicU32::from_ptr(claim) };
        // Release: SYNC POINT with recovery, which sees the memory of a dead writer as the kernel has it: the frame's bytes were stored before its length. (A live
        // reader is ordered by the published end.)
        length.store(word.to_le(), Ordering::Release);
    }

    /// Lets go of the memory before `offset` (the file keeps the bytes), so that what has been read does not count as this process's memory.
    pub(crate) fn forget_before(&mut self, offset: usize) {
        let to = offset.min(self.map.len()) / PAGE_BYTES as usize * PAGE_BYTES as usize;
        if to <= self.forgotten {
            return;
        }
        // SAFETY: the mapping is shared and file-backed: a later look would bring the same bytes back.
        let _ = unsafe {
            self.map.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                self.forgotten,
                to - self.forgotten,
            )
        };
        self.forgotten = to;
    }

    pub(crate) fn forgotten(&self) -> usize {
        self.forgotten
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}
