//! The log as its users see it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use common::{drain, fast, open_reader, open_writer, payload, small};
use handoff::{
    AppendError, Counters, LogOptions, OpenError, Reader, ReaderOptions, Role, SyncPolicy, Writer,
};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn frames_come_out_in_order_with_their_bytes_while_segments_are_reused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    assert!(reader.poll().unwrap().is_none());
    let mut last = None;
    for i in 0..2000 {
        let bytes = payload(i);
        let position = loop {
            match writer.append(&bytes) {
                Ok(position) => break position,
                Err(AppendError::Full) => {
                    reader.release(reader.position());
                    assert!(writer.wait_for_room(bytes.len(), MINUTE));
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert!(Some(position) > last);
        last = Some(position);
        let frame = reader.poll().unwrap().unwrap();
        assert_eq!((frame.position, frame.payload), (position, &bytes[..]));
        assert_eq!(frame.next, writer.end());
        assert!(files(dir.path()).len() <= 4, "the bound holds");
    }
    assert!(reader.poll().unwrap().is_none());
}

fn files(dir: &std::path::Path) -> Vec<u64> {
    let segment = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("segment-").and_then(|n| n.parse().ok())
    };
    fs::read_dir(dir).unwrap().filter_map(segment).collect()
}

#[test]
fn of_the_released_segments_the_newest_are_kept_so_that_there_is_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        bytes_max: 10 * 4096,
        ..small()
    };
    let mut writer = Writer::open(dir.path(), &options).unwrap();
    let mut reader = open_reader(dir.path());
    // One to a segment: ten of them are as much as there may be.
    for _ in 0..10 {
        assert!(writer.wait_for_room(4000, MINUTE));
        writer.append(&[7; 4000]).unwrap();
    }
    drain(&mut reader);
    reader.release(reader.position());
    assert!(writer.wait_for_room(4000, MINUTE));
    // Two are prepared, out of the oldest one and of one of the two that are kept.
    let begun = Instant::now();
    let mut there = Vec::new();
    while there.last() != Some(&11) {
        assert!(begun.elapsed() < MINUTE, "{there:?}");
        there = files(dir.path());
        there.sort_unstable();
    }
    assert_eq!(there, [8, 9, 10, 11]);
}

#[test]
fn a_full_log_says_so_and_takes_frames_again_once_released() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    let mut appended = 0;
    loop {
        match writer.append(&[7; 1000]) {
            Ok(_) => appended += 1,
            Err(AppendError::Full) if writer.wait_for_room(1000, Duration::from_secs(1)) => {}
            Err(AppendError::Full) => break,
            Err(error) => panic!("{error}"),
        }
    }
    // Three frames of 1016 (1024) bytes fit into a segment of 4032.
    assert_eq!(appended, 4 * 3);
    assert!(writer.used_bytes() <= writer.bytes_max());
    assert!(
        writer.used_bytes() + 2 * 1024 > writer.bytes_max(),
        "used up to the last bytes"
    );
    // Another full log does not take a smaller frame than fits either.
    assert!(matches!(writer.append(&[7; 1000]), Err(AppendError::Full)));
    assert_eq!(drain(&mut reader).0.len(), appended);
    let waiting = thread::spawn(move || {
        assert!(writer.wait_for_room(1000, MINUTE));
        writer.append(&[8; 1000]).unwrap();
        writer
    });
    reader.release(reader.position());
    let writer = waiting.join().unwrap();
    assert_eq!(drain(&mut reader).0.len(), 1);
    assert!(writer.used_bytes() < 2048);
}

#[test]
fn frames_of_no_byte_and_of_the_largest_size_pass_and_larger_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    let max = writer.frame_len_max();
    assert_eq!(max, 4096 - 64 - 16);
    writer.append(&[]).unwrap();
    while matches!(writer.append(&vec![1; max]), Err(AppendError::Full)) {
        assert!(writer.wait_for_room(max, MINUTE));
    }
    assert!(
        matches!(writer.append(&vec![1; max + 1]), Err(AppendError::TooLarge { len, max: m }) if len == max + 1 && m == max)
    );
    let (frames, corrupt) = drain(&mut reader);
    let lengths: Vec<_> = frames.iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!((lengths, corrupt), (vec![0, max], vec![]));
}

