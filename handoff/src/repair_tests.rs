//! Every byte of frames of all kinds, damaged one at a time.

use proptest::prelude::*;

use super::*;
use crate::frame::{Decoded, decode, encode, total_bytes};

const SALT: u32 = 0x1234_5678;
const POSITION: Position = 5 * 4032 + 160;

/// A frame, a second one and what is left of the segment, with bytes of the first one.
fn two_frames(payload: &[u8], padding: bool) -> (Vec<u8>, usize) {
    let total = total_bytes(payload.len());
    let mut bytes = vec![0; total];
    bytes[16..16 + payload.len()].copy_from_slice(payload);
    let word = encode(&mut bytes, payload.len(), padding, POSITION, SALT);
    bytes[..4].copy_from_slice(&word.to_le_bytes());
    if !padding {
        let mut next = vec![7; 48];
        let word = encode(&mut next, 32, false, POSITION + total as u64, SALT);
        next[..4].copy_from_slice(&word.to_le_bytes());
        bytes.extend(next);
        bytes.extend([0; 64]);
    }
    (bytes, total)
}

fn stretch(bytes: &[u8]) -> Stretch<'_> {
    Stretch {
        bytes,
        room: bytes.len(),
        left: bytes.len(),
        position: POSITION,
        salt: SALT,
    }
}

fn assert_mends(bytes: &[u8], total: usize, len: usize, padding: bool, at: usize, change: u8) {
    let mut bad = bytes.to_vec();
    bad[at] ^= change;
    let decoded = decode(&bad, POSITION, SALT);
    assert!(matches!(decoded, Decoded::Bad(_)), "byte {at}");
    let Some(mended) = mend(&stretch(&bad)) else {
        panic!("byte {at} of {total} changed by {change} is not mended");
    };
    assert_eq!(
        (mended.len, mended.total, mended.padding),
        (len, total, padding)
    );
    if padding {
        return;
    }
    assert_eq!((mended.at, mended.byte), (at, bytes[at]));
}

#[test]
fn each_value_of_each_byte_of_a_frame_is_mended() {
    for (len, step) in [(0, 1), (1, 1), (40, 1), (300, 37)] {
        let payload: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
        let (bytes, total) = two_frames(&payload, false);
        for at in 0..total {
            for change in (1..=255).step_by(step) {
                assert_mends(&bytes, total, len, false, at, change);
            }
        }
    }
}

#[test]
fn payloads_of_equal_bytes_and_paddings_are_mended() {
    for fill in [0, 0xFF, b'x'] {
        let payload = vec![fill; 1000];
        let (bytes, total) = two_frames(&payload, false);
        for at in 0..total {
            assert_mends(&bytes, total, 1000, false, at, 0x10);
            assert_mends(&bytes, total, 1000, false, at, 0xFF);
        }
    }
    for len in [0, 16, 2000] {
        let (bytes, total) = two_frames(&vec![0; len], true);
        for at in 0..total {
            assert_mends(&bytes, total, len, true, at, 0x20);
            assert_mends(&bytes, total, len, true, at, 0x81);
        }
    }
}

#[test]
fn a_large_frame_is_mended() {
    let payload: Vec<u8> = (0..3u32 << 19).map(|i| (i ^ i >> 9) as u8).collect();
    let (bytes, total) = two_frames(&payload, false);
    for at in [0, 1, 2, 3, 5, 9, 13, 16, 70_000, total - 1] {
        assert_mends(&bytes, total, payload.len(), false, at, 0x44);
    }
}

proptest! {
    #[test]
    fn larger_damage_is_not_taken_for_one_byte(
        payload in proptest::collection::vec(any::<u8>(), 0..400),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255u8), 2..40),
    ) {
        let (bytes, total) = two_frames(&payload, false);
        let mut bad = bytes.clone();
        for (at, change) in &damage {
            bad[at.index(total)] ^= change;
        }
        let differ = (0..total).filter(|&at| bad[at] != bytes[at]).count();
        // Damage of the place word alone is none to speak of: what should be there is known.
        let beside_place = (0..total).filter(|&at| bad[at] != bytes[at] && !(8..12).contains(&at)).count();
        let mended = mend(&stretch(&bad));
        if differ >= 2 && beside_place > 0 {
            prop_assert_eq!(mended, None);
        }
    }

    #[test]
    fn any_bytes_are_mended_to_something_inside_them_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(mended) = mend(&stretch(&bytes)) {
            prop_assert!(mended.total <= bytes.len() && mended.at < mended.total);
        }
    }
}
