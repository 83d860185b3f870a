//! The log as its users see it.

use std::path::Path;
use std::time::Duration;

use handoff::{AppendError, LogOptions, Reader, ReaderOptions, SyncPolicy, Writer};

fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        bytes_max: 4 * 4096,
        sync: SyncPolicy::None,
    }
}

fn writer(dir: &Path) -> Writer {
    Writer::open(dir, &small()).unwrap()
}

fn reader(dir: &Path) -> Reader {
    Reader::open(dir, &ReaderOptions::default()).unwrap()
}

/// The next frame, copied.
fn next(reader: &mut Reader) -> Option<Vec<u8>> {
    reader.poll().unwrap().map(|frame| frame.payload.to_vec())
}

#[test]
fn frames_come_out_in_order_with_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    let mut reader = reader(dir.path());
    assert_eq!(next(&mut reader), None);
    let mut positions = Vec::new();
    for i in 0..1000u32 {
        let payload = vec![i as u8; (i as usize * 7) % 500];
        let position = loop {
            match writer.append(&payload) {
                Ok(position) => break position,
                Err(AppendError::Full) => {
                    reader.release(reader.position());
                    assert!(writer.wait_for_room(payload.len(), Duration::from_secs(60)));
                }
                Err(error) => panic!("{error}"),
            }
        };
        positions.push(position);
        let frame = reader.poll().unwrap().unwrap();
        assert_eq!((frame.position, frame.payload), (position, &payload[..]));
    }
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(next(&mut reader), None);
}
