//! Single damaged bytes cost nothing, wherever they are and whenever they come.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use common::{
    drain, fast, file, flip, log_of, open_reader, open_writer, payload, reopen, restart_machine,
    segment,
};
use handoff::{AppendError, Reader, ReaderOptions};

#[test]
fn any_bit_of_a_segment_may_be_flipped_and_every_frame_is_read() {
    let dir = tempfile::tempdir_in(fast()).unwrap();
    let written = log_of(dir.path(), 40);
    let _writer = open_writer(dir.path());
    let path = segment(dir.path(), 0);
    let (whole, segment) = (fs::read(&path).unwrap(), file(&path));
    // Through the page cache the flips are seen by mappings too; a reader of its own for each, which releases nothing.
    for bit in 0..whole.len() * 8 {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        segment
            .write_all_at(&[whole[byte] ^ mask], byte as u64)
            .unwrap();
        let options = if bit % 2 == 0 {
            ReaderOptions::default()
        } else {
            ReaderOptions::guarded()
        };
        let mut reader = Reader::open(dir.path(), &options).unwrap();
        assert_eq!(drain(&mut reader), (written.clone(), vec![]), "bit {bit}");
        assert_eq!(reader.repaired(), 1, "bit {bit}");
        segment
            .write_all_at(&whole[byte..=byte], byte as u64)
            .unwrap();
    }
}

#[test]
fn any_byte_of_a_segment_may_be_damaged_over_a_restart() {
    // The tail of the log, where recovery looks for its end, and the rest of the segment, which is empty.
    for at in 0..4096 {
        for (change, restarted) in [(0x01, false), (0xFF, false), (0x40, true), (0xFF, true)] {
            // The empty rest: not every byte.
            if at > 1500 && at % 61 != 0 {
                continue;
            }
            let dir = tempfile::tempdir_in(fast()).unwrap();
            let written = log_of(dir.path(), 6);
            flip(&segment(dir.path(), 0), at, change);
            if restarted {
                restart_machine(dir.path());
            }
            let (frames, _) = reopen(dir.path());
            assert_eq!(frames, written, "byte {at}, restarted {restarted}");
        }
    }
}

#[test]
fn any_byte_of_the_cursor_page_may_be_damaged_and_nothing_is_lost() {
    for at in 0..240 {
        for change in [0x01, 0x80, 0xFF] {
            let dir = tempfile::Builder::new().tempdir_in(fast()).unwrap();
            let written = log_of(dir.path(), 5);
            // The first two were released.
            {
                let mut reader = open_reader(dir.path());
                reader.poll().unwrap();
                reader.poll().unwrap();
                reader.release(reader.position());
            }
            flip(&dir.path().join("cursor"), at, change);
            // The reader may come first.
            let first = drain(&mut open_reader(dir.path()));
            assert_eq!(first, (written[2..].to_vec(), vec![]), "byte {at}");
            assert_eq!(
                reopen(dir.path()),
                (written[2..].to_vec(), vec![]),
                "byte {at}"
            );
        }
    }
}

#[test]
fn any_byte_of_the_cursor_page_may_be_damaged_while_both_sides_run() {
    let dir = tempfile::Builder::new().tempdir_in(fast()).unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    let mut number = 0;
    for at in 0..240 {
        for change in [0x01, 0xFF] {
            for damaged_first in [false, true] {
                if damaged_first {
                    flip(&dir.path().join("cursor"), at, change);
                }
                let bytes = payload(number);
                number += 1;
                while matches!(writer.append(&bytes), Err(AppendError::Full)) {
                    assert!(writer.wait_for_room(bytes.len(), Duration::from_secs(60)));
                }
                if !damaged_first {
                    flip(&dir.path().join("cursor"), at, change);
                }
                let (frames, corrupt) = drain(&mut reader);
                let found: Vec<_> = frames.into_iter().map(|(_, bytes)| bytes).collect();
                assert_eq!((found, corrupt), (vec![bytes], vec![]), "byte {at}");
                reader.release(reader.position());
                assert_eq!(writer.released(), writer.end());
            }
        }
    }
}

#[test]
fn both_descriptions_may_be_damaged_in_one_byte_or_one_of_them_at_large() {
    for cursor_at_large in [false, true] {
        let dir = tempfile::tempdir_in(fast()).unwrap();
        let written = log_of(dir.path(), 40);
        let cursor = dir.path().join("cursor");
        if cursor_at_large {
            file(&cursor).write_all_at(&[0x5A; 64], 0).unwrap();
        } else {
            flip(&cursor, 8, 0x7F);
        }
        flip(&segment(dir.path(), 0), 20, 0x11);
        assert_eq!(
            drain(&mut open_reader(dir.path())),
            (written.clone(), vec![])
        );
        assert_eq!(reopen(dir.path()), (written, vec![]));
    }
}

#[test]
fn a_reader_that_copies_mends_one_padding_a_poll() {
    let dir = tempfile::tempdir_in(fast()).unwrap();
    let mut writer = open_writer(dir.path());
    writer.append(&[1; 3000]).unwrap();
    assert!(writer.wait_for_room(3000, Duration::from_secs(60)));
    let second = writer.append(&[2; 3000]).unwrap();
    flip(&segment(dir.path(), 0), 3500, 0x10);
    let mut reader = Reader::open(dir.path(), &ReaderOptions::guarded()).unwrap();
    assert_eq!(reader.poll().unwrap().unwrap().payload, [1; 3000]);
    assert!(reader.poll().unwrap().is_none());
    assert_eq!((reader.position(), reader.repaired()), (second, 1));
    assert_eq!(reader.poll().unwrap().unwrap().payload, [2; 3000]);
}

#[test]
fn a_stretch_that_cannot_be_mended_is_reported_with_its_bytes() {
    for options in [ReaderOptions::default(), ReaderOptions::guarded()] {
        let dir = tempfile::tempdir_in(fast()).unwrap();
        let written = log_of(dir.path(), 40);
        let (at, bytes) = &written[3];
        let path = segment(dir.path(), 0);
        flip(&path, 64 + at + 17, 0x11);
        flip(&path, 64 + at + 20, 0x22);
        let mut reader = Reader::open(dir.path(), &options).unwrap();
        let (frames, corrupt) = drain(&mut reader);
        let mut rest = written.clone();
        rest.remove(3);
        assert_eq!((frames, corrupt), (rest, vec![(*at, written[4].0)]));
        let mut raw = reader.raw(*at, written[4].0, 4096);
        raw[17] ^= 0x11;
        raw[20] ^= 0x22;
        assert_eq!(raw[16..16 + bytes.len()], bytes[..]);
        assert_eq!(reader.raw(*at, u64::MAX, 10).len(), 10);
        assert!(reader.raw(1 << 40, 1 << 41, 1 << 20).is_empty());
    }
}
