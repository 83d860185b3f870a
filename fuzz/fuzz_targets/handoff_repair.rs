//! Any one damaged byte of a frame is mended to what it was, and any bytes are mended to a frame inside them or not at all.
#![no_main]

use handoff::fuzzing::{Decoded, Mended, Stretch, decode, encode, mend};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u32, Vec<u8>, Vec<u8>, u16, u8)| {
    let (position, salt, payload, behind, at, change) = input;
    let position = (position >> 8) / 16 * 16;
    let mut stretch = Stretch {
        bytes: &payload,
        room: payload.len(),
        left: payload.len(),
        position,
        salt,
    };
    if let Some(mended) = mend(&stretch) {
        assert!(mended.total <= payload.len() && mended.len + 16 <= mended.total);
    }
    if change == 0 {
        return;
    }
    // A frame with something that may follow it: another frame.
    let total = (16 + payload.len()).next_multiple_of(16);
    let next = (16 + behind.len()).next_multiple_of(16);
    let mut log = vec![0; total + next];
    log[16..16 + payload.len()].copy_from_slice(&payload);
    log[total + 16..total + 16 + behind.len()].copy_from_slice(&behind);
    let (here, there) = log.split_at_mut(total);
    let word = encode(here, payload.len(), false, position, salt);
    here[..4].copy_from_slice(&word.to_le_bytes());
    let word = encode(there, behind.len(), false, position + total as u64, salt);
    there[..4].copy_from_slice(&word.to_le_bytes());
    let at = usize::from(at) % total;
    let byte = log[at];
    log[at] ^= change;
    assert!(matches!(decode(&log, position, salt), Decoded::Bad(_)));
    stretch.bytes = &log;
    stretch.room = log.len();
    stretch.left = log.len();
    assert_eq!(
        mend(&stretch),
        Some(Mended {
            len: payload.len(),
            total,
            padding: false,
            at,
            byte,
        })
    );
});