#[test]
fn a_second_opener_of_either_side_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open_writer(dir.path());
    let reader = open_reader(dir.path());
    let second = Writer::open(dir.path(), &small()).err().unwrap();
    let me = std::process::id();
    assert!(
        matches!(&second, OpenError::InUse { role: Role::Writer, pid: Some(pid), .. } if *pid == me)
    );
    assert!(
        second
            .to_string()
            .contains(&dir.path().display().to_string())
    );
    let second = Reader::open(dir.path(), &ReaderOptions::default())
        .err()
        .unwrap();
    assert!(matches!(
        second,
        OpenError::InUse {
            role: Role::Reader,
            ..
        }
    ));
    drop((writer, reader));
    open_writer(dir.path());
    open_reader(dir.path());
}

#[test]
fn the_log_is_private_also_in_a_directory_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("deep/er");
    // Closed before it is looked at: a thread of the writer renames files.
    drop((open_writer(&path), open_reader(&path)));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let _writer = open_writer(dir.path());
    assert_eq!(mode(dir.path()), 0o700);
}

#[test]
fn a_log_that_is_not_there_and_options_out_of_range_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let error = Reader::open(&path, &ReaderOptions::default())
            .err()
            .unwrap();
        assert!(matches!(error, OpenError::NotThere { .. }));
    }
    for (segment_bytes, bytes_max) in [
        (0, 1 << 20),
        (5000, 1 << 20),
        (2 << 30, 8 << 30),
        (4096, 8191),
    ] {
        let options = LogOptions {
            segment_bytes,
            bytes_max,
            ..small()
        };
        let error = Writer::open(dir.path(), &options).err().unwrap();
        assert!(matches!(error, OpenError::Options { .. }), "{error}");
    }
}

#[test]
fn a_panic_while_a_frame_is_filled_leaves_the_log_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    writer.append(b"before").unwrap();
    let panicking = AssertUnwindSafe(|| {
        writer.append_with(100, |frame| {
            frame.fill(0xFF);
            panic!("on purpose");
        })
    });
    catch_unwind(panicking).unwrap_err();
    writer
        .append_with(100, |frame| assert_eq!(frame, [0; 100]))
        .unwrap();
    assert_eq!(drain(&mut reader).0.len(), 2);
}

#[test]
fn a_new_reader_begins_at_what_was_released_and_a_new_writer_goes_on_behind_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    for i in 0..6 {
        writer.append(&payload(i)).unwrap();
    }
    let mut third = 0;
    for _ in 0..3 {
        third = reader.poll().unwrap().unwrap().next;
    }
    // Not more than was polled can be released, and never less than before.
    reader.release(u64::MAX);
    assert_eq!((reader.released(), writer.released()), (third, third));
    reader.poll().unwrap().unwrap();
    reader.release(0);
    assert_eq!(reader.released(), third);
    let (end, epoch) = (writer.end(), writer.epoch());
    drop(reader);
    drop(writer);
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    assert_eq!(
        (writer.end(), writer.epoch(), reader.epoch()),
        (end, epoch, epoch)
    );
    assert_eq!(writer.append(&payload(6)).unwrap(), end);
    let numbers: Vec<_> = drain(&mut reader)
        .0
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    assert_eq!(numbers, (3..7).map(payload).collect::<Vec<_>>());
}

#[test]
fn each_side_sleeps_until_the_other_one_moves() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    let waiter = reader.waiter();
    let waiting = thread::spawn(move || {
        let mut seen = 0;
        for _ in 0..1000 {
            let end = waiter.wait_beyond(seen, MINUTE);
            assert!(end > seen);
            seen = end;
            reader.poll().unwrap().unwrap();
            reader.release(reader.position());
        }
    });
    let releases = writer.release_waiter();
    for _ in 0..1000 {
        let end = {
            while writer.append(b"frame").is_err() {
                assert!(writer.wait_for_room(5, MINUTE));
            }
            writer.end()
        };
        assert_eq!(releases.wait_beyond(end - 1, MINUTE), end);
        assert_eq!(writer.wait_for_release(end - 1, MINUTE), end);
    }
    waiting.join().unwrap();
}

#[test]
fn a_wait_ends_at_its_time_out_or_when_woken_even_if_woken_before() {
    let dir = tempfile::tempdir().unwrap();
    let _writer = open_writer(dir.path());
    let reader = open_reader(dir.path());
    let waiter = reader.waiter();
    let begun = Instant::now();
    assert_eq!(waiter.wait_beyond(0, Duration::from_millis(20)), 0);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    waiter.wake();
    let begun = Instant::now();
    assert_eq!(waiter.wait_beyond(0, 2 * MINUTE), 0);
    assert!(begun.elapsed() < MINUTE);
    let clone = waiter.clone();
    let waiting = thread::spawn(move || clone.wait_beyond(0, 2 * MINUTE));
    waiter.wake();
    assert_eq!(waiting.join().unwrap(), 0);
}

