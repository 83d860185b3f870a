//! A look from outside sees what waits, and disturbs nobody.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::{open_reader, open_writer, payload};
use handoff::{OpenError, Peek, ReadError};

fn all(peek: &mut Peek) -> common::Drained {
    let (mut frames, mut corrupt) = (Vec::new(), Vec::new());
    loop {
        match peek.poll() {
            Ok(Some(frame)) => frames.push((frame.position, frame.payload.to_vec())),
            Ok(None) => return (frames, corrupt),
            Err(ReadError::Corrupt { from, to, .. }) => {
                assert!(to > from, "it moves on");
                corrupt.push((from, to));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_waits_is_seen_beside_the_writer_and_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    let mut positions = Vec::new();
    for i in 0..40 {
        positions.push(writer.append(&payload(i)).unwrap());
    }
    for _ in 0..10 {
        let next = reader.poll().unwrap().unwrap().next;
        reader.release(next);
    }
    let mut peek = Peek::open(dir.path()).unwrap();
    writer.append(b"later").unwrap();
    let (frames, corrupt) = all(&mut peek);
    assert!(corrupt.is_empty());
    let wanted: Vec<_> = (10..40)
        .map(|i| (positions[i as usize], payload(i)))
        .collect();
    assert_eq!(frames, wanted, "released ones and later ones are not in it");
    assert_eq!(
        (peek.released(), peek.epoch()),
        (positions[10], writer.epoch())
    );
    // The reader is where it was, and everything is still there.
    assert_eq!(reader.poll().unwrap().unwrap().payload, payload(10));
    assert_eq!(writer.released(), positions[10]);
    // What is released and still in its segment can be seen too.
    peek.seek(peek.oldest());
    assert_eq!(all(&mut peek).0[0], (0, payload(0)));
}

#[test]
fn no_lock_is_needed_and_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    open_writer(dir.path()).append(b"one").unwrap();
    let mut peek = Peek::open(dir.path()).unwrap();
    let (_writer, _reader) = (open_writer(dir.path()), open_reader(dir.path()));
    assert_eq!(all(&mut peek).0.len(), 1);
}

#[test]
fn what_is_released_and_recycled_meanwhile_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let mut reader = open_reader(dir.path());
    while writer.append(&payload(1)).is_ok() {}
    let mut peek = Peek::open(dir.path()).unwrap();
    let first = peek.poll().unwrap().unwrap().position;
    // Everything is done with, and the segments are used again.
    let (_, corrupt) = common::drain(&mut reader);
    assert!(corrupt.is_empty());
    reader.release(reader.position());
    for _ in 0..60 {
        while writer.append(&payload(2)).is_err() {
            std::thread::yield_now();
        }
        let next = reader.poll().unwrap().unwrap().next;
        reader.release(next);
    }
    let (frames, corrupt) = all(&mut peek);
    assert!(corrupt.is_empty(), "{corrupt:?}");
    assert!(
        frames
            .iter()
            .all(|(at, bytes)| *at > first && *bytes == payload(1))
    );
}

#[test]
fn damage_is_told_once_and_read_on_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    let at: Vec<_> = (0..5)
        .map(|i| writer.append(&payload(i)).unwrap())
        .collect();
    let segment = dir.path().join("segment-0000000000");
    let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
    // One byte is mended, more of them are not.
    file.write_all_at(&[0xFF], 64 + at[1] + 20).unwrap();
    file.write_all_at(&[0xFF, 0xFE], 64 + at[2] + 20).unwrap();
    let (frames, corrupt) = all(&mut Peek::open(dir.path()).unwrap());
    assert_eq!(corrupt, [(at[2], at[3])]);
    let wanted = [0, 1, 3, 4].map(|i| (at[i], payload(i as u64)));
    assert_eq!(frames, wanted);
}

#[test]
fn a_log_without_its_cursor_page_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_writer(dir.path());
    for i in 0..30 {
        writer.append(&payload(i)).unwrap();
    }
    let epoch = writer.epoch();
    drop(writer);
    for damage in [false, true] {
        let cursor = dir.path().join("cursor");
        if damage {
            fs::write(&cursor, [7; 4096]).unwrap();
        } else {
            fs::remove_file(&cursor).unwrap();
        }
        let mut peek = Peek::open(dir.path()).unwrap();
        assert_eq!(peek.epoch(), epoch);
        let (frames, corrupt) = all(&mut peek);
        assert!(corrupt.is_empty(), "{corrupt:?}");
        assert_eq!(frames.len(), 30);
    }
}

#[test]
fn where_there_is_no_log_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("none")] {
        assert!(matches!(Peek::open(&path), Err(OpenError::NotThere { .. })));
    }
}
