//! What a new reader makes of the cursor page: what the log is, and where to begin.

use std::fs::File;

use crate::creation;
use crate::cursor::{self, Cursor, Found};
use crate::dir::Dir;
use crate::layout::{Description, FRAME_ALIGN, VERSION};
use crate::primitive::Ordering;
use crate::recovery::boot_id;
use crate::{OpenError, Position};

/// The log's description: the cursor page's, or, when that is damaged beyond mending and the positions in the page are not, that of a segment.
pub(crate) fn describe(dir: &Dir, file: &File) -> Result<Description, OpenError> {
    let path = dir.cursor();
    let io = |e| OpenError::io(&path, "read the cursor page", e);
    let why = match cursor::read_description(file).map_err(io)? {
        Found::Good(description) => return Ok(description),
        Found::Version(found) => {
            return Err(OpenError::Version {
                path,
                found,
                supported: VERSION,
            });
        }
        Found::Damaged(why) => why,
    };
    let cursor = file.try_clone().and_then(|file| Cursor::map(file, &path));
    if cursor.is_ok_and(|cursor| cursor.positions_agree())
        && let Some(description) = creation::describe_by_segments(dir)?
    {
        return Ok(description);
    }
    Err(OpenError::Corrupt {
        path,
        reason: format!("{why}; a writer that opens the log rebuilds it"),
    })
}

/// Where a new reader begins: at the released position, if that can be true, else at the oldest segment.
pub(crate) fn start(cursor: &Cursor, log: &Description, segments: &[u64]) -> Position {
    let words = cursor.words();
    let oldest = segments.first().map_or(0, |&oldest| log.start_of(oldest));
    let end = words.end.position();
    // After a restart of the machine, before the writer has been here, the released position may be newer than the end.
    let same_boot = words.boot.load(Ordering::Relaxed) == boot_id();
    let limit = if same_boot {
        end
    } else {
        end.max(segments.last().map_or(0, |last| log.start_of(last + 1)))
    };
    match words.released.agreed() {
        Ok(released) if released <= limit && released.is_multiple_of(FRAME_ALIGN as u64) => {
            if words.released.is_damaged() {
                log::warn!(
                    "{}: a copy of the released position was damaged",
                    cursor.path.display()
                );
                words.released.advance(released);
            }
            released.max(oldest)
        }
        found => {
            log::warn!(
                "{}: the released position {found:?} cannot be true; starting at {oldest}",
                cursor.path.display()
            );
            oldest
        }
    }
}
