//! LZ4 as producers write it: frames (RocketMQ's own client), or one block behind its length (the Rust client).
//!
//! ```text
//! frame (little-endian): | 4 magic | 1 flags | 1 block size | 8 content size, if flagged | 4 dictionary id, if flagged | 1 header checksum |
//!                        blocks: | 4 length, top bit: as it is | bytes | 4 checksum, if flagged |
//!                        | 4 zero | 4 content checksum, if flagged |
//! ```
//! From `lz4_Frame_format.md` and `lz4_Block_format.md` of LZ4 1.9. The checksums are not looked at: TCP and the broker's own CRC
//! have been. In safe code of ours because the crate under the RocketMQ client is built with its fast and unsafe decoder, and other
//! features of it would have the whole client built a second time.

use super::decompress::Problem;

const MAGIC: u32 = 0x184D_2204;
/// Frames between others that carry nothing for us.
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;
const AS_IT_IS: u32 = 1 << 31;
/// The shortest match; the length in a token counts from it.
const MATCH_MIN: usize = 4;

/// All frames of `from`, one behind the other, as one; at most `max` bytes.
pub(super) fn decompress(from: &[u8], max: usize) -> Result<Vec<u8>, Problem> {
    let mut input = Input(from);
    let mut out = Vec::new();
    match from.first_chunk().map(|word| u32::from_le_bytes(*word)) {
        Some(MAGIC) => {}
        Some(word) if SKIPPABLE.contains(&word) => {}
        Some(_) => {
            // One block, and what it becomes has this many bytes.
            let length = input.word()? as usize;
            if length > max {
                return Err(Problem::TooLarge);
            }
            block(input.0, &mut out, max, 0)?;
            return if out.len() == length {
                Ok(out)
            } else {
                Err(Problem::Damaged)
            };
        }
        None => return Err(Problem::Damaged),
    }
    while !input.0.is_empty() {
        match input.word()? {
            MAGIC => frame(&mut input, &mut out, max)?,
            word if SKIPPABLE.contains(&word) => {
                let length = input.word()? as usize;
                input.take(length)?;
            }
            _ => return Err(Problem::Damaged),
        }
    }
    Ok(out)
}

/// One frame, behind its magic.
fn frame(input: &mut Input<'_>, out: &mut Vec<u8>, max: usize) -> Result<(), Problem> {
    let [flags, _block_size] = *input.take_array()?;
    let has = |bit: u8| flags & (1 << bit) != 0;
    let (is_version_1, is_independent) = (flags >> 6 == 1, has(5));
    let (has_block_checksum, has_size, has_checksum, has_dictionary) =
        (has(4), has(3), has(2), has(0));
    if !is_version_1 || has_dictionary {
        return Err(Problem::Damaged);
    }
    if has_size && u64::from_le_bytes(*input.take_array()?) > max as u64 {
        return Err(Problem::TooLarge);
    }
    input.take(1)?;
    let begin = out.len();
    loop {
        let word = input.word()?;
        if word == 0 {
            break;
        }
        let bytes = input.take((word & !AS_IT_IS) as usize)?;
        if word & AS_IT_IS != 0 {
            literals(bytes, out, max)?;
        } else {
            // A match may reach into the blocks before, unless they are independent.
            let reach = if is_independent { out.len() } else { begin };
            block(bytes, out, max, reach)?;
        }
        if has_block_checksum {
            input.take(4)?;
        }
    }
    if has_checksum {
        input.take(4)?;
    }
    Ok(())
}

/// One block. Matches reach back to `reach` in `out`.
fn block(from: &[u8], out: &mut Vec<u8>, max: usize, reach: usize) -> Result<(), Problem> {
    let mut input = Input(from);
    loop {
        let [token] = *input.take_array()?;
        let count = input.length(token >> 4)?;
        literals(input.take(count)?, out, max)?;
        if input.0.is_empty() {
            // Only the last sequence has no match.
            return Ok(());
        }
        let distance = usize::from(u16::from_le_bytes(*input.take_array()?));
        let count = input.length(token & 0xf)?.saturating_add(MATCH_MIN);
        if distance == 0 || distance > out.len() - reach {
            return Err(Problem::Damaged);
        }
        if count > max.saturating_sub(out.len()) {
            return Err(Problem::TooLarge);
        }
        // A match may reach into itself: then what is there is said over and over.
        let start = out.len() - distance;
        let mut left = count;
        while left > 0 {
            let step = left.min(out.len() - start);
            out.extend_from_within(start..start + step);
            left -= step;
        }
    }
}

