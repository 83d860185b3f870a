//! A look at a log from outside, while its writer and its reader are at work or when neither is there.
//!
//! It takes no role, maps nothing and changes nothing: it copies a segment at a time out of its file and checks each frame. So it disturbs nobody, and bytes that
//! the writer recycles meanwhile can't hurt it: they don't verify, and what was released meanwhile is passed over in silence.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::cursor::{self, Found};
use crate::dir::{self, Dir};
use crate::frame::{self, Decoded, Search};
use crate::layout::{
    DESCRIPTION_BYTES, Description, FRAME_ALIGN, FRAME_HEADER_BYTES, NoDescription, POSITION_MAX,
    SEGMENT_MAGIC, VERSION, u64_at,
};
use crate::recovery::boot_id;
use crate::repair::{self, Mended, Stretch};
use crate::threefold;
use crate::{Frame, OpenError, Position, ReadError};

/// Where the words of the cursor page are: see `cursor`.
const END_AT: usize = 64;
const RELEASED_AT: usize = 128;
const BOOT_AT: usize = 192;
const WORDS_BYTES: usize = 208;

/// The frames of a log as they stood when it was opened.
pub struct Peek {
    dir: Dir,
    description: Description,
    released: Position,
    end: Position,
    /// The end is that of the last segment, for want of a better one: zeros before it are no damage.
    guessed: bool,
    oldest: Position,
    segments: usize,
    position: Position,
    loaded: Option<Loaded>,
    mended: Vec<u8>,
}

/// A segment's bytes, copied.
struct Loaded {
    number: u64,
    bytes: Vec<u8>,
}

/// The words of the cursor page.
struct Words {
    end: Position,
    released: Position,
    boot: u64,
}

