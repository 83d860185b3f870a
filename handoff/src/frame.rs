//! One frame: header, payload, and the checks that it is whole.
//!
//! ```text
//!  0         4         8         12        16                 16 + len      multiple of 16
//!  +---------+---------+---------+---------+------------------+-------------+
//!  | length  | CRC32C  | place   | sum     | payload          | zeros       |
//!  | u32     | u32     | u32     | u32     |                  |             |
//!  +---------+---------+---------+---------+------------------+-------------+
//!  length: 0 = nothing here yet; else 16 + payload bytes; bit 31 set: padding up to the segment's end
//!  CRC32C: begun with the log's salt, over the length word, the position (u64), and every byte from 8 to the end of the zeros
//!  place:  the lower 32 bits of position / 16
//!  sum:    of the 32-bit words from 16 to the end of the zeros, modulo 2^32
//! ```
//! The length word is stored last (release). A frame that lies elsewhere, belongs to an earlier life of a recycled segment, or was made up by a device in a
//! payload does not verify: its position and the salt are in the CRC. The sum is looked at only when the CRC is wrong: see `repair`.

// Public for the fuzz targets, which see this module through `fuzzing`.
#![cfg_attr(not(fuzzing), allow(unreachable_pub))]

use crate::Position;
use crate::checksum;
use crate::layout::{FRAME_ALIGN, FRAME_HEADER_BYTES, u32_at};

/// Set in the length word of a frame that only fills a segment up.
pub(crate) const PADDING: u32 = 1 << 31;

pub(crate) const LENGTH_AT: usize = 0;
pub(crate) const CRC_AT: usize = 4;
pub(crate) const PLACE_AT: usize = 8;
pub(crate) const SUM_AT: usize = 12;
const _: () =
    assert!(SUM_AT + 4 == FRAME_HEADER_BYTES && FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));

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

/// The place word of a frame at `position`.
pub(crate) fn place(position: Position) -> u32 {
    (position / FRAME_ALIGN as u64) as u32
}

/// The checksum's state before the bytes from 8 on.
pub(crate) fn checksum_begin(salt: u32, word: u32, position: Position) -> u32 {
    let mut begin = [0; 12];
    begin[..4].copy_from_slice(&word.to_le_bytes());
    begin[4..].copy_from_slice(&position.to_le_bytes());
    checksum::crc32c_append(salt, &begin)
}

pub(crate) fn checksum(salt: u32, word: u32, position: Position, rest: &[u8]) -> u32 {
    checksum::crc32c_append(checksum_begin(salt, word, position), rest)
}

/// The sum of the 32-bit words of a payload with its zeros.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    // In blocks of the alignment: the compiler makes wide additions of them.
    let (blocks, _) = bytes.as_chunks::<FRAME_ALIGN>();
    let mut lanes = [0u32; 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane = lane.wrapping_add(u32::from_le_bytes(*word));
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

/// Completes the header of a frame whose payload stands in `frame` already, but for the length word, which is returned: storing it commits the frame.
#[must_use]
pub fn encode(frame: &mut [u8], len: usize, padding: bool, position: Position, salt: u32) -> u32 {
    let word = (FRAME_HEADER_BYTES + len) as u32 | if padding { PADDING } else { 0 };
    let sum = sum(&frame[FRAME_HEADER_BYTES..]);
    frame[PLACE_AT..SUM_AT].copy_from_slice(&place(position).to_le_bytes());
    frame[SUM_AT..FRAME_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    let crc = checksum(salt, word, position, &frame[PLACE_AT..]);
    frame[CRC_AT..PLACE_AT].copy_from_slice(&crc.to_le_bytes());
    word
}

/// Bytes of the whole frame that a length word speaks of, when it can be one.
pub(crate) fn total_of(word: u32) -> Option<usize> {
    let length = (word & !PADDING) as usize;
    (length >= FRAME_HEADER_BYTES).then(|| length.next_multiple_of(FRAME_ALIGN))
}

/// Checks the frame at the start of `bytes`, which end where the committed bytes (or the segment) end.
pub fn decode(bytes: &[u8], position: Position, salt: u32) -> Decoded {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Decoded::Bad("there is no room for a frame");
    }
    // Copied once and checked once: whatever another process does to the mapping meanwhile, the bounds below hold.
    let word = u32_at(bytes, LENGTH_AT);
    if word == 0 {
        return Decoded::Bad("nothing was written here");
    }
    let Some(total) = total_of(word) else {
        return Decoded::Bad("the length is too small");
    };
    if total > bytes.len() {
        return Decoded::Bad("the length leads beyond the end");
    }
    if u32_at(bytes, PLACE_AT) != place(position) {
        return Decoded::Bad("the position is another one");
    }
    if checksum(salt, word, position, &bytes[PLACE_AT..total]) != u32_at(bytes, CRC_AT) {
        return Decoded::Bad("the checksum is wrong");
    }
    if word & PADDING != 0 {
        Decoded::Padding { total }
    } else {
        Decoded::Payload {
            len: (word as usize) - FRAME_HEADER_BYTES,
            total,
        }
    }
}

/// What a search for a good frame came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Search {
    /// Here is one, or one begins that is longer than the bytes that were looked at.
    At(usize),
    /// There is none.
    Nothing,
    /// So far there is none; the search has cost as much as it may.
    Stopped(usize),
}

/// Looks for the first good frame at or behind `from` in `bytes`, the first of which lies at `position`. `room` bytes are committed from there on: `bytes` or more.
/// At most about `budget` bytes are checksummed, so that payloads made to look like frames can't hold the reader up for long.
pub fn next_good(
    bytes: &[u8],
    from: usize,
    room: usize,
    position: Position,
    salt: u32,
    mut budget: usize,
) -> Search {
    let mut at = from;
    while at + FRAME_HEADER_BYTES <= bytes.len() {
        let here = &bytes[at..];
        // The cheapest check first: nearly all that is no frame ends here.
        if u32_at(here, PLACE_AT) == place(position + at as u64) {
            let total = total_of(u32_at(here, LENGTH_AT)).unwrap_or(0);
            if total > here.len() && total <= room - at {
                return Search::At(at);
            }
            match decode(here, position + at as u64, salt) {
                Decoded::Bad(_) if total > budget => return Search::Stopped(at),
                Decoded::Bad(_) => budget -= total,
                Decoded::Payload { .. } | Decoded::Padding { .. } => return Search::At(at),
            }
        }
        at += FRAME_ALIGN;
    }
    Search::Nothing
}
