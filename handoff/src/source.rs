//! Where a reader has a segment's bytes from: the mapped file, or a private copy of a part of it.
//!
//! The mapping costs nothing and is what the sidecar uses. The copy is for Mosquitto's thread: what another process does to the file while a frame is looked at, or
//! even its being cut short, is an error or a wrong checksum there, and never a signal or bytes that change under the decoder. It is also how a file is read
//! that is too short to be mapped: the frames that are in it are as good as any.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::ReaderOptions;
use crate::frame::total_of;
use crate::layout::{
    DESCRIPTION_BYTES, Description, FRAME_ALIGN, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC, u32_at,
};
use crate::segment::{Segment, file_bytes, too_short};

/// How much of a segment may stay mapped in behind the reader before it lets go of it.
const BEHIND_BYTES_MAX: usize = 1 << 20;
/// How much is read ahead, if it is there.
const CHUNK_BYTES: usize = 64 << 10;
/// A larger buffer is given back as soon as it isn't needed.
const KEPT_BYTES_MAX: usize = 1 << 20;

pub(crate) enum Source {
    Mapped(Segment),
    Copied(Copied),
}

/// A part of a segment file, read.
pub(crate) struct Copied {
    number: u64,
    file: File,
    /// Bytes that the file had when it was opened, and not more than a segment has.
    len: usize,
    buffer: Vec<u8>,
    /// The offset in the file of the buffer's first byte.
    from: usize,
    frame_bytes_max: usize,
}

impl Source {
    /// The open file of segment `number`, which should have so many `bytes`.
    pub(crate) fn open(
        file: File,
        number: u64,
        bytes: u64,
        options: &ReaderOptions,
    ) -> io::Result<Source> {
        let found = file_bytes(&file)?;
        if found <= SEGMENT_HEADER_BYTES {
            return Err(too_short(found, bytes));
        }
        if !options.copies && found >= bytes {
            return Segment::map(file, number, bytes, false).map(Source::Mapped);
        }
        Ok(Source::Copied(Copied {
            number,
            file,
            len: found.min(bytes) as usize,
            buffer: Vec::new(),
            from: 0,
            frame_bytes_max: options.frame_bytes_max,
        }))
    }

    /// Bytes of the segment that are there, in whole steps of positions.
    pub(crate) fn len(&self) -> usize {
        match self {
            Source::Mapped(segment) => segment.len(),
            Source::Copied(copied) => copied.len / FRAME_ALIGN * FRAME_ALIGN,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        match self {
            Source::Mapped(segment) => segment.number,
            Source::Copied(copied) => copied.number,
        }
    }

    /// Whether the header says what the log says.
    pub(crate) fn header_is(&self, log: &Description) -> io::Result<bool> {
        let (file, number) = match self {
            Source::Mapped(segment) => (&segment.file, segment.number),
            Source::Copied(copied) => (&copied.file, copied.number),
        };
        let mut bytes = [0; DESCRIPTION_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes == log.of_segment(number).encode(SEGMENT_MAGIC))
    }

    /// The bytes from `from` on: as many as the frame there has, and not beyond `to`, where the committed ones end.
    pub(crate) fn frame(&mut self, from: usize, to: usize) -> io::Result<&[u8]> {
        match self {
            Source::Mapped(segment) => {
                if from.saturating_sub(segment.forgotten()) > BEHIND_BYTES_MAX {
                    segment.forget_before(from);
                }
                Ok(committed(segment, from, to))
            }
            Source::Copied(copied) => {
                let room = to.saturating_sub(from);
                let head = copied.read(from, room.min(FRAME_HEADER_BYTES), to)?;
                let total = head
                    .get(..FRAME_HEADER_BYTES)
                    .and_then(|head| total_of(u32_at(head, 0)))
                    .filter(|total| *total <= room)
                    .unwrap_or(0);
                if total > copied.frame_bytes_max {
                    // Only its header: what decodes it finds that it leads beyond the end.
                    return copied.read(from, FRAME_HEADER_BYTES, to);
                }
                copied.read(from, total.max(room.min(FRAME_HEADER_BYTES)), to)
            }
        }
    }

    /// All bytes from `from` to `to`, which are committed.
    pub(crate) fn stretch(&mut self, from: usize, to: usize) -> io::Result<&[u8]> {
        match self {
            Source::Mapped(segment) => Ok(committed(segment, from, to)),
            Source::Copied(copied) => copied.read(from, to.saturating_sub(from), to),
        }
    }

    /// Bytes that are at hand already: those of the frame or stretch that was asked for last.
    pub(crate) fn at_hand(&self, from: usize, to: usize) -> &[u8] {
        match self {
            Source::Mapped(segment) => committed(segment, from, to),
            Source::Copied(copied) => from
                .checked_sub(copied.from)
                .and_then(|from| copied.buffer.get(from..to - copied.from))
                .unwrap_or(&[]),
        }
    }
}

impl Copied {
    /// At least `need` bytes from `from` on, and as many more as are at hand before `to`.
    fn read(&mut self, from: usize, need: usize, to: usize) -> io::Result<&[u8]> {
        let end = self.from + self.buffer.len();
        if from < self.from || from + need > end {
            let bytes = need.max(CHUNK_BYTES).min(to.saturating_sub(from));
            if self.buffer.capacity() > KEPT_BYTES_MAX && bytes <= KEPT_BYTES_MAX {
                self.buffer = Vec::new();
            }
            self.buffer.resize(bytes, 0);
            self.from = from;
            let read = self.fill();
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            if read? < need {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the segment was cut short while it was read",
                ));
            }
        }
        let begin = from - self.from;
        let upto = self
            .buffer
            .len()
            .min(to.saturating_sub(self.from))
            .max(begin);
        Ok(&self.buffer[begin..upto])
    }

    /// Reads the buffer full, or as far as the file goes.
    fn fill(&mut self) -> io::Result<usize> {
        let mut done = 0;
        while done < self.buffer.len() {
            let at = (self.from + done) as u64;
            match self.file.read_at(&mut self.buffer[done..], at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

fn committed(segment: &Segment, from: usize, to: usize) -> &[u8] {
    // SAFETY: `to` is not beyond the published end, and the reader has not released what lies behind its position; the frame that it has lent out is released
    // only by a later call with `&mut self`, when the loan is over. See `segment` for the whole argument.
    unsafe { segment.committed(from, to) }
}
