//! One frame: header, payload, and the check that it is whole.
//!
//! ```text
//!  0         4         8                   16                 16 + len      multiple of 16
//!  +---------+---------+-------------------+------------------+-------------+
//!  | length  | CRC32C  | position          | payload          | zeros       |
//!  | u32     | u32     | u64               |                  |             |
//!  +---------+---------+-------------------+------------------+-------------+
//!  length: 0 = nothing here yet; else 16 + payload bytes; bit 31 set: padding up to the segment's end
//!  CRC32C: begun with the log's salt, over the length word and every byte from 8 to the end of the zeros
//! ```
//! The length word is stored last (release). A frame that lies elsewhere, belongs to an earlier life of a recycled segment, or was made up by a device in a
//! payload does not verify: its position and the salt are in the CRC.

// Public for the fuzz target, which sees this module through `fuzzing`.
#![cfg_attr(not(fuzzing), allow(unreachable_pub))]

use crate::Position;
use crate::layout::{FRAME_ALIGN, FRAME_HEADER_BYTES, u32_at, u64_at};

/// Set in the length word of a frame that only fills a segment up.
pub(crate) const PADDING: u32 = 1 << 31;
/// How many bytes the search for the next good frame may checksum: payloads made to look like frames can't hold the reader up for long.
const SEARCH_BYTES_MAX: usize = 1 << 30;

const LENGTH_AT: usize = 0;
const CRC_AT: usize = 4;
const POSITION_AT: usize = 8;
const _: () = assert!(
    POSITION_AT + 8 == FRAME_HEADER_BYTES && FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN)
);

/// What stands at a position.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A frame: bytes of its payload, and of the whole of it.
    Payload {
        /// Bytes of the payload, which begins behind the header.
        len: usize,
        /// Bytes up to the next frame.
        total: usize,
    },
    /// Padding of this many bytes.
    Padding {
        /// Bytes up to the next frame.
        total: usize,
    },
    /// No whole frame, with the reason.
    Bad(&'static str),
}

/// Bytes that a frame with a payload of `len` takes.
pub(crate) fn total_bytes(len: usize) -> usize {
    (FRAME_HEADER_BYTES + len).next_multiple_of(FRAME_ALIGN)
}

fn checksum(salt: u32, word: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &word.to_le_bytes()), rest)
}

/// Completes the header of a frame whose payload stands in `frame` already, but for the length word, which is returned: storing it commits the frame.
#[must_use]
pub fn encode(frame: &mut [u8], len: usize, padding: bool, position: Position, salt: u32) -> u32 {
    let word = (FRAME_HEADER_BYTES + len) as u32 | if padding { PADDING } else { 0 };
    frame[POSITION_AT..FRAME_HEADER_BYTES].copy_from_slice(&position.to_le_bytes());
    let crc = checksum(salt, word, &frame[POSITION_AT..]);
    frame[CRC_AT..POSITION_AT].copy_from_slice(&crc.to_le_bytes());
    word
}

/// Checks the frame at the start of `bytes`, which end where the committed bytes (or the segment) end.
pub fn decode(bytes: &[u8], position: Position, salt: u32) -> Decoded {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Decoded::Bad("there is no room for a frame");
    }
    // Copied once and checked once: whatever another process does to the mapping meanwhile, the bounds below hold.
    let word = u32_at(bytes, LENGTH_AT);
    let length = (word & !PADDING) as usize;
    if word == 0 {
        return Decoded::Bad("nothing was written here");
    }
    if length < FRAME_HEADER_BYTES {
        return Decoded::Bad("the length is too small");
    }
    let total = length.next_multiple_of(FRAME_ALIGN);
    if total > bytes.len() {
        return Decoded::Bad("the length leads beyond the end");
    }
    if u64_at(bytes, POSITION_AT) != position {
        return Decoded::Bad("the position is another one");
    }
    if checksum(salt, word, &bytes[POSITION_AT..total]) != u32_at(bytes, CRC_AT) {
        return Decoded::Bad("the checksum is wrong");
    }
    if word & PADDING != 0 {
        Decoded::Padding { total }
    } else {
        Decoded::Payload {
            len: length - FRAME_HEADER_BYTES,
            total,
        }
    }
}

/// Looks for the first good frame at or behind `from` in `bytes`, the first of which lies at `position`. Returns how far into `bytes` it is.
pub fn next_good(bytes: &[u8], from: usize, position: Position, salt: u32) -> Option<usize> {
    let mut budget = SEARCH_BYTES_MAX;
    let mut at = from;
    while at + FRAME_HEADER_BYTES <= bytes.len() {
        match decode(&bytes[at..], position + at as u64, salt) {
            Decoded::Bad("the checksum is wrong") => {
                let length = (u32_at(bytes, at) & !PADDING) as usize;
                budget = budget.checked_sub(length)?;
            }
            Decoded::Bad(_) => {}
            Decoded::Payload { .. } | Decoded::Padding { .. } => return Some(at),
        }
        at += FRAME_ALIGN;
    }
    None
}
