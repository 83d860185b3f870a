//! The polling side.

mod damage;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::cursor::Cursor;
use crate::dir::{self, Dir};
use crate::frame::{self, Decoded};
use crate::layout::{Description, FRAME_HEADER_BYTES, POSITION_MAX};
use crate::opening::{describe, start};
use crate::source::Source;
use crate::waiter::{Waiter, Which};
use crate::{OpenError, Position, ReadError, ReaderOptions, Role};

/// How many paddings are passed in one poll. One fills up each segment; after a loss of power those that were prepared are paddings as a whole, a few in a row.
const PADDINGS_MAX: usize = 64;

/// Room for so many frames that are not released; with more of them it grows.
const POLLED: usize = 4096;

/// One frame of the log, lent out until the next call of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it starts: with the log's epoch its name.
    pub position: Position,
    /// Where it ends: what to release when it is done with.
    pub next: Position,
    /// Its bytes, in the mapping or a copy.
    pub payload: &'a [u8],
    /// One of its bytes was damaged in the file and is right here.
    pub repaired: bool,
}

/// The one reader of a log. Dropping it gives the role back; what it had not released is read again by the next one.
pub struct Reader {
    dir: Dir,
    description: Description,
    cursor: Arc<Cursor>,
    position: Position,
    released: Position,
    /// How many frames lie before `position`, and before `released`.
    frames: u64,
    released_frames: u64,
    /// Where each frame that is not released ends, and how many frames lie before that.
    polled: VecDeque<(Position, u64)>,
    /// The end as last seen: most polls need not look at the shared line.
    seen_end: Position,
    source: Option<Source>,
    /// The segment whose lack was reported, with nothing behind it to go on at.
    missing: Option<u64>,
    /// The payload of the last mended frame.
    mended: Vec<u8>,
    mended_upto: Position,
    repaired: u64,
    options: ReaderOptions,
    _lock: File,
}

