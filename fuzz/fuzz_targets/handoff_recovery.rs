//! A log whose files were overwritten at will: both sides open it or refuse it by name, the reader comes to an end, and the log takes frames again.
#![no_main]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use handoff::{AppendError, LogOptions, ReadError, Reader, ReaderOptions, SyncPolicy, Writer};
use libfuzzer_sys::fuzz_target;

/// Bytes for a place in one of the files.
type Damage = (u8, u16, Vec<u8>);

fn open(dir: &std::path::Path) -> Result<Writer, handoff::OpenError> {
    Writer::open(
        dir,
        &LogOptions {
            segment_bytes: 4096,
            bytes_max: 4 * 4096,
            sync: SyncPolicy::None,
            ..LogOptions::default()
        },
    )
}

/// Bounded: positions only move on.
fn drain(reader: &mut Reader) -> usize {
    let mut frames = 0;
    for _ in 0..10_000 {
        match reader.poll() {
            Ok(Some(_)) => frames += 1,
            Ok(None) => return frames,
            Err(ReadError::Corrupt { from, to, .. }) => assert!(from <= to),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the reader does not come to an end");
}

fuzz_target!(|input: (Vec<u16>, Vec<Damage>, bool)| {
    let (appends, damages, reader_first) = input;
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let dir = tempfile::Builder::new()
        .prefix("handoff-fuzz")
        .tempdir_in(place)
        .unwrap();
    let mut writer = open(dir.path()).unwrap();
    for len in appends.iter().take(64) {
        let _ = writer.append(&vec![0x33; usize::from(*len) % 4100]);
    }
    drop(writer);
    for (which, at, bytes) in damages.iter().take(8) {
        let name = [
            "cursor",
            "segment-0000000000",
            "segment-0000000001",
            "segment-0000000002",
        ][usize::from(*which) % 4];
        if let Ok(file) = OpenOptions::new().write(true).open(dir.path().join(name)) {
            let _ = file.write_all_at(&bytes[..bytes.len().min(4096)], u64::from(*at) % 4096);
        }
    }
    if reader_first && let Ok(mut reader) = Reader::open(dir.path(), &ReaderOptions::default()) {
        drain(&mut reader);
    }
    let Ok(mut writer) = open(dir.path()) else {
        return;
    };
    let mut reader = Reader::open(dir.path(), &ReaderOptions::default()).unwrap();
    drain(&mut reader);
    reader.release(reader.position());
    if writer.append(b"afterwards").is_err() {
        assert!(
            writer.wait_for_room(10, std::time::Duration::from_secs(60)),
            "released and still full"
        );
        assert!(!matches!(
            writer.append(b"afterwards"),
            Err(AppendError::Io(_))
        ));
    }
    assert_eq!(drain(&mut reader), 1);
});