impl Peek {
    /// Looks at the log in `dir`. A damaged or missing cursor page is made up for by the segments: everything that is there counts as not released then.
    ///
    /// # Errors
    /// There is no log, it is of another version, or it can't be read.
    pub fn open(dir: &Path) -> Result<Peek, OpenError> {
        let dir = Dir {
            path: dir.to_owned(),
        };
        let not_there = || OpenError::NotThere {
            dir: dir.path.clone(),
        };
        let numbers = dir.segments().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not_there(),
            _ => OpenError::io(&dir.path, "list the segments", e),
        })?;
        let (description, words) = match read_cursor(&dir)? {
            Some((description, words)) => (description, Some(words)),
            None if numbers.is_empty() => return Err(not_there()),
            None => (describe_by_segments(&dir, &numbers)?, None),
        };
        let start_of = |number: Option<&u64>| number.map(|&n| description.start_of(n));
        let oldest = start_of(numbers.first());
        let behind_last = numbers.last().map_or(0, |&n| description.start_of(n + 1));
        let words = words.filter(Words::can_be_true);
        let same_boot = words.as_ref().is_some_and(|w| w.boot == boot_id());
        let (end, released) = words.map_or((0, 0), |w| (w.end, w.released));
        let end = if same_boot { end } else { end.max(behind_last) };
        let oldest = oldest.unwrap_or(end).min(end);
        let released = if released > end { oldest } else { released };
        Ok(Peek {
            dir,
            description,
            released,
            end,
            guessed: !same_boot,
            oldest,
            segments: numbers.len(),
            position: released.max(oldest),
            loaded: None,
            mended: Vec::new(),
        })
    }

    /// Unix milliseconds at which the log was created.
    pub fn epoch(&self) -> u64 {
        self.description.epoch
    }

    /// What had been released when this was opened: everything from there on waits.
    pub fn released(&self) -> Position {
        self.released
    }

    /// The end when this was opened.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The oldest position that is still in a segment.
    pub fn oldest(&self) -> Position {
        self.oldest
    }

    /// How many segment files there were.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Bytes of a segment file.
    pub fn segment_bytes(&self) -> u64 {
        self.description.segment_bytes
    }

    /// Goes on at `position`, which must be one of a frame, or at the oldest when that is newer.
    pub fn seek(&mut self, position: Position) {
        self.position = position.max(self.oldest);
        self.loaded = None;
    }

    /// The next frame, or `None` at the end.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] once for each stretch that is no good frame, and behind which the next call goes on.
    pub fn poll(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        loop {
            if self.position >= self.end {
                return Ok(None);
            }
            if !self.load()? {
                continue;
            }
            let (from, to) = self.readable();
            let bytes = self.bytes(from, to);
            match frame::decode(bytes, self.position, self.description.salt) {
                Decoded::Padding { total } => self.position += total as u64,
                Decoded::Bad(reason) => match self.mend(from, to) {
                    Some(mended) => {
                        let position = self.position;
                        self.position += mended.total as u64;
                        if !mended.padding {
                            return Ok(Some(Frame {
                                position,
                                next: self.position,
                                payload: &self.mended,
                                repaired: true,
                            }));
                        }
                    }
                    None => {
                        if let Some(error) = self.skip(reason, from, to) {
                            return Err(error);
                        }
                    }
                },
                Decoded::Payload { len, total } => {
                    let position = self.position;
                    self.position += total as u64;
                    let payload = from + FRAME_HEADER_BYTES;
                    return Ok(Some(Frame {
                        position,
                        next: self.position,
                        payload: self.bytes(payload, payload + len),
                        repaired: false,
                    }));
                }
            }
        }
    }

    /// Mends the frame in front; its payload lies in `mended` then.
    fn mend(&mut self, from: usize, to: usize) -> Option<Mended> {
        let bytes = self.bytes(from, to);
        let mended = repair::mend(&Stretch {
            bytes,
            room: bytes.len(),
            left: self.description.segment_bytes as usize - from,
            position: self.position,
            salt: self.description.salt,
        })?;
        self.mended = mended.payload(bytes);
        Some(mended)
    }

    fn readable(&self) -> (usize, usize) {
        let from = self.description.offset_of(self.position);
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let size = self.loaded.as_ref().map_or(0, |loaded| loaded.bytes.len());
        (from.min(size), from.saturating_add(left).min(size))
    }

    fn bytes(&self, from: usize, to: usize) -> &[u8] {
        let bytes = self.loaded.as_ref().map_or(&[][..], |l| &l.bytes);
        bytes.get(from..to).unwrap_or_default()
    }

    /// Copies the segment that the position is in. False when it is gone, and the position moved on.
    fn load(&mut self) -> Result<bool, ReadError> {
        let number = self.description.segment_of(self.position);
        if self.loaded.as_ref().is_some_and(|l| l.number == number) {
            return Ok(true);
        }
        self.loaded = None;
        let path = self.dir.segment(number);
        match copy(&path, self.description.segment_bytes) {
            Ok(Some(bytes)) => {
                self.loaded = Some(Loaded { number, bytes });
                Ok(true)
            }
            Ok(None) => self.pass_missing(number).map(|()| false),
            Err(source) => Err(ReadError::Io {
                path,
                action: "read the segment",
                source,
            }),
        }
    }

    /// The segment is not there: released meanwhile, or lost.
    fn pass_missing(&mut self, number: u64) -> Result<(), ReadError> {
        let there = self.dir.segments().map_err(|source| ReadError::Io {
            path: self.dir.path.clone(),
            action: "list the segments",
            source,
        })?;
        let from = self.position;
        let next = there.into_iter().find(|&n| n > number);
        let next = next.map_or(self.end, |n| self.description.start_of(n).min(self.end));
        self.position = self.position.max(next);
        if self.was_released_before(next) {
            return Ok(());
        }
        Err(ReadError::Corrupt {
            from,
            to: self.position,
            reason: format!("segment {number} is missing"),
        })
    }

    /// Whether everything before `position` is done with by now.
    fn was_released_before(&self, position: Position) -> bool {
        let now = read_cursor(&self.dir).ok().flatten();
        now.is_some_and(|(_, words)| words.can_be_true() && words.released >= position)
    }

    /// Moves to the next good frame of the segment, or behind the segment. Nothing to report when there was nothing.
    fn skip(&mut self, reason: &'static str, from: usize, to: usize) -> Option<ReadError> {
        let start = self.position;
        let bytes = self.bytes(from, to);
        let search = frame::next_good(
            bytes,
            FRAME_ALIGN,
            bytes.len(),
            start,
            self.description.salt,
            usize::MAX,
        );
        let good = match search {
            Search::At(at) | Search::Stopped(at) => Some(at),
            Search::Nothing => None,
        };
        let unwritten = good.is_none() && bytes.iter().all(|byte| *byte == 0);
        let behind = self
            .description
            .start_of(self.description.segment_of(start) + 1)
            .min(self.end);
        self.position = good.map_or(behind, |at| start + at as u64);
        if self.guessed && unwritten {
            return None;
        }
        Some(ReadError::Corrupt {
            from: start,
            to: self.position,
            reason: reason.into(),
        })
    }
}

