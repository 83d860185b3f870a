//! Any bytes decode to a frame inside them or to a named fault, and what `encode` makes decodes again.
#![no_main]

use handoff::fuzzing::{Decoded, Search, decode, encode, next_good};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u32, Vec<u8>)| {
    let (position, salt, bytes) = input;
    let position = (position >> 8) / 16 * 16;
    match decode(&bytes, position, salt) {
        Decoded::Payload { len, total } => assert!(16 + len <= total && total <= bytes.len()),
        Decoded::Padding { total } => assert!((16..=bytes.len()).contains(&total)),
        Decoded::Bad(_) => {}
    }
    let room = bytes.len();
    if let Search::At(at) = next_good(&bytes, 0, room, position, salt, 1 << 20) {
        assert!(!matches!(
            decode(&bytes[at..], position + at as u64, salt),
            Decoded::Bad(_)
        ));
    }
    // The same bytes as a payload, behind 32 bytes of something else: found again, and only there.
    let total = (16 + bytes.len()).next_multiple_of(16);
    let mut log = vec![0; 32 + total];
    log[48..48 + bytes.len()].copy_from_slice(&bytes);
    let word = encode(&mut log[32..], bytes.len(), false, position + 32, salt);
    log[32..36].copy_from_slice(&word.to_le_bytes());
    assert_eq!(
        decode(&log[32..], position + 32, salt),
        Decoded::Payload {
            len: bytes.len(),
            total
        }
    );
    assert!(matches!(
        decode(&log[32..], position, salt),
        Decoded::Bad(_)
    ));
    let found = next_good(&log, 0, log.len(), position, salt, 1 << 20);
    assert_eq!(found, Search::At(32));
});
