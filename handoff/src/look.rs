//! What the cursor page of a log says, for those who only look: with both sides at work, one, or none.

use std::io;
use std::path::Path;

use crate::cursor::{self, Cursor, Found};
use crate::dir::{self, Dir};
use crate::layout::VERSION;
use crate::{OpenError, Position};

/// A writer at work moves the end between two looks; one of these many looks finds it in peace.
const LOOKS: usize = 1000;

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Unix milliseconds at which the log was created.
    pub epoch: u64,
    /// Everything before this position is done with.
    pub released: Position,
    /// Position behind the last frame.
    pub end: Position,
    /// How many frames lie before `released`, and before `end`. `None` where the page can't tell: the next writer counts them.
    pub released_frames: Option<u64>,
    /// See `released_frames`.
    pub frames: Option<u64>,
}

impl LogState {
    /// Reads the cursor page of the log in `dir`. Takes no role and changes nothing.
    ///
    /// # Errors
    /// There is no log, or its page is damaged or of another version.
    pub fn read(dir: &Path) -> Result<LogState, OpenError> {
        let dir = Dir {
            path: dir.to_owned(),
        };
        let path = dir.cursor();
        let io = |e| OpenError::io(&path, "read the cursor page", e);
        let file = dir::open(&path, false, false).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => OpenError::NotThere {
                dir: dir.path.clone(),
            },
            _ => io(e),
        })?;
        let epoch = match cursor::read_description(&file).map_err(io)? {
            Found::Good(description) => description.epoch,
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
                    reason: why.to_owned(),
                });
            }
        };
        let cursor = Cursor::map_read_only(file, &path).map_err(io)?;
        let words = cursor.words();
        let mut state = LogState {
            epoch,
            released: 0,
            end: 0,
            released_frames: None,
            frames: None,
        };
        for _ in 0..LOOKS {
            // The released position first: it is never beyond an end that is looked at later.
            state.released = words.released.position();
            state.released_frames = words.released_frames.get(state.released);
            state.end = words.end.position();
            state.frames = words.end_frames.get(state.end);
            if state.frames.is_some() && state.released_frames.is_some() {
                break;
            }
            std::hint::spin_loop();
        }
        Ok(state)
    }

    /// How many frames wait between the two positions. A frame whose bytes are damaged is one of them until the reader is behind it.
    pub fn waiting_frames(&self) -> Option<u64> {
        Some(self.frames?.saturating_sub(self.released_frames?))
    }

    /// Bytes between the two positions: the frames with their headers, and the gaps at the ends of segments.
    pub fn waiting_bytes(&self) -> u64 {
        self.end.saturating_sub(self.released)
    }
}
