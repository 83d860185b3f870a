//! Damaged files: noticed, named, survived.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

use common::{
    END_AT, RELEASED_AT, drain, fast, file, log_of, open_reader, open_writer, payload, reopen,
    restart_machine, segment, set_position, small,
};
use handoff::{OpenError, Reader, ReaderOptions, Writer};

#[test]
fn an_end_that_was_damaged_into_the_middle_of_the_log_costs_no_frame() {
    let frames = 12; // All in one segment.
    let plain = tempfile::tempdir().unwrap();
    let end = {
        log_of(plain.path(), frames);
        open_writer(plain.path()).end()
    };
    assert!(end < 4096, "the frames no longer fit into one segment");
    for wrong in (16..end).step_by(16) {
        let dir = tempfile::tempdir_in(fast()).unwrap();
        let written = log_of(dir.path(), frames);
        set_position(dir.path(), END_AT, wrong);
        let (found, _) = reopen(dir.path());
        assert_eq!(found, written, "with the end at {wrong} instead of {end}");
    }
}

#[test]
fn a_lost_or_garbled_cursor_page_is_rebuilt_and_everything_delivered_again() {
    for garbage in [
        None,
        Some(vec![]),
        Some(vec![0xA7; 4096]),
        Some(vec![0; 4096]),
        Some(vec![1; 9000]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let written = log_of(dir.path(), 30);
        let cursor = dir.path().join("cursor");
        match garbage {
            None => fs::remove_file(&cursor).unwrap(),
            Some(bytes) => {
                fs::write(&cursor, bytes).unwrap();
                let error = Reader::open(dir.path(), &ReaderOptions::default())
                    .err()
                    .unwrap();
                assert!(matches!(error, OpenError::Corrupt { .. }));
            }
        }
        assert_eq!(reopen(dir.path()), (written, vec![]));
    }
}

#[test]
fn a_log_with_neither_cursor_page_nor_segment_headers_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), 1);
    fs::remove_file(dir.path().join("cursor")).unwrap();
    for number in 0..2 {
        let _ = OpenOptions::new()
            .write(true)
            .open(segment(dir.path(), number))
            .map(|f| f.write_all_at(&[0; 64], 0));
    }
    assert!(matches!(
        Writer::open(dir.path(), &small()),
        Err(OpenError::Corrupt { .. })
    ));
}

#[test]
fn another_format_version_is_refused_by_both_sides() {
    for (version, with_crc) in [(0u32, true), (1, true), (3, true), (u32::MAX, false)] {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 1);
        let mut page = fs::read(dir.path().join("cursor")).unwrap();
        page[8..12].copy_from_slice(&version.to_le_bytes());
        if with_crc {
            let crc = crc32c::crc32c(&page[..60]);
            page[60..64].copy_from_slice(&crc.to_le_bytes());
        }
        file(&dir.path().join("cursor"))
            .write_all_at(&page[..64], 0)
            .unwrap();
        let writer = Writer::open(dir.path(), &small()).err().unwrap();
        let reader = Reader::open(dir.path(), &ReaderOptions::default())
            .err()
            .unwrap();
        for error in [writer, reader] {
            assert!(
                matches!(error, OpenError::Version { found, supported: 2, .. } if found == version)
            );
        }
    }
}

#[test]
fn after_a_power_loss_no_position_is_used_twice_and_what_is_torn_is_reported() {
    // The last frames' pages never reached the disk: zeros, or half a frame.
    for torn in [0, 20, 100] {
        let dir = tempfile::tempdir().unwrap();
        let written = log_of(dir.path(), 10);
        let end = open_writer(dir.path()).end();
        let (lost_at, lost) = &written[9];
        let frame = file(&segment(dir.path(), 0));
        let keep = torn.min(lost.len() as u64);
        frame
            .write_all_at(
                &vec![0; 16 + lost.len() - keep as usize],
                64 + lost_at + keep,
            )
            .unwrap();
        restart_machine(dir.path());
        let writer = open_writer(dir.path());
        assert!(writer.end() > end && writer.released() == 0);
        drop(writer);
        let (frames, corrupt) = reopen(dir.path());
        assert_eq!(frames, written[..9], "torn {torn}");
        assert_eq!(corrupt.len(), 1);
        assert!(corrupt[0].0 == *lost_at);
    }
}

