//! Where each byte of the files lies. `docs/handoff-format.md` draws it.

use crate::Position;
use crate::checksum;
use crate::crc;

/// The format's version: the one that this program writes and reads.
pub(crate) const VERSION: u32 = 2;
/// The page size that sizes are multiples of.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// A segment's header: its description, padded to a cache line.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
/// The cursor page's file.
pub(crate) const CURSOR_BYTES: u64 = PAGE_BYTES;
/// A frame's header.
pub(crate) const FRAME_HEADER_BYTES: usize = 16;
/// Frames start at multiples of this: what is left of a segment then always holds the header of a padding frame.
pub(crate) const FRAME_ALIGN: usize = 16;
/// Positions beyond this are garbage: no log lives that long.
pub(crate) const POSITION_MAX: Position = 1 << 60;

pub(crate) const CURSOR_MAGIC: [u8; 8] = *b"MRMQCURS";
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"MRMQSEGM";

/// Bytes of an encoded [`Description`].
pub(crate) const DESCRIPTION_BYTES: usize = 64;

/// ```text
///  0        8        12       16       24       32       40            60       64
///  +--------+--------+--------+--------+--------+--------+-------------+--------+
///  | magic  | version| salt   | epoch  | segment| segment| zeros       | CRC32C |
///  | 8 bytes| u32    | u32    | u64    | bytes  | number |             | of 0-59|
///  +--------+--------+--------+--------+--------+--------+-------------+--------+
/// ```
/// What a log is; at the start of the cursor page (segment number 0) and of each segment. Magic, version and CRC keep their place in every future version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Description {
    /// Unix milliseconds of the log's creation.
    pub(crate) epoch: u64,
    /// Begins the CRC of each frame: random, so that no payload can be made to look like a frame.
    pub(crate) salt: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) number: u64,
}

/// Why 64 bytes are no description.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoDescription {
    Version(u32),
    Damaged(&'static str),
}

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 8;
const SALT_AT: usize = 12;
const EPOCH_AT: usize = 16;
const SEGMENT_BYTES_AT: usize = 24;
const NUMBER_AT: usize = 32;
const ZEROS_AT: usize = 40;
const CRC_AT: usize = 60;
const _: () =
    assert!(CRC_AT + 4 == DESCRIPTION_BYTES && DESCRIPTION_BYTES as u64 == SEGMENT_HEADER_BYTES);
const _: () = assert!(
    SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGN as u64)
        && PAGE_BYTES.is_multiple_of(FRAME_ALIGN as u64)
);

