//! What the tests share.
#![allow(dead_code)] // Each test binary uses its part of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handoff::{AppendError, LogOptions, ReadError, Reader, ReaderOptions, SyncPolicy, Writer};

/// A log of few small segments: each test rolls over often.
pub(crate) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        bytes_max: 4 * 4096,
        sync: SyncPolicy::None,
        ..LogOptions::default()
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
            Ok(None) => {
                // One that copies may have had to look at much.
                if reader.end() <= reader.position() || reader.is_stranded() {
                    return (frames, corrupt);
                }
            }
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
pub(crate) fn fast() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// Where the cursor page holds the end and the released position.
pub(crate) const END_AT: u64 = 64;
/// As above.
pub(crate) const RELEASED_AT: u64 = 128;

/// Stores a position with all its copies, as `docs/handoff-format.md` has them: what a process that writes garbage may do, and no single damaged byte.
pub(crate) fn set_position(dir: &Path, at: u64, position: u64) {
    let cursor = OpenOptions::new()
        .write(true)
        .open(dir.join("cursor"))
        .unwrap();
    for (at, value) in [
        (at, position),
        (at + 8, !position),
        (at + 16, position ^ 0x5BD1_E995_A3C5_9AC3),
    ] {
        cursor.write_all_at(&value.to_le_bytes(), at).unwrap();
    }
}

/// A segment's file.
pub(crate) fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:010}"))
}

/// A file, to be damaged.
pub(crate) fn file(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// A log of `n` frames, closed; with the positions.
pub(crate) fn log_of(dir: &Path, n: u64) -> Vec<(u64, Vec<u8>)> {
    let mut writer = open_writer(dir);
    (0..n)
        .map(|i| {
            loop {
                match writer.append(&payload(i)) {
                    Ok(position) => break (position, payload(i)),
                    Err(AppendError::Full) => {
                        assert!(writer.wait_for_room(300, Duration::from_secs(60)))
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .collect()
}

/// Makes the log look as after a restart of the machine.
pub(crate) fn restart_machine(dir: &Path) {
    file(&dir.join("cursor"))
        .write_all_at(&[0xEE; 8], 192)
        .unwrap();
}

/// What both sides make of the directory; the log takes frames and gives them back afterwards, whatever was wrong before.
pub(crate) fn reopen(dir: &Path) -> Drained {
    let mut writer = open_writer(dir);
    let mut reader = open_reader(dir);
    let found = drain(&mut reader);
    reader.release(reader.position());
    let position = writer.append(b"afterwards").unwrap();
    assert_eq!(drain(&mut reader).0, [(position, b"afterwards".to_vec())]);
    found
}

/// Changes a byte of a file.
pub(crate) fn flip(path: &Path, at: u64, change: u8) {
    let (file, mut byte) = (file(path), [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ change], at).unwrap();
}
