//! How many frames a log has and how many of them wait: exact, whoever died.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use common::{fast, flip, open_reader, open_writer, payload};
use handoff::{LogState, Reader};

fn state(dir: &Path) -> LogState {
    LogState::read(dir).unwrap()
}

/// Reads `n` frames, or as many as there are good ones.
fn read(reader: &mut Reader, n: usize) -> usize {
    let mut found = 0;
    while found < n {
        match reader.poll() {
            Ok(Some(_)) => found += 1,
            Ok(None) => break,
            Err(_) => {}
        }
    }
    found
}

#[test]
fn the_frames_that_wait_are_counted_over_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut appended = 0;
    let mut released = 0;
    for _ in 0..20 {
        let mut writer = open_writer(dir.path());
        let mut reader = open_reader(dir.path());
        for i in 0..9 {
            // The segment may be late on a busy machine.
            assert!(writer.wait_for_room(payload(i).len(), Duration::from_secs(60)));
            writer.append(&payload(i)).unwrap();
            appended += 1;
        }
        // Less than was polled is released.
        let mut upto = reader.position();
        for _ in 0..8 {
            upto = reader.poll().unwrap().unwrap().next;
        }
        reader.poll().unwrap();
        assert_eq!(reader.frames_before(upto), released + 8);
        reader.release(upto);
        released += 8;
        assert_eq!(writer.frames(), appended);
        assert_eq!(reader.released_frames(), released);
        let found = state(dir.path());
        assert_eq!(
            (found.frames, found.released_frames),
            (Some(appended), Some(released))
        );
        assert_eq!(found.waiting_frames(), Some(appended - released));
        drop((writer, reader));
        assert_eq!(state(dir.path()), found);
        // The released ones must not pile up: the log is small.
        let mut reader = open_reader(dir.path());
        released += read(&mut reader, 1) as u64;
        reader.release(reader.position());
    }
    assert_eq!(state(dir.path()).waiting_frames(), Some(0));
}

#[test]
fn frames_that_were_committed_and_not_yet_published_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    for i in 0..3 {
        writer.append(&payload(i)).unwrap();
    }
    let before = std::fs::read(dir.path().join("cursor")).unwrap();
    writer.append(&payload(3)).unwrap();
    drop(writer);
    // The page as it was when the writer died before it moved the end, and when it died between the count and the end.
    for with_count in [false, true] {
        let page = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("cursor"))
            .unwrap();
        let part = if with_count {
            &before[64..96]
        } else {
            &before[64..128]
        };
        page.write_all_at(part, 64).unwrap();
        let writer = open_writer(dir.path());
        assert_eq!(writer.frames(), 4, "with count: {with_count}");
        assert_eq!(state(dir.path()).waiting_frames(), Some(4));
    }
}

#[test]
fn a_log_whose_counts_are_lost_is_counted_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    for i in 0..10 {
        writer.append(&payload(i)).unwrap();
    }
    read(&mut reader, 4);
    reader.release(reader.position());
    drop((writer, reader));
    let page = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("cursor"))
        .unwrap();
    for at in [96, 160] {
        page.write_all_at(&[0xAB; 32], at).unwrap();
    }
    assert_eq!(state(dir.path()).waiting_frames(), None);
    let _writer = open_writer(dir.path());
    assert_eq!(state(dir.path()).waiting_frames(), Some(6));
}

#[test]
fn any_byte_of_a_count_may_be_damaged_and_the_frames_are_counted_again() {
    for at in (96..128).chain(160..192) {
        let dir = tempfile::tempdir_in(fast()).unwrap();
        let mut writer = open_writer(dir.path());
        let mut reader = open_reader(dir.path());
        for i in 0..10 {
            writer.append(&payload(i)).unwrap();
        }
        read(&mut reader, 4);
        reader.release(reader.position());
        drop((writer, reader));
        flip(&dir.path().join("cursor"), at, 0x10);
        let waiting = state(dir.path()).waiting_frames();
        assert!(waiting.is_none_or(|waiting| waiting == 6), "byte {at}");
        let reader = open_reader(dir.path());
        assert!(reader.released_frames() <= 4, "byte {at}");
        drop(reader);
        let writer = open_writer(dir.path());
        assert_eq!(writer.frames(), 10, "byte {at}");
        let found = state(dir.path());
        assert_eq!(
            (found.waiting_frames(), found.released_frames),
            (Some(6), Some(4)),
            "byte {at}"
        );
    }
}

#[test]
fn an_unpublished_frame_is_counted_also_when_the_count_of_the_released_ones_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    for i in 0..4 {
        writer.append(&payload(i)).unwrap();
    }
    read(&mut reader, 2);
    reader.release(reader.position());
    let before = std::fs::read(dir.path().join("cursor")).unwrap();
    writer.append(&payload(4)).unwrap();
    drop((writer, reader));
    let page = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("cursor"))
        .unwrap();
    page.write_all_at(&before[64..128], 64).unwrap();
    page.write_all_at(&[0xAB; 32], 160).unwrap();
    let writer = open_writer(dir.path());
    assert_eq!(writer.frames(), 5);
    assert_eq!(state(dir.path()).released_frames, Some(2));
}

#[test]
fn damaged_frames_are_counted_once_the_reader_is_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let positions: Vec<u64> = (0..10).map(|_| writer.append(&[1; 100]).unwrap()).collect();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("segment-0000000000"))
        .unwrap();
    for damaged in [3, 4, 9] {
        // More than a byte of each, which could be mended.
        file.write_all_at(b"xyz", 64 + positions[damaged] + 20)
            .unwrap();
    }
    let mut reader = open_reader(dir.path());
    let good = read(&mut reader, 100) as u64;
    reader.release(reader.position());
    assert!(good <= 7, "{good} frames read, three are damaged");
    assert_eq!(reader.released_frames(), 10);
    assert_eq!(state(dir.path()).waiting_frames(), Some(0));
}