impl Description {
    pub(crate) fn encode(&self, magic: [u8; 8]) -> [u8; DESCRIPTION_BYTES] {
        let mut out = [0; DESCRIPTION_BYTES];
        out[MAGIC_AT..VERSION_AT].copy_from_slice(&magic);
        out[VERSION_AT..SALT_AT].copy_from_slice(&VERSION.to_le_bytes());
        out[SALT_AT..EPOCH_AT].copy_from_slice(&self.salt.to_le_bytes());
        out[EPOCH_AT..SEGMENT_BYTES_AT].copy_from_slice(&self.epoch.to_le_bytes());
        out[SEGMENT_BYTES_AT..NUMBER_AT].copy_from_slice(&self.segment_bytes.to_le_bytes());
        out[NUMBER_AT..NUMBER_AT + 8].copy_from_slice(&self.number.to_le_bytes());
        let crc = checksum::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The description in `bytes`, of which one byte may be damaged.
    pub(crate) fn decode(
        bytes: &[u8; DESCRIPTION_BYTES],
        magic: [u8; 8],
    ) -> Result<Description, NoDescription> {
        let syndrome = checksum::crc32c(&bytes[..CRC_AT]) ^ u32_at(bytes, CRC_AT);
        if syndrome == 0 {
            return Description::parse(bytes, magic);
        }
        let mut mended = Vec::new();
        if is_one_byte(syndrome) {
            mended.push(*bytes);
        }
        for damage in crc::places(syndrome, CRC_AT).unwrap_or_default() {
            let mut bytes = *bytes;
            bytes[CRC_AT - 1 - damage.from_end] ^= damage.change;
            mended.push(bytes);
        }
        let is_whole = |bytes: &[u8; DESCRIPTION_BYTES]| {
            bytes[MAGIC_AT..VERSION_AT] == magic && bytes[ZEROS_AT..CRC_AT].iter().all(|b| *b == 0)
        };
        mended.retain(is_whole);
        if let [mended] = &mended[..] {
            return Description::parse(mended, magic);
        }
        // A version to come may be checked in another way.
        let version = u32_at(bytes, VERSION_AT);
        if bytes[MAGIC_AT..VERSION_AT] == magic && version != VERSION {
            return Err(NoDescription::Version(version));
        }
        Err(NoDescription::Damaged(
            "more than a byte of its header is damaged",
        ))
    }

    fn parse(
        bytes: &[u8; DESCRIPTION_BYTES],
        magic: [u8; 8],
    ) -> Result<Description, NoDescription> {
        if bytes[MAGIC_AT..VERSION_AT] != magic {
            return Err(NoDescription::Damaged(
                "it does not begin with the magic bytes",
            ));
        }
        let version = u32_at(bytes, VERSION_AT);
        if version != VERSION {
            return Err(NoDescription::Version(version));
        }
        let segment_bytes = u64_at(bytes, SEGMENT_BYTES_AT);
        if !crate::options::segment_bytes_allowed(segment_bytes) {
            return Err(NoDescription::Damaged("its segment size is out of range"));
        }
        Ok(Description {
            epoch: u64_at(bytes, EPOCH_AT),
            salt: u32_at(bytes, SALT_AT),
            segment_bytes,
            number: u64_at(bytes, NUMBER_AT),
        })
    }

    /// The description of segment `number` of the same log.
    pub(crate) fn of_segment(&self, number: u64) -> Description {
        Description { number, ..*self }
    }

    /// Bytes of frames in a segment; positions count these alone.
    pub(crate) fn capacity(&self) -> u64 {
        self.segment_bytes - SEGMENT_HEADER_BYTES
    }

    /// The segment that holds `position`.
    pub(crate) fn segment_of(&self, position: Position) -> u64 {
        position / self.capacity()
    }

    /// The position at which segment `number` begins.
    pub(crate) fn start_of(&self, number: u64) -> Position {
        number.saturating_mul(self.capacity())
    }

    /// Where in its file `position` lies.
    pub(crate) fn offset_of(&self, position: Position) -> usize {
        (SEGMENT_HEADER_BYTES + position % self.capacity()) as usize
    }

    /// The largest payload of a frame.
    pub(crate) fn frame_len_max(&self) -> usize {
        self.capacity() as usize - FRAME_HEADER_BYTES
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

/// Whether a difference is confined to one byte.
pub(crate) fn is_one_byte(difference: u32) -> bool {
    difference != 0 && (0..4).any(|byte| difference & !(0xFF << (8 * byte)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_with_any_one_byte_damaged() {
        let description = Description {
            epoch: 1_700_000_000_000,
            salt: 0xDEAD_BEEF,
            segment_bytes: 16 << 20,
            number: 77,
        };
        let good = description.encode(SEGMENT_MAGIC);
        for at in 0..DESCRIPTION_BYTES {
            for change in 1..=255u8 {
                let mut bytes = good;
                bytes[at] ^= change;
                assert_eq!(
                    Description::decode(&bytes, SEGMENT_MAGIC),
                    Ok(description),
                    "byte {at} changed by {change}"
                );
            }
        }
        let mut bytes = good;
        bytes[20] ^= 1;
        bytes[30] ^= 1;
        assert!(matches!(
            Description::decode(&bytes, SEGMENT_MAGIC),
            Err(NoDescription::Damaged(_))
        ));
        assert!(matches!(
            Description::decode(&[0; DESCRIPTION_BYTES], SEGMENT_MAGIC),
            Err(NoDescription::Damaged(_))
        ));
    }
}
