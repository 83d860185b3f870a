//! What the reader does about bytes that are no good frames: mends them, passes them over and says so, or waits for what is missing.

use std::io;

use super::{Frame, Reader};
use crate::frame::{self, Search};
use crate::layout::FRAME_ALIGN;
use crate::repair::{self, Stretch};
use crate::{Position, ReadError};

/// What is said of a segment whose file ends before the segment does.
pub(super) const CUT_SHORT: &str = "the segment's file is cut short";

impl Reader {
    /// Whether the file of the segment that the position is in has not all of its bytes.
    fn is_cut_short(&self) -> bool {
        let bytes = self.description.segment_bytes as usize;
        self.source.as_ref().is_some_and(|s| s.len() < bytes)
    }

    /// The position behind the segment, or the end.
    fn behind_segment(&self) -> Position {
        let number = self.description.segment_of(self.position);
        self.description.start_of(number + 1).min(self.seen_end)
    }

    /// What a segment lacks that is too short (or was cut short meanwhile) is skipped; other errors may pass.
    pub(super) fn unreadable(&mut self, error: io::Error) -> ReadError {
        let number = self.description.segment_of(self.position);
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return ReadError::Io {
                path: self.dir.segment(number),
                action: "read the segment",
                source: error,
            };
        }
        self.skip_segment(error.to_string())
    }

    pub(super) fn skip_segment(&mut self, reason: String) -> ReadError {
        let from = self.position;
        self.position = self.behind_segment();
        ReadError::Corrupt {
            from,
            to: self.position,
            reason,
        }
    }

    /// Goes on at the next segment that is there. When there is none, says so once and waits for one: the writer makes each before it publishes an end in it.
    pub(super) fn skip_missing(&mut self, number: u64) -> Result<bool, ReadError> {
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

    /// What to do about bytes that are no frame: mends the frame, of which the payload lies in `mended` then, and gives its position; passes a mended padding
    /// (`None`); or moves to the next good frame of the segment, or behind what may be looked at.
    pub(super) fn mend_or_skip(
        &mut self,
        reason: &'static str,
    ) -> Result<Option<Position>, ReadError> {
        // What lies behind an end that was too large for a moment is no damage.
        if !self.sees_more() {
            return Ok(None);
        }
        let (from, to) = self.readable();
        let start = self.position;
        let left = self.left();
        let salt = self.description.salt;
        let budget = (self.options.search_bytes_max / FRAME_ALIGN * FRAME_ALIGN).max(FRAME_ALIGN);
        let limit = to.min(from.saturating_add(budget));
        let Some(source) = &mut self.source else {
            return Ok(None);
        };
        let bytes = match source.stretch(from, limit) {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.unreadable(error)),
        };
        let stretch = Stretch {
            bytes,
            room: to - from,
            left,
            position: start,
            salt,
        };
        if let Some(mended) = repair::mend(&stretch) {
            self.mended = mended.payload(bytes);
            if mended.padding {
                self.position += mended.total as u64;
            } else {
                self.pass_frame(mended.total);
            }
            if self.mended_upto <= start {
                // A frame that was gone back to is not counted again.
                self.mended_upto = self.position;
                self.count_repair(format_args!("byte {} of the frame at {start}", mended.at));
            }
            return Ok((!mended.padding).then_some(start));
        }
        let search = frame::next_good(bytes, FRAME_ALIGN, to - from, start, salt, budget);
        let passed = match search {
            Search::At(at) | Search::Stopped(at) => at,
            Search::Nothing if limit == to && self.is_cut_short() => {
                return Err(self.skip_segment(CUT_SHORT.into()));
            }
            Search::Nothing => (limit - from).max(FRAME_ALIGN),
        };
        self.position += passed as u64;
        Err(ReadError::Corrupt {
            from: start,
            to: self.position,
            reason: reason.into(),
        })
    }

    pub(super) fn mended_frame(&self, position: Position) -> Frame<'_> {
        Frame {
            position,
            next: self.position,
            payload: &self.mended,
            repaired: true,
        }
    }

    pub(super) fn count_repair(&mut self, what: std::fmt::Arguments<'_>) {
        self.repaired += 1;
        // Each of the first ones, then ever fewer: damage may be everywhere.
        if self.repaired <= 16 || self.repaired.is_power_of_two() {
            log::warn!(
                "{}: {what} is damaged; it was read all the same ({} so far)",
                self.dir.path.display(),
                self.repaired
            );
        }
    }
}
