//! Mends a frame of which one byte is damaged.
//!
//! What is tried, each bounded in work by the bytes that are given: the place word (known beforehand), the checksum itself, any byte behind the header by the
//! checksum's syndrome (see `crc`), and each other value of one byte of the length word. A frame is mended only if exactly one of all these changes makes the CRC
//! *and* the sum right: 64 bits of evidence, so that larger damage is not taken for a small one. `docs/handoff-format.md` has the odds.
//!
//! It is **not** a promise for more than one byte: a frame with two damaged bytes is reported as corrupt.

// Public for the fuzz targets, which see this module through `fuzzing`.
#![cfg_attr(not(fuzzing), allow(unreachable_pub))]

use crate::Position;
use crate::checksum;
use crate::crc::{self, Later};
use crate::frame::{
    CRC_AT, LENGTH_AT, PADDING, PLACE_AT, SUM_AT, checksum, checksum_begin, place, sum, total_of,
};
use crate::layout::{FRAME_HEADER_BYTES, is_one_byte, u32_at};

/// How to read a damaged frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mended {
    /// Bytes of the payload (of a padding: of its zeros).
    pub len: usize,
    /// Bytes up to the next frame.
    pub total: usize,
    /// It only fills the segment up.
    pub padding: bool,
    /// Which byte of the frame is damaged …
    pub at: usize,
    /// … and what it should be.
    pub byte: u8,
}

impl Mended {
    /// The payload, out of the frame's `bytes`, as it should be.
    pub(crate) fn payload(&self, bytes: &[u8]) -> Vec<u8> {
        let mut payload = bytes
            .get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.len)
            .unwrap_or_default()
            .to_vec();
        let at = self.at.checked_sub(FRAME_HEADER_BYTES);
        if let Some(byte) = at.and_then(|at| payload.get_mut(at)) {
            *byte = self.byte;
        }
        payload
    }
}

/// What lies where the frame should be.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    /// The committed bytes from the frame's start on, or as many of them as may be looked at.
    pub bytes: &'a [u8],
    /// How many are committed, up to the segment's end at most.
    pub room: usize,
    /// How many there are up to the segment's end.
    pub left: usize,
    /// Where the frame should start.
    pub position: Position,
    /// The log's salt.
    pub salt: u32,
}

/// How the frame at the start of the stretch, which does not verify, reads with one byte of it changed. `None` when no change, or more than one, makes it right.
pub fn mend(stretch: &Stretch<'_>) -> Option<Mended> {
    let bytes = stretch.bytes;
    if bytes.len() < FRAME_HEADER_BYTES {
        return None;
    }
    let word = u32_at(bytes, LENGTH_AT);
    if u32_at(bytes, PLACE_AT) != place(stretch.position) {
        return mend_place(stretch, word);
    }
    let mut found = mend_length(stretch, word);
    if let Some(total) = total_of(word).filter(|total| *total <= bytes.len()) {
        found.extend(mend_body(stretch, word, total));
    }
    match found[..] {
        [mended] => Some(mended),
        [] => mend_padding(stretch, word),
        _ => None,
    }
}

fn mended(word: u32, at: usize, byte: u8) -> Option<Mended> {
    Some(Mended {
        len: (word & !PADDING) as usize - FRAME_HEADER_BYTES,
        total: total_of(word)?,
        padding: word & PADDING != 0,
        at,
        byte,
    })
}

/// The place is known: what stands there does not matter, if the rest is right.
fn mend_place(stretch: &Stretch<'_>, word: u32) -> Option<Mended> {
    let total = total_of(word)?;
    let frame = stretch.bytes.get(..total)?;
    let place = place(stretch.position).to_le_bytes();
    let begin = checksum_begin(stretch.salt, word, stretch.position);
    let crc = checksum::crc32c_append(
        checksum::crc32c_append(begin, &place),
        &frame[PLACE_AT + 4..],
    );
    if crc != u32_at(frame, CRC_AT) || !is_whole(frame, word, stretch) {
        return None;
    }
    let at = (0..4).find(|&i| frame[PLACE_AT + i] != place[i])?;
    mended(word, PLACE_AT + at, place[at])
}