impl Words {
    fn can_be_true(&self) -> bool {
        let is_position = |p: Position| p <= POSITION_MAX && p.is_multiple_of(FRAME_ALIGN as u64);
        is_position(self.end) && is_position(self.released)
    }
}

/// The cursor page; `None` when it is not there or damaged.
fn read_cursor(dir: &Dir) -> Result<Option<(Description, Words)>, OpenError> {
    let path = dir.cursor();
    let io = |e| OpenError::io(&path, "read the cursor page", e);
    let file = match dir::open(&path, false, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let description = match cursor::read_description(&file).map_err(io)? {
        Found::Good(description) => description,
        Found::Version(found) => {
            return Err(OpenError::Version {
                path,
                found,
                supported: VERSION,
            });
        }
        Found::Damaged(_) => return Ok(None),
    };
    let mut page = [0; WORDS_BYTES];
    file.read_exact_at(&mut page, 0).map_err(io)?;
    // Without a majority: a position that can't be true.
    let position = |at| {
        let (first, second, third) = (u64_at(&page, at), at + 8, at + 16);
        threefold::choose(first, u64_at(&page, second), u64_at(&page, third)).unwrap_or(u64::MAX)
    };
    let words = Words {
        end: position(END_AT),
        released: position(RELEASED_AT),
        boot: u64_at(&page, BOOT_AT),
    };
    Ok(Some((description, words)))
}

/// What the log is, from the first segment that can say it.
fn describe_by_segments(dir: &Dir, numbers: &[u64]) -> Result<Description, OpenError> {
    for &number in numbers {
        let path = dir.segment(number);
        let read = || {
            let mut bytes = [0; DESCRIPTION_BYTES];
            dir::open(&path, false, false)?.read_exact_at(&mut bytes, 0)?;
            io::Result::Ok(bytes)
        };
        match read().map(|bytes| Description::decode(&bytes, SEGMENT_MAGIC)) {
            Ok(Ok(description)) => return Ok(description.of_segment(0)),
            Ok(Err(NoDescription::Version(found))) => {
                return Err(OpenError::Version {
                    path,
                    found,
                    supported: VERSION,
                });
            }
            // Another one may be better.
            Ok(Err(NoDescription::Damaged(_))) | Err(_) => {}
        }
    }
    Err(OpenError::Corrupt {
        path: dir.path.clone(),
        reason: "neither the cursor page nor any segment says what this log is".into(),
    })
}

/// The bytes of a segment file, as many as there are. `None` when it is not there, or was renamed while it was read: recycling begins with that.
fn copy(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    };
    let file: File = match dir::open(path, false, false) {
        Ok(file) => file,
        Err(error) => return gone(error),
    };
    let mut bytes = Vec::new();
    (&file).take(bytes_max).read_to_end(&mut bytes)?;
    match path.symlink_metadata() {
        Ok(now) if now.ino() == file.metadata()?.ino() => Ok(Some(bytes)),
        Ok(_) => Ok(None),
        Err(error) => gone(error),
    }
}
