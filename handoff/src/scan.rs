//! Looking through a segment that nobody writes to: where its last good frame ends, and how many there are.

use crate::Position;
use crate::frame::{self, Decoded, Search};
use crate::layout::FRAME_ALIGN;
use crate::repair::{self, Stretch};

/// How many bytes the search for a good frame may checksum at a time.
const SEARCH_BYTES_MAX: usize = 1 << 30;

/// The good frames in some bytes.
pub(crate) struct Good {
    /// How far into the bytes the last one (also a padding) reaches.
    pub(crate) end: Option<usize>,
    /// How many there are, paddings not counted.
    pub(crate) frames: u64,
}

/// Finds the good frames in `bytes`, the first of which lies at `position`; with `mending` also those of which a byte is damaged.
pub(crate) fn good(bytes: &[u8], position: Position, salt: u32, mending: bool) -> Good {
    let mut found = Good {
        end: None,
        frames: 0,
    };
    let mut at = 0;
    while at < bytes.len() {
        let here = &bytes[at..];
        let position = position + at as u64;
        let (total, padding) = match frame::decode(here, position, salt) {
            Decoded::Payload { total, .. } => (total, false),
            Decoded::Padding { total } => (total, true),
            Decoded::Bad(_) => match mending.then(|| mend(here, position, salt)).flatten() {
                Some(mended) => (mended.total, mended.padding),
                None => {
                    let len = here.len();
                    match frame::next_good(here, FRAME_ALIGN, len, position, salt, SEARCH_BYTES_MAX)
                    {
                        Search::At(next) | Search::Stopped(next) => at += next,
                        Search::Nothing => break,
                    }
                    continue;
                }
            },
        };
        at += total;
        found.end = Some(at);
        found.frames += u64::from(!padding);
    }
    found
}

fn mend(bytes: &[u8], position: Position, salt: u32) -> Option<repair::Mended> {
    repair::mend(&Stretch {
        bytes,
        room: bytes.len(),
        left: bytes.len(),
        position,
        salt,
    })
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // In blocks: the compiler turns them into wide loads.
    bytes
        .chunks(4096)
        .all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}