/// The length and the place are taken as right: the checksum, or one byte from the sum on.
fn mend_body(stretch: &Stretch<'_>, word: u32, total: usize) -> Vec<Mended> {
    let frame = &stretch.bytes[..total];
    let stored = u32_at(frame, CRC_AT);
    let computed = checksum(stretch.salt, word, stretch.position, &frame[PLACE_AT..]);
    let syndrome = computed ^ stored;
    let mut found = Vec::new();
    if syndrome == 0 {
        return found;
    }
    if is_one_byte(syndrome) && is_whole(frame, word, stretch) {
        let at = syndrome.trailing_zeros() as usize / 8;
        found.extend(mended(word, CRC_AT + at, computed.to_le_bytes()[at]));
    }
    let is = sum(&frame[FRAME_HEADER_BYTES..]);
    let said = u32_at(frame, SUM_AT);
    for damage in crc::places(syndrome, total - PLACE_AT).unwrap_or_default() {
        let at = total - 1 - damage.from_end;
        let byte = frame[at] ^ damage.change;
        if at < SUM_AT {
            continue;
        }
        // The word that the byte is in, before and after.
        let word_at = at & !3;
        let before = u32_at(frame, word_at);
        let after = before ^ u32::from(damage.change) << (8 * (at - word_at));
        let fits = if at < FRAME_HEADER_BYTES {
            after == is
        } else {
            is.wrapping_sub(before).wrapping_add(after) == said
        };
        if fits && are_zeros_behind(frame, word, Some((at, byte))) && closes(word, total, stretch) {
            found.extend(mended(word, at, byte));
        }
    }
    found
}

/// Each other value of one byte of the length word. The checksums of all the lengths come from one pass over the bytes.
fn mend_length(stretch: &Stretch<'_>, word: u32) -> Vec<Mended> {
    let bytes = stretch.bytes;
    let mut tries: Vec<(usize, u32)> = (0..4)
        .flat_map(|byte| (1..=255u32).map(move |change| word ^ change << (8 * byte)))
        .filter_map(|word| Some((total_of(word)?, word)))
        .filter(|&(total, word)| {
            total <= bytes.len() && closes(word, total, stretch) && is_followed(stretch, total)
        })
        .collect();
    tries.sort_unstable();
    let begin = checksum_begin(stretch.salt, word, stretch.position);
    let stored = u32_at(bytes, CRC_AT);
    let (mut crc, mut done, mut later) = (begin, PLACE_AT, Later::new());
    let mut found = Vec::new();
    for (total, word) in tries {
        if total > done {
            crc = checksum::crc32c_append(crc, &bytes[done..total]);
            later.advance(total - done);
            done = total;
        }
        let difference = checksum_begin(stretch.salt, word, stretch.position) ^ begin;
        if crc ^ later.of(difference) == stored && is_whole(&bytes[..total], word, stretch) {
            let is = word.to_le_bytes();
            let at = (0..4).find(|&i| is[i] != bytes[LENGTH_AT + i]);
            found.extend(at.and_then(|at| mended(word, LENGTH_AT + at, is[at])));
        }
    }
    found
}

/// A padding holds nothing: it is enough that its header's length and place say that it fills the segment up, and that there is no message in what may be looked at.
fn mend_padding(stretch: &Stretch<'_>, word: u32) -> Option<Mended> {
    let total = stretch.left;
    let fills = word == PADDING | u32::try_from(total).ok()? && total <= stretch.room;
    let body =
        &stretch.bytes[FRAME_HEADER_BYTES..total.clamp(FRAME_HEADER_BYTES, stretch.bytes.len())];
    if !fills || body.iter().filter(|byte| **byte != 0).count() > 1 {
        return None;
    }
    let at = body.iter().position(|byte| *byte != 0);
    mended(word, at.map_or(CRC_AT, |at| FRAME_HEADER_BYTES + at), 0)
}

/// Whether all but the CRC of a frame is as it should be.
fn is_whole(frame: &[u8], word: u32, stretch: &Stretch<'_>) -> bool {
    u32_at(frame, SUM_AT) == sum(&frame[FRAME_HEADER_BYTES..])
        && are_zeros_behind(frame, word, None)
        && closes(word, frame.len(), stretch)
}

/// Whether only zeros lie between the payload and the next frame, with one byte changed.
fn are_zeros_behind(frame: &[u8], word: u32, change: Option<(usize, u8)>) -> bool {
    let payload_end = (word & !PADDING) as usize;
    (payload_end..frame.len()).all(|at| match change {
        Some((changed, byte)) if changed == at => byte == 0,
        _ => frame[at] == 0,
    })
}

/// A frame ends inside what is committed, and a padding where the segment does.
fn closes(word: u32, total: usize, stretch: &Stretch<'_>) -> bool {
    total <= stretch.room && (word & PADDING == 0 || total == stretch.left)
}

/// Whether `total` bytes further on the next frame can stand: its place (one byte of which may be damaged too), nothing yet, or the end.
fn is_followed(stretch: &Stretch<'_>, total: usize) -> bool {
    if total == stretch.room {
        return true;
    }
    let Some(next) = stretch.bytes.get(total..total + FRAME_HEADER_BYTES) else {
        // Not to be looked at.
        return true;
    };
    let difference = u32_at(next, PLACE_AT) ^ place(stretch.position + total as u64);
    difference == 0 || is_one_byte(difference) || next.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
