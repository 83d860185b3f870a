//! A sidecar that writes garbage into the downlink while the plugin reads it: every poll comes back, the reader only moves on, and opening it anew works or is refused
//! by name.
#![no_main]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use handoff::fuzzing::encode;
use handoff::{LogOptions, ReadError, Reader, ReaderOptions, SyncPolicy, Writer};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

const SEGMENT: u64 = 4096;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A good frame.
    Append(u8),
    /// Bytes at a place in a file.
    Garbage(u8, u16, Vec<u8>),
    /// A position with all its copies, or only one of them.
    Position {
        end: bool,
        to: u64,
        whole: bool,
    },
    /// A frame that verifies, wherever and whatever it is.
    Frame {
        at: u16,
        len: u16,
        padding: bool,
    },
    /// A segment cut short or made longer.
    Resize(u8, u16),
    Remove(u8),
    Poll(u8),
    Release,
    Reopen,
}

fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

fn segment(dir: &Path, which: u8) -> PathBuf {
    dir.join(format!("segment-{:010}", which % 6))
}

fn write(path: &Path, bytes: &[u8], at: u64) {
    if let Ok(file) = OpenOptions::new().write(true).open(path) {
        let _ = file.write_all_at(bytes, at);
    }
}

fn write_position(dir: &Path, end: bool, to: u64, whole: bool) {
    let at = if end { 64 } else { 128 };
    write(&dir.join("cursor"), &to.to_le_bytes(), at);
    if whole {
        write(&dir.join("cursor"), &(!to).to_le_bytes(), at + 8);
        let masked = to ^ 0x5BD1_E995_A3C5_9AC3;
        write(&dir.join("cursor"), &masked.to_le_bytes(), at + 16);
    }
}

/// A frame at `at` (in 16 bytes) of all segments together, with the log's own salt.
fn write_frame(dir: &Path, at: u16, len: u16, padding: bool) {
    let capacity = SEGMENT - 64;
    let position = u64::from(at) * 16 % (6 * capacity);
    let offset = position % capacity;
    let total = (16 + usize::from(len)).next_multiple_of(16);
    let mut salt = [0; 4];
    let read = std::fs::File::open(dir.join("cursor")).and_then(|f| f.read_exact_at(&mut salt, 12));
    if read.is_err() || offset as usize + total > capacity as usize {
        return;
    }
    let mut frame = vec![0; total];
    let word = encode(
        &mut frame,
        len.into(),
        padding,
        position,
        u32::from_le_bytes(salt),
    );
    frame[..4].copy_from_slice(&word.to_le_bytes());
    write(
        &segment(dir, (position / capacity) as u8),
        &frame,
        64 + offset,
    );
}

fn poll(reader: &mut Reader, times: u32) {
    for _ in 0..times {
        let before = reader.position();
        match reader.poll() {
            Ok(Some(frame)) => assert!(before <= frame.position && frame.position < frame.next),
            Ok(None) => return,
            Err(ReadError::Corrupt { from, to, .. }) => {
                assert!(from <= to);
                reader.raw(from, to, 1000);
            }
            Err(ReadError::Io { .. }) => return,
            Err(error) => panic!("{error}"),
        }
        assert!(reader.position() >= before);
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let dir = tempfile::Builder::new()
        .prefix("handoff-fuzz")
        .tempdir_in(place())
        .unwrap();
    let dir = dir.path();
    let options = LogOptions {
        segment_bytes: SEGMENT,
        bytes_max: 4 * SEGMENT,
        sync: SyncPolicy::None,
        ..LogOptions::default()
    };
    // The writer maps the segments: it is gone before any of them is cut short.
    let mut writer = Writer::open(dir, &options).ok();
    let mut reader = Reader::open(dir, &ReaderOptions::guarded()).ok();
    for step in steps.into_iter().take(60) {
        match (step, &mut reader) {
            (Step::Append(len), _) => {
                if let Some(writer) = &mut writer {
                    let _ = writer.append(&vec![len; usize::from(len) * 5]);
                }
            }
            (Step::Garbage(which, at, bytes), _) => {
                let path = match which % 7 {
                    6 => dir.join("cursor"),
                    which => segment(dir, which),
                };
                write(&path, &bytes[..bytes.len().min(200)], u64::from(at) % 4096);
            }
            (Step::Position { end, to, whole }, _) => write_position(dir, end, to, whole),
            (Step::Frame { at, len, padding }, _) => write_frame(dir, at, len, padding),
            (Step::Resize(which, bytes), _) => {
                writer = None;
                if let Ok(file) = OpenOptions::new().write(true).open(segment(dir, which)) {
                    let _ = file.set_len(bytes.into());
                }
            }
            (Step::Remove(which), _) => {
                let _ = std::fs::remove_file(segment(dir, which));
            }
            (Step::Poll(times), Some(reader)) => poll(reader, times.into()),
            (Step::Release, Some(reader)) => reader.release(reader.position()),
            (Step::Reopen, _) => {
                reader = None;
                reader = Reader::open(dir, &ReaderOptions::guarded()).ok().or(reader);
            }
            (_, None) => {}
        }
    }
    if let Some(reader) = &mut reader {
        poll(reader, 10_000);
    }
});
