//! Damaged files: noticed, named, survived.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{
    END_AT, RELEASED_AT, drain, fast, file, log_of, open_reader, open_writer, payload, reopen,
    restart_machine, segment, set_position, small,
};
use handoff::{AppendError, LogOptions, OpenError, Reader, ReaderOptions, Writer};

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
fn a_missing_or_shortened_segment_is_reported_and_skipped() {
    for shorten in [None, Some(0), Some(100), Some(4095)] {
        let dir = tempfile::tempdir().unwrap();
        let written = log_of(dir.path(), 60);
        let path = segment(dir.path(), 1);
        match shorten {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => file(&path).set_len(bytes).unwrap(),
        }
        let (frames, corrupt) = drain(&mut open_reader(dir.path()));
        assert_eq!(corrupt, [(4032, 8064)]);
        let rest: Vec<_> = written
            .into_iter()
            .filter(|(at, _)| !(4032..8064).contains(at))
            .collect();
        assert_eq!(frames, rest);
        assert_eq!(reopen(dir.path()).0, rest);
    }
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

/// A file system of 300 KiB of its own.
struct Tiny(PathBuf);

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_full_disk_is_named_and_the_log_goes_on_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=300k", "none"])
        .arg(place.path())
        .status();
    let tiny = mounted
        .is_ok_and(|s| s.success())
        .then(|| Tiny(place.path().to_owned()));
    if tiny.is_none() {
        // Without the right to mount: a segment larger than any disk meets the same error.
        let huge = LogOptions {
            segment_bytes: 1 << 30,
            bytes_max: 1 << 50,
            ..small()
        };
        let mut limit = libc::rlimit {
            rlim_cur: 1 << 20,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: SIGXFSZ is ignored and a limit of this process set; no memory but the struct is touched.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit);
            limit.rlim_cur = 1 << 20;
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
        }
        assert!(matches!(
            Writer::open(&place.path().join("log"), &huge),
            Err(OpenError::NoSpace { .. })
        ));
        return;
    }
    let dir = place.path().join("log");
    let options = LogOptions {
        segment_bytes: 64 << 10,
        bytes_max: 1 << 20,
        ..small()
    };
    let ballast = place.path().join("ballast");
    fs::write(&ballast, vec![1; 150 << 10]).unwrap();
    let mut writer = Writer::open(&dir, &options).unwrap();
    let mut appended = 0;
    let begun = Instant::now();
    loop {
        match writer.append(&[9; 1000]) {
            Ok(_) => appended += 1,
            Err(AppendError::NoSpace(_)) => break,
            Err(AppendError::Full) => assert!(begun.elapsed() < Duration::from_secs(60)),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!writer.wait_for_room(1000, Duration::from_millis(20)));
    let mut reader = open_reader(&dir);
    fs::remove_file(&ballast).unwrap();
    assert!(writer.wait_for_room(1000, Duration::from_secs(60)));
    writer.append(&[9; 1000]).unwrap();
    assert_eq!(drain(&mut reader).0.len(), appended + 1);
}