#[test]
fn every_sync_policy_takes_frames_and_interval_syncs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let synced = || {
        u64::from_le_bytes(
            fs::read(dir.path().join("cursor")).unwrap()[200..208]
                .try_into()
                .unwrap(),
        )
    };
    for sync in [
        SyncPolicy::None,
        SyncPolicy::Always,
        SyncPolicy::Interval(Duration::from_millis(5)),
    ] {
        let mut writer = Writer::open(dir.path(), &LogOptions { sync, ..small() }).unwrap();
        writer.append(&payload(1)).unwrap();
        if let SyncPolicy::Interval(_) = sync {
            let begun = Instant::now();
            while synced() != writer.end() {
                assert!(begun.elapsed() < MINUTE);
                thread::yield_now();
            }
        }
        writer.append(&payload(2)).unwrap();
        writer.sync().unwrap();
        assert_eq!(synced(), writer.end());
    }
    assert_eq!(drain(&mut open_reader(dir.path())).0.len(), 6);
}

#[test]
fn counters_are_seen_by_others_and_begin_anew_in_the_same_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters");
    let ours = Counters::create(&path, 3).unwrap();
    let theirs = Counters::open(&path).unwrap();
    ours.add(1, 5);
    ours.add(1, 2);
    ours.set(2, u64::MAX);
    ours.add(3, 1);
    assert_eq!([0, 1, 2, 3].map(|i| theirs.get(i)), [0, 7, u64::MAX, 0]);
    theirs.set(0, 9);
    assert_eq!(ours.get(0), 0, "a page opened to look at stays as it is");
    drop(ours);
    let ours = Counters::create(&path, 3).unwrap();
    ours.set(0, 1);
    assert_eq!([0, 1, 2].map(|i| theirs.get(i)), [1, 0, 0]);
    Counters::create(&path, 5).unwrap();
    assert_eq!(Counters::open(&path).unwrap().len(), 5);
    fs::write(&path, b"no counters").unwrap();
    assert!(matches!(
        Counters::open(&path),
        Err(OpenError::Corrupt { .. })
    ));
    Counters::create(&path, 5).unwrap();
}

#[test]
fn a_frame_that_was_polled_can_be_polled_again_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    let at: Vec<u64> = (0..30)
        .map(|i| writer.append(&payload(i)).unwrap())
        .collect();
    let (frames, _) = drain(&mut reader);
    reader.release(at[20]);
    reader.rewind(at[25]);
    assert_eq!(drain(&mut reader).0, frames[25..]);
    // Not before what is released, and not forward.
    reader.rewind(0);
    assert_eq!(reader.position(), at[20]);
    reader.rewind(writer.end());
    assert_eq!(drain(&mut reader).0, frames[20..]);
    reader.release(writer.end());
    assert_eq!(reader.released_frames(), 30, "each counts once");
}

#[test]
fn a_reader_that_copies_looks_at_one_large_padding_a_poll() {
    let dir = tempfile::tempdir_in(fast()).unwrap();
    let options = LogOptions {
        segment_bytes: 8 << 20,
        bytes_max: 32 << 20,
        ..small()
    };
    let mut writer = Writer::open(dir.path(), &options).unwrap();
    writer.append(b"small").unwrap();
    let large = vec![1; writer.frame_len_max()];
    assert!(writer.wait_for_room(large.len(), MINUTE));
    let second = writer.append(&large).unwrap();
    let mut reader = Reader::open(dir.path(), &ReaderOptions::guarded()).unwrap();
    assert_eq!(reader.poll().unwrap().unwrap().payload, b"small");
    assert!(reader.poll().unwrap().is_none());
    assert!(reader.position() == second && reader.end() > second);
    assert_eq!(reader.poll().unwrap().unwrap().payload, large);
    // One that maps is at no other thread's expense.
    drop(reader);
    let mut reader = open_reader(dir.path());
    assert_eq!(reader.poll().unwrap().unwrap().payload, b"small");
    assert_eq!(reader.poll().unwrap().unwrap().payload, large);
}