#[test]
fn a_restart_of_the_machine_that_lost_nothing_loses_nothing_and_reports_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for _ in 0..3 {
        // A cursor page that is older than the frames, too.
        let old = fs::read(dir.path().join("cursor")).unwrap_or_default();
        let mut writer = open_writer(dir.path());
        written.push((writer.append(b"kept").unwrap(), b"kept".to_vec()));
        drop(writer);
        if let Some(end) = old.get(64..72) {
            let end = u64::from_le_bytes(end.try_into().unwrap());
            set_position(dir.path(), END_AT, end);
        }
        restart_machine(dir.path());
    }
    assert_eq!(reopen(dir.path()), (written, vec![]));
}

#[test]
fn a_released_position_beyond_the_end_is_put_back_or_kept_but_never_panics() {
    for (released, restarted) in [
        (1u64 << 40, false),
        (17, false),
        (u64::MAX, true),
        (1 << 20, true),
        (4032 * 2, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let written = log_of(dir.path(), 3);
        set_position(dir.path(), RELEASED_AT, released);
        if restarted {
            restart_machine(dir.path());
        }
        let (frames, _) = reopen(dir.path());
        assert!(
            frames == written || released == 4032 * 2 || released == 1 << 20,
            "{released}"
        );
    }
}

#[test]
fn a_missing_segment_is_reported_and_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = log_of(dir.path(), 60);
    fs::remove_file(segment(dir.path(), 1)).unwrap();
    written.retain(|(at, _)| !(4032..8064).contains(at));
    let (frames, corrupt) = drain(&mut open_reader(dir.path()));
    assert_eq!((frames, corrupt), (written.clone(), vec![(4032, 8064)]));
    assert_eq!(reopen(dir.path()).0, written);
}

/// Where the frame ends that holds `payload`.
fn end_of((at, payload): &(u64, Vec<u8>)) -> u64 {
    at + (16 + payload.len() as u64).next_multiple_of(16)
}

#[test]
fn of_a_segment_that_was_cut_short_the_frames_before_the_cut_are_read() {
    for bytes in [0, 63, 64, 100, 1111, 2222, 3333, 4095] {
        for options in [ReaderOptions::default(), ReaderOptions::guarded()] {
            let dir = tempfile::tempdir().unwrap();
            let mut written = log_of(dir.path(), 60);
            file(&segment(dir.path(), 1)).set_len(bytes).unwrap();
            let cut = 4032 + bytes.saturating_sub(64) / 16 * 16;
            written.retain(|frame| end_of(frame) <= cut || frame.0 >= 8064);
            let last = written.iter().rfind(|frame| frame.0 < 8064);
            // Where it ends, or where the segment behind it begins.
            let lost = last.map_or(0, end_of).max(4032);
            let mut reader = Reader::open(dir.path(), &options).unwrap();
            let (frames, corrupt) = drain(&mut reader);
            assert_eq!(
                (frames, corrupt),
                (written.clone(), vec![(lost, 8064)]),
                "{bytes}"
            );
            drop(reader);
            assert_eq!(reopen(dir.path()).0, written);
        }
    }
}

#[test]
fn a_log_of_which_the_last_segment_was_cut_short_goes_on_behind_it() {
    for bytes in [0, 64, 700, 1500, 4095] {
        for restarted in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut written = log_of(dir.path(), 12);
            let end = open_writer(dir.path()).end();
            assert!(end < 4032, "the frames no longer fit into one segment");
            file(&segment(dir.path(), 0)).set_len(bytes).unwrap();
            if restarted {
                restart_machine(dir.path());
            }
            written.retain(|frame| end_of(frame) + 64 <= bytes);
            let writer = open_writer(dir.path());
            assert!(writer.end() >= 4032, "nothing is appended to what is cut");
            drop(writer);
            assert_eq!(reopen(dir.path()).0, written, "{bytes}");
        }
    }
}