impl Reader {
    /// Opens the log in `dir` where the reader before has released it.
    ///
    /// # Errors
    /// There is none yet, another reader has it, or its files can't be used: see [`OpenError`].
    pub fn open(dir: &Path, options: &ReaderOptions) -> Result<Reader, OpenError> {
        let dir = Dir {
            path: dir.to_owned(),
        };
        let path = dir.cursor();
        let file = dir::open(&path, true, false).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => OpenError::NotThere {
                dir: dir.path.clone(),
            },
            _ => OpenError::io(&path, "open the cursor page", e),
        })?;
        let lock = dir.lock(Role::Reader, options.patient)?;
        let description = describe(&dir, &file)?;
        let io = |e| OpenError::io(&path, "map the cursor page", e);
        let cursor = Arc::new(Cursor::map(file, &path).map_err(io)?);
        let segments = dir
            .segments()
            .map_err(|e| OpenError::io(&dir.path, "list the segments", e))?;
        let position = start(&cursor, &description, &segments);
        let counts = &cursor.words().released_frames;
        // With a damaged count nearly right is better than nothing: it becomes exact at the end of the log.
        let counted = counts.get(position).or_else(|| counts.latest());
        let frames = counted.unwrap_or(0);
        Ok(Reader {
            dir,
            description,
            cursor,
            position,
            released: position,
            frames,
            released_frames: frames,
            polled: VecDeque::with_capacity(POLLED),
            seen_end: 0,
            source: None,
            missing: None,
            mended: Vec::new(),
            mended_upto: 0,
            repaired: 0,
            options: options.clone(),
            _lock: lock,
        })
    }

    /// Unix milliseconds at which this log was created.
    pub fn epoch(&self) -> u64 {
        self.description.epoch
    }

    /// The next frame, or `None` at the end of the log. Never blocks. Of a reader that copies, `None` also means that as much was looked at as one poll may:
    /// there is more as long as [`Reader::end`] is beyond [`Reader::position`].
    ///
    /// A frame of which one byte is damaged is mended on the way (in a copy: a reader changes no file), logged and counted.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] once for each corrupted stretch (or for each part of a long one, see [`ReaderOptions::search_bytes_max`]), which is behind the reader
    /// then; [`ReadError::Io`] when a segment can't be opened.
    pub fn poll(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        for _ in 0..PADDINGS_MAX {
            if self.position >= self.seen_end && !self.sees_more() {
                self.count_lost();
                return Ok(None);
            }
            if !self.enter_segment()? {
                return Ok(None);
            }
            let (from, to) = self.readable();
            if from >= to {
                return Err(self.skip_segment(damage::CUT_SHORT.into()));
            }
            let Some(source) = &mut self.source else {
                return Ok(None);
            };
            let decoded = match source.frame(from, to) {
                Ok(bytes) => frame::decode(bytes, self.position, self.description.salt),
                Err(error) => return Err(self.unreadable(error)),
            };
            let reason = match decoded {
                Decoded::Payload { len, total } => return Ok(Some(self.next_frame(len, total))),
                Decoded::Padding { total } if total == self.left() => {
                    self.position += total as u64;
                    if self.options.copies && total > self.options.search_bytes_max {
                        return Ok(None);
                    }
                    continue;
                }
                Decoded::Padding { .. } => "the padding does not fill the segment up",
                Decoded::Bad(reason) => reason,
            };
            if let Some(position) = self.mend_or_skip(reason)? {
                return Ok(Some(self.mended_frame(position)));
            }
            if self.options.copies {
                return Ok(None);
            }
        }
        // The caller comes again, and is not held up meanwhile.
        Ok(None)
    }

    /// Where the next poll looks.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The end that the writer has published.
    pub fn end(&self) -> Position {
        let end = self.cursor.words().end.position();
        // No log gets there: garbage. Nothing to be read then.
        if end > POSITION_MAX { 0 } else { end }
    }

    /// How many frames and segment headers this reader has met of which one byte was damaged, and read all the same.
    pub fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Whether the segment that comes next is not there although the end lies beyond: looking again at once is of no use.
    pub fn is_stranded(&self) -> bool {
        self.position < self.seen_end
            && self.missing == Some(self.description.segment_of(self.position))
    }

    /// A copy of the bytes from `from` up to `to`, as they stand in the files, headers of frames and all: what a [`ReadError::Corrupt`] was about. At most
    /// `bytes_max` of them, from one segment, and none when they are not there.
    pub fn raw(&self, from: Position, to: Position, bytes_max: usize) -> Vec<u8> {
        let number = self.description.segment_of(from);
        let len = to
            .min(self.description.start_of(number + 1))
            .saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(bytes_max)];
        let offset = self.description.offset_of(from) as u64;
        let read = dir::open(&self.dir.segment(number), false, false)
            .and_then(|file| file.read_at(&mut bytes, offset));
        bytes.truncate(read.unwrap_or(0));
        bytes
    }

    /// What has been released.
    pub fn released(&self) -> Position {
        self.released
    }

    /// Gives everything before `up_to` (at most what was polled) back to the writer, and wakes it if it waits for that.
    pub fn release(&mut self, up_to: Position) {
        let to = up_to.min(self.position);
        if to > self.released {
            while let Some((_, frames)) = self.polled.pop_front_if(|(next, _)| *next <= to) {
                self.released_frames = frames;
            }
            let from = std::mem::replace(&mut self.released, to);
            let words = self.cursor.words();
            words.give_back(from, to, self.released_frames);
        }
    }

    /// How many frames of the log lie before what has been released, those that were damaged too as soon as the reader has been
    /// at the end behind them. Exact also after kill -9.
    pub fn released_frames(&self) -> u64 {
        self.released_frames
    }

    /// How many frames of the log lie before `position`, which is not released yet and was polled: see [`Reader::released_frames`].
    pub fn frames_before(&self, position: Position) -> u64 {
        let behind = self.polled.partition_point(|(next, _)| *next <= position);
        let last = behind.checked_sub(1).and_then(|at| self.polled.get(at));
        last.map_or(self.released_frames, |(_, frames)| *frames)
    }

    /// At the end the number of frames before it is known, and so how many were in the damaged stretches.
    fn count_lost(&mut self) {
        let counted = self.cursor.words().end_frames.get(self.position);
        if let Some(frames) = counted.filter(|frames| *frames != self.frames) {
            self.frames = frames;
            if self.released == self.position {
                self.released_frames = frames;
                let words = self.cursor.words();
                words.released_frames.set(u64::MAX, self.position, frames);
            } else {
                self.polled.push_back((self.position, frames));
            }
        }
    }

    /// Goes back to a frame that was polled and is not released: the next poll gives it again.
    pub fn rewind(&mut self, to: Position) {
        let to = to.clamp(self.released, self.position);
        while self.polled.pop_back_if(|(next, _)| *next > to).is_some() {}
        self.frames = match self.polled.back() {
            Some((_, frames)) => *frames,
            None => self.released_frames,
        };
        self.position = to;
    }

    /// Waits for the writer in another thread (or in this one).
    pub fn waiter(&self) -> Waiter {
        Waiter::new(Arc::clone(&self.cursor), Which::End)
    }

    /// Looks at the end again: whether it lies behind the reader's position.
    fn sees_more(&mut self) -> bool {
        let end = self.end();
        if end < self.seen_end {
            // Bytes behind it may have been read ahead, and are not written yet.
            self.source = None;
        }
        self.seen_end = end;
        self.position < end
    }

    /// The offsets in the segment that are committed and there: from the reader's position on.
    fn readable(&self) -> (usize, usize) {
        let from = self.description.offset_of(self.position);
        let left = usize::try_from(self.seen_end - self.position).unwrap_or(usize::MAX);
        let there = self.source.as_ref().map_or(0, Source::len);
        (from, from.saturating_add(left).min(there))
    }

    /// Bytes from the reader's position to the end of its segment.
    fn left(&self) -> usize {
        self.description.segment_bytes as usize - self.description.offset_of(self.position)
    }

    /// Opens the segment that the position is in; false when it can't be there yet.
    fn enter_segment(&mut self) -> Result<bool, ReadError> {
        let number = self.description.segment_of(self.position);
        if self
            .source
            .as_ref()
            .is_some_and(|source| source.number() == number)
        {
            return Ok(true);
        }
        // Unmapped before the next one is mapped: memory for one segment at a time.
        self.source = None;
        // Once a segment, however far ahead the end was when it was looked at: it may have gone on to a segment that is there, or was not true.
        if !self.sees_more() {
            return Ok(false);
        }
        let path = self.dir.segment(number);
        let bytes = self.description.segment_bytes;
        let opened = dir::open(&path, false, false).and_then(|file| {
            let source = Source::open(file, number, bytes, &self.options)?;
            Ok((source.header_is(&self.description)?, source))
        });
        match opened {
            Ok((is_good, source)) => {
                self.source = Some(source);
                self.missing = None;
                if !is_good {
                    // All that it says is known, and its frames have checksums of their own.
                    self.count_repair(format_args!("the header of segment {number}"));
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.skip_missing(number),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    /// The frame in front, which is good and at hand: a payload of `len` bytes, and `total` bytes up to the next frame.
    fn next_frame(&mut self, len: usize, total: usize) -> Frame<'_> {
        let position = self.position;
        let payload = self.description.offset_of(position) + FRAME_HEADER_BYTES;
        self.pass_frame(total);
        Frame {
            position,
            next: self.position,
            payload: self
                .source
                .as_ref()
                .map_or(&[], |source| source.at_hand(payload, payload + len)),
            repaired: false,
        }
    }

    fn pass_frame(&mut self, total: usize) {
        self.position += total as u64;
        self.frames = self.frames.wrapping_add(1);
        self.polled.push_back((self.position, self.frames));
    }
}
