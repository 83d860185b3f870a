//! The polling side.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::cursor::{self, Cursor, Found};
use crate::dir::{self, Dir};
use crate::frame::{self, Decoded};
use crate::layout::{Description, FRAME_ALIGN, FRAME_HEADER_BYTES, POSITION_MAX, VERSION};
use crate::primitive::Ordering;
use crate::recovery::boot_id;
use crate::segment::Segment;
use crate::waiter::{Waiter, Which};
use crate::{OpenError, Position, ReadError, ReaderOptions, Role};

/// How much of a segment may stay mapped in behind the reader before it lets go of it.
const BEHIND_BYTES_MAX: usize = 1 << 20;

/// Room for so many frames that are not released; with more of them it grows.
const POLLED: usize = 4096;

/// One frame of the log, lent out until the next call of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it starts: with the log's epoch its name.
    pub position: Position,
    /// Where it ends: what to release when it is done with.
    pub next: Position,
    /// Its bytes, in the mapping.
    pub payload: &'a [u8],
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
    segment: Option<Segment>,
    /// The segment whose lack was reported, with nothing behind it to go on at.
    missing: Option<u64>,
    _lock: File,
}

impl Reader {
    /// Opens the log in `dir` where the reader before has released it.
    ///
    /// # Errors
    /// There is none yet, another reader has it, or its files can't be used: see [`OpenError`].
    pub fn open(dir: &Path, _options: &ReaderOptions) -> Result<Reader, OpenError> {
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
        let lock = dir.lock(Role::Reader)?;
        let io = |e| OpenError::io(&path, "read the cursor page", e);
        let description = match cursor::read_description(&file).map_err(io)? {
            Found::Good(description) => description,
            Found::Version(found) => {
                return Err(OpenError::Version {
                    path,
                    found,
                    supported: VERSION,
                });
            }
            Found::Damaged(why) => {
                return Err(OpenError::Corrupt {
                    path,
                    reason: format!("{why}; a writer that opens the log rebuilds it"),
                });
            }
        };
        let cursor = Arc::new(Cursor::map(file, &path).map_err(io)?);
        let segments = dir
            .segments()
            .map_err(|e| OpenError::io(&dir.path, "list the segments", e))?;
        let position = start(&cursor, &description, &segments);
        let frames = cursor.words().released_frames.get(position).unwrap_or(0);
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
            segment: None,
            missing: None,
            _lock: lock,
        })
    }

    /// Unix milliseconds at which this log was created.
    pub fn epoch(&self) -> u64 {
        self.description.epoch
    }

    /// The next frame, or `None` at the end of the log. Never blocks.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] once for each corrupted stretch, which is behind the reader then; [`ReadError::Io`] when a segment can't be opened.
    pub fn poll(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        loop {
            if self.position >= self.seen_end {
                self.seen_end = self.end();
                if self.position >= self.seen_end {
                    self.count_lost();
                    return Ok(None);
                }
            }
            if !self.enter_segment()? {
                return Ok(None);
            }
            let (from, to) = self.readable();
            let bytes = committed(self.segment.as_ref(), from, to);
            match frame::decode(bytes, self.position, self.description.salt) {
                Decoded::Padding { total } => self.position += total as u64,
                Decoded::Bad(reason) => return Err(self.skip(reason)),
                Decoded::Payload { len, total } => {
                    let position = self.position;
                    self.position += total as u64;
                    self.frames += 1;
                    self.polled.push_back((self.position, self.frames));
                    self.forget(from);
                    let payload = from + FRAME_HEADER_BYTES;
                    let payload = committed(self.segment.as_ref(), payload, payload + len);
                    return Ok(Some(Frame {
                        position,
                        next: self.position,
                        payload,
                    }));
                }
            }
        }
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

    /// The offsets in the segment that are committed: from the reader's position on.
    fn readable(&self) -> (usize, usize) {
        let from = self.description.offset_of(self.position);
        let left = usize::try_from(self.seen_end - self.position).unwrap_or(usize::MAX);
        (
            from,
            from.saturating_add(left)
                .min(self.description.segment_bytes as usize),
        )
    }

    /// Maps the segment that the position is in; false when it can't be there yet.
    fn enter_segment(&mut self) -> Result<bool, ReadError> {
        let number = self.description.segment_of(self.position);
        if self
            .segment
            .as_ref()
            .is_some_and(|segment| segment.number == number)
        {
            return Ok(true);
        }
        // Unmapped before the next one is mapped: memory for one segment at a time.
        self.segment = None;
        let path = self.dir.segment(number);
        let opened = dir::open(&path, false, false)
            .and_then(|file| Segment::map(file, number, self.description.segment_bytes, false));
        let error = match opened {
            Ok(segment) => {
                let good =
                    segment
                        .header_is(&self.description)
                        .map_err(|source| ReadError::Io {
                            path,
                            action: "read the segment",
                            source,
                        })?;
                self.segment = Some(segment);
                // Its frames have checksums of their own: they are not lost with the header.
                let here = self.position;
                return if good {
                    Ok(true)
                } else {
                    Err(ReadError::Corrupt {
                        from: here,
                        to: here,
                        reason: "the segment's header is damaged".into(),
                    })
                };
            }
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::NotFound => self.skip_missing(number),
            io::ErrorKind::UnexpectedEof => {
                let from = self.position;
                self.position = self.description.start_of(number + 1).min(self.seen_end);
                Err(ReadError::Corrupt {
                    from,
                    to: self.position,
                    reason: error.to_string(),
                })
            }
            _ => Err(ReadError::Io {
                path,
                action: "open the segment",
                source: error,
            }),
        }
    }

    /// Goes on at the next segment that is there. When there is none, says so once and waits for one: the writer makes each before it publishes an end in it.
    fn skip_missing(&mut self, number: u64) -> Result<bool, ReadError> {
        let there = self.dir.segments().map_err(|source| ReadError::Io {
            path: self.dir.path.clone(),
            action: "list the segments",
            source,
        })?;
        let next = there
            .into_iter()
            .find(|&n| n > number)
            .map(|n| self.description.start_of(n));
        let from = self.position;
        let reason = format!("segment {number} is missing");
        match next {
            Some(next) if next <= self.seen_end => {
                self.position = next;
                Err(ReadError::Corrupt {
                    from,
                    to: next,
                    reason,
                })
            }
            _ if self.missing != Some(number) => {
                self.missing = Some(number);
                Err(ReadError::Corrupt {
                    from,
                    to: from,
                    reason,
                })
            }
            _ => Ok(false),
        }
    }

    /// Moves to the next good frame of the segment, or behind the committed bytes of the segment.
    fn skip(&mut self, reason: &'static str) -> ReadError {
        let (from, to) = self.readable();
        let bytes = committed(self.segment.as_ref(), from, to);
        let good = frame::next_good(bytes, FRAME_ALIGN, self.position, self.description.salt);
        let start = self.position;
        self.position += good.unwrap_or((to - from).max(FRAME_ALIGN)) as u64;
        ReadError::Corrupt {
            from: start,
            to: self.position,
            reason: reason.into(),
        }
    }

    /// Lets go of what lies well behind the frame at `offset`.
    fn forget(&mut self, offset: usize) {
        if let Some(segment) = &mut self.segment
            && offset - segment.forgotten().min(offset) > BEHIND_BYTES_MAX
        {
            segment.forget_before(offset);
        }
    }
}

fn committed(segment: Option<&Segment>, from: usize, to: usize) -> &[u8] {
    // SAFETY: `to` is not beyond the published end, and this reader has not released what lies behind its position; the frame that it has lent out is released
    // only by a later call with `&mut self`, when the loan is over. See `segment` for the whole argument.
    segment.map_or(&[], |segment| unsafe { segment.committed(from, to) })
}

/// Where a new reader begins: at the released position, if that can be true, else at the oldest segment.
fn start(cursor: &Cursor, log: &Description, segments: &[u64]) -> Position {
    let words = cursor.words();
    let (released, end) = (words.released.position(), words.end.position());
    let oldest = segments.first().map_or(0, |&oldest| log.start_of(oldest));
    // After a restart of the machine, before the writer has been here, the released position may be newer than the end.
    let same_boot = words.boot.load(Ordering::Relaxed) == boot_id();
    let limit = if same_boot {
        end
    } else {
        end.max(segments.last().map_or(0, |last| log.start_of(last + 1)))
    };
    if released > limit || !released.is_multiple_of(FRAME_ALIGN as u64) {
        log::warn!(
            "{}: the released position {released} cannot be true; starting at {oldest}",
            cursor.path.display()
        );
        return oldest;
    }
    released.max(oldest)
}