fn literals(bytes: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), Problem> {
    if bytes.len() > max.saturating_sub(out.len()) {
        return Err(Problem::TooLarge);
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// What is not yet read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Problem::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], Problem> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Problem::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, Problem> {
        self.take_array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// A length of a token: 15 goes on in the bytes that follow, until one is not 255.
    fn length(&mut self, nibble: u8) -> Result<usize, Problem> {
        let mut length = usize::from(nibble);
        if nibble == 15 {
            loop {
                let [byte] = *self.take_array()?;
                length = length.saturating_add(usize::from(byte));
                if byte != 255 {
                    break;
                }
            }
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use rocketmq_model::common::compression::compression_type::CompressionType;

    use super::*;

    /// The example of an overlapping match: "ab" and then ten times more of it.
    const BLOCK: &[u8] = &[0x24, b'a', b'b', 2, 0, 0x10, b'!'];

    fn frame_of(flags: u8, blocks: &[&[u8]]) -> Vec<u8> {
        let mut out = MAGIC.to_le_bytes().to_vec();
        out.extend([flags, 0x40, 0]);
        for block in blocks {
            out.extend(u32::try_from(block.len()).expect("short").to_le_bytes());
            out.extend(*block);
        }
        out.extend([0; 4]);
        out
    }

    #[test]
    fn frames_and_blocks_are_read() {
        let whole = b"ababababab!";
        assert_eq!(
            decompress(&frame_of(0x60, &[BLOCK]), 100).as_deref(),
            Ok(&whole[..])
        );
        let twice = [frame_of(0x60, &[BLOCK]), frame_of(0x60, &[BLOCK])].concat();
        assert_eq!(decompress(&twice, 100).map(|out| out.len()), Ok(22));
        let text = "the same and the same and the same again ".repeat(500);
        let block = CompressionType::LZ4
            .try_compression(text.as_bytes())
            .expect("compresses");
        assert_eq!(decompress(&block, 1 << 20).as_deref(), Ok(text.as_bytes()));
    }

    #[test]
    fn what_rocketmqs_own_client_makes_is_read() {
        // By `CompressorFactory.getCompressor(CompressionType.LZ4)` of RocketMQ 5.5.0.
        let made = include_bytes!("../../testdata/java-client.lz4");
        let meant: String = (0..60).map(|i| format!("temperature {i}; ")).collect();
        assert_eq!(decompress(made, 1 << 20).as_deref(), Ok(meant.as_bytes()));
    }

    #[test]
    fn only_blocks_that_depend_on_each_other_reach_back() {
        // Two bytes from 11 before, then the end.
        let second = &[0x00, 11, 0, 0x10, b'?'];
        let linked = frame_of(0x40, &[BLOCK, second]);
        assert_eq!(
            decompress(&linked, 100).as_deref(),
            Ok(&b"ababababab!abab?"[..])
        );
        let independent = frame_of(0x60, &[BLOCK, second]);
        assert_eq!(decompress(&independent, 100), Err(Problem::Damaged));
    }

    #[test]
    fn no_more_is_made_than_allowed() {
        let frame = frame_of(0x60, &[BLOCK]);
        assert_eq!(decompress(&frame, 11).map(|out| out.len()), Ok(11));
        assert_eq!(decompress(&frame, 10), Err(Problem::TooLarge));
        // A match of a million bytes in a few.
        let mut bomb = vec![0x1f, b'x', 1, 0];
        bomb.extend([255; 4000]);
        bomb.extend([0, 0x10, b'!']);
        assert_eq!(
            decompress(&frame_of(0x60, &[&bomb]), 1000),
            Err(Problem::TooLarge)
        );
        assert_eq!(decompress(&[0xff; 40], 1000), Err(Problem::TooLarge));
    }

    #[test]
    fn any_bytes_are_an_error_and_no_panic() {
        let frame = frame_of(0x60, &[BLOCK]);
        for cut in 0..frame.len() {
            assert!(decompress(&frame[..cut], 100).is_err(), "{cut}");
            for value in [0, 0x0f, 0xf0, 0xff] {
                let mut flipped = frame.clone();
                flipped[cut] = value;
                let _ = decompress(&flipped, 100);
            }
        }
    }
}
