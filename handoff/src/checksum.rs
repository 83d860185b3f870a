//! CRC32C, quick for the few bytes of a frame.
//!
//! The crate is made for long data: on a processor with the instruction it still takes some hundred instructions to find out how to begin. Here short data
//! takes the instruction once for eight bytes, and everything else is left to the crate. The values are the same: tried below.
#![allow(unsafe_code)]

/// Longer data gains more from the crate's three chains at once than it loses at the beginning.
#[cfg(target_arch = "x86_64")]
const SHORT_MAX: usize = 1024;

/// The CRC32C of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_append(0, bytes)
}

/// The CRC32C of what `crc` is the CRC32C of, and `bytes` after it.
#[inline]
pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT_MAX && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has SSE 4.2.
        return unsafe { short(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short(crc: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};

    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = u64::from(!crc);
    for word in words {
        state = _mm_crc32_u64(state, u64::from_le_bytes(*word));
    }
    let mut state = state as u32;
    for byte in rest {
        state = _mm_crc32_u8(state, *byte);
    }
    !state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_those_of_the_crate_at_each_length() {
        let bytes: Vec<u8> = (0..1100u32).map(|i| (i * 31 + i / 7) as u8).collect();
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        for len in 0..bytes.len() {
            // At each alignment.
            let bytes = &bytes[(len % 8).min(len)..len];
            for begin in [0, 1, 0x8A91_36AA, u32::MAX] {
                assert_eq!(
                    crc32c_append(begin, bytes),
                    crc32c::crc32c_append(begin, bytes),
                    "{len} bytes after {begin:x}"
                );
            }
        }
    }
}