#[test]
fn after_a_restart_a_released_segment_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), 60);
    let mut reader = open_reader(dir.path());
    drain(&mut reader);
    reader.release(reader.position());
    drop(reader);
    restart_machine(dir.path());
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let entries = fs::read_dir(dir.path()).unwrap();
    let before: Vec<u64> = entries.map(|entry| inode(entry.unwrap().path())).collect();
    let writer = open_writer(dir.path());
    let current = segment(dir.path(), writer.end() / 4032);
    assert!(before.contains(&inode(current)));
}

#[test]
fn files_with_numbers_that_no_segment_has_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let written = log_of(dir.path(), 10);
    for number in [u64::MAX, u64::MAX - 1, 10_000_000_000] {
        fs::write(segment(dir.path(), number), []).unwrap();
    }
    restart_machine(dir.path());
    assert_eq!(reopen(dir.path()), (written, vec![]));
    assert!(segment(dir.path(), u64::MAX).exists());
}

#[test]
fn another_process_writing_garbage_into_the_end_does_not_crash_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), 30);
    let mut reader = open_reader(dir.path());
    for end in [u64::MAX, 1 << 60, 1 << 50, 3, 17, 4033, 100_000] {
        set_position(dir.path(), END_AT, end);
        drain(&mut reader);
        // Positions beyond 2^60 are none.
        let is_beyond = end <= 1 << 60 && end > reader.position();
        assert_eq!(reader.is_stranded(), is_beyond, "{end}");
    }
}

#[test]
fn a_segment_that_vanishes_under_both_sides_is_passed_once_the_writer_is_behind_it() {
    for options in [ReaderOptions::default(), ReaderOptions::guarded()] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open_writer(dir.path());
        let mut reader = Reader::open(dir.path(), &options).unwrap();
        let frame = |n: u8| vec![n; 1000];
        let append = |writer: &mut Writer, n: u8| {
            assert!(writer.wait_for_room(1000, Duration::from_secs(60)));
            writer.append(&frame(n)).unwrap()
        };
        // Three to a segment: the end is seen in the second one, and the reader is still in the first.
        let written: Vec<_> = (0..4).map(|n| append(&mut writer, n)).collect();
        assert_eq!(reader.poll().unwrap().unwrap().position, written[0]);
        fs::remove_file(segment(dir.path(), 1)).unwrap();
        let (frames, corrupt) = drain(&mut reader);
        assert_eq!((frames.len(), corrupt), (2, vec![(4032, 4032)]));
        assert!(reader.is_stranded());
        let later: Vec<_> = (4..8)
            .map(|n| (append(&mut writer, n), frame(n)))
            .filter(|(at, _)| *at >= 8064)
            .collect();
        assert_eq!(drain(&mut reader), (later, vec![(4032, 8064)]));
        assert!(!reader.is_stranded());
    }
}

#[test]
fn an_end_that_was_too_large_for_a_moment_does_not_lead_the_reader_away() {
    for options in [ReaderOptions::default(), ReaderOptions::guarded()] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open_writer(dir.path());
        let mut reader = Reader::open(dir.path(), &options).unwrap();
        writer.append(&payload(0)).unwrap();
        writer.append(&payload(1)).unwrap();
        let end = writer.end();
        set_position(dir.path(), END_AT, end + 100_000);
        reader.poll().unwrap().unwrap();
        set_position(dir.path(), END_AT, end);
        let (frames, corrupt) = drain(&mut reader);
        assert_eq!((frames.len(), corrupt), (1, vec![]));
        writer.append(&payload(2)).unwrap();
        assert_eq!(drain(&mut reader).0.len(), 1);
    }
}
