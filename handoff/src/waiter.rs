//! Waiting for the other side of the log, in a thread of one's own.

use std::sync::Arc;
use std::time::Duration;

use crate::Position;
use crate::cursor::Cursor;
use crate::gate::{Gate, Permit};

#[derive(Clone, Copy)]
pub(crate) enum Which {
    End,
    Released,
}

/// Waits for the end of the log to grow ([`Reader::waiter`](crate::Reader::waiter)) or for the reader to release
/// ([`Writer::release_waiter`](crate::Writer::release_waiter)). Clones share their wake-ups.
#[derive(Clone)]
pub struct Waiter {
    cursor: Arc<Cursor>,
    which: Which,
    permit: Arc<Permit>,
}

impl Waiter {
    pub(crate) fn new(cursor: Arc<Cursor>, which: Which) -> Waiter {
        Waiter {
            cursor,
            which,
            permit: Arc::new(Permit::new()),
        }
    }

    fn gate(&self) -> &Gate {
        let words = self.cursor.words();
        match self.which {
            Which::End => &words.end,
            Which::Released => &words.released,
        }
    }

    /// Blocks until the position is beyond `seen`, [`Waiter::wake`] is called, or `timeout` has passed. Returns the position.
    pub fn wait_beyond(&self, seen: Position, timeout: Duration) -> Position {
        self.gate().wait_beyond(seen, Some(timeout), &self.permit)
    }

    /// Makes one wait return: the one at work, or the next one when there is none. With clones waiting in several threads, call it once for each.
    pub fn wake(&self) {
        self.gate().wake(&self.permit);
    }
}
