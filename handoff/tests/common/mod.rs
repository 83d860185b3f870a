//! What the tests share.
#![allow(dead_code)] // Each test binary uses its part of it.

use std::path::Path;

use handoff::{LogOptions, ReadError, Reader, ReaderOptions, SyncPolicy, Writer};

/// A log of few small segments: each test rolls over often.
pub(crate) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        bytes_max: 4 * 4096,
        sync: SyncPolicy::None,
    }
}

pub(crate) fn open_writer(dir: &Path) -> Writer {
    Writer::open(dir, &small()).unwrap()
}

pub(crate) fn open_reader(dir: &Path) -> Reader {
    Reader::open(dir, &ReaderOptions::default()).unwrap()
}

/// Frames with their positions, and corrupt stretches.
pub(crate) type Drained = (Vec<(u64, Vec<u8>)>, Vec<(u64, u64)>);

/// Every frame up to the end, with its position, and the stretches that were reported as corrupt. Never endless: the reader moves on with each result but for
/// those about a segment's header or lack, of which there is one a segment.
pub(crate) fn drain(reader: &mut Reader) -> Drained {
    let (mut frames, mut corrupt) = (Vec::new(), Vec::new());
    for _ in 0..100_000 {
        match reader.poll() {
            Ok(Some(frame)) => frames.push((frame.position, frame.payload.to_vec())),
            Ok(None) => return (frames, corrupt),
            Err(ReadError::Corrupt { from, to, .. }) => corrupt.push((from, to)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the reader does not come to an end");
}

/// A payload that tells its number and differs in length and bytes.
pub(crate) fn payload(i: u64) -> Vec<u8> {
    let len = 8 + (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as usize;
    let mut out = i.to_le_bytes().to_vec();
    out.resize(len, i as u8 | 1);
    out
}

/// Memory rather than a disk where there is some: thousands of small logs.
pub(crate) fn fast() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}
