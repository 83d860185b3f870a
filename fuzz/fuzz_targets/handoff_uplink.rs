//! A sidecar that writes garbage into the uplink's cursor page while the plugin appends: every append comes back, and the frame that was appended last stands in its
//! place.
#![no_main]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use handoff::fuzzing::{Decoded, decode};
use handoff::{AppendError, LogOptions, SyncPolicy, Writer};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

const SEGMENT: u64 = 4096;

#[derive(Arbitrary, Debug)]
enum Step {
    Append(u16),
    /// Bytes behind the description.
    Garbage(u8, Vec<u8>),
    /// A released position (or end) with all its copies.
    Position {
        end: bool,
        to: u64,
    },
    /// The same, of what has been appended.
    Release(u16),
    Wait(u8),
    Sync,
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

fn open(dir: &std::path::Path) -> Writer {
    let options = LogOptions {
        segment_bytes: SEGMENT,
        bytes_max: 4 * SEGMENT,
        sync: SyncPolicy::None,
        ..LogOptions::default()
    };
    Writer::open(dir, &options).unwrap()
}

fuzz_target!(|steps: Vec<Step>| {
    let dir = tempfile::Builder::new()
        .prefix("handoff-fuzz")
        .tempdir_in(place())
        .unwrap();
    let dir = dir.path();
    let mut writer = Some(open(dir));
    let cursor = OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.join("cursor"))
        .unwrap();
    let mut salt = [0; 4];
    cursor.read_exact_at(&mut salt, 12).unwrap();
    let salt = u32::from_le_bytes(salt);
    let set = |end: bool, to: u64| {
        let at = if end { 64 } else { 128 };
        for (at, value) in [
            (at, to),
            (at + 8, !to),
            (at + 16, to ^ 0x5BD1_E995_A3C5_9AC3),
        ] {
            cursor.write_all_at(&value.to_le_bytes(), at).unwrap();
        }
    };
    for step in steps.into_iter().take(60) {
        let Some(log) = &mut writer else { return };
        match step {
            Step::Append(len) => {
                let payload = vec![0x77; usize::from(len) % 4100];
                match log.append(&payload) {
                    Ok(position) => {
                        let capacity = SEGMENT - 64;
                        let path = dir.join(format!("segment-{:010}", position / capacity));
                        let bytes = std::fs::read(path).unwrap();
                        let at = (64 + position % capacity) as usize;
                        assert!(matches!(
                            decode(&bytes[at..], position, salt),
                            Decoded::Payload { len, .. } if len == payload.len()
                        ));
                    }
                    Err(AppendError::Full | AppendError::TooLarge { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Garbage(at, bytes) => {
                let at = 64 + u64::from(at) % 160;
                cursor
                    .write_all_at(&bytes[..bytes.len().min(64)], at)
                    .unwrap();
            }
            Step::Position { end, to } => set(end, to),
            Step::Release(back) => set(false, log.end().saturating_sub(back.into())),
            Step::Wait(len) => {
                log.wait_for_room(len.into(), Duration::from_micros(200));
                let beyond = log.released();
                log.wait_for_release(beyond, Duration::from_micros(50));
            }
            Step::Sync => log.sync().unwrap(),
            Step::Reopen => {
                writer = None;
                writer.get_or_insert_with(|| open(dir));
            }
        }
        if let Some(log) = &writer {
            assert!(log.released() <= log.end());
        }
    }
});
