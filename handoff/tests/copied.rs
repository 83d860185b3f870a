//! A log whose files are copied one after the other while both sides are at work, and that is opened from the copy: a backup, or a careless move.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::{drain, fast, open_reader, payload, restart_machine};
use handoff::{AppendError, LogOptions, Reader, SyncPolicy, Writer};

const MINUTE: Duration = Duration::from_secs(60);
const COPIES: u64 = 40;

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        bytes_max: 128 << 10,
        sync: SyncPolicy::None,
        ..LogOptions::default()
    }
}

/// Both sides at work in threads of their own, and what they have come to.
#[derive(Default)]
struct Load {
    appended: AtomicU64,
    released: AtomicU64,
    stop: AtomicBool,
}

fn append_until_stopped(mut writer: Writer, load: &Load) {
    let mut number = 0;
    while !load.stop.load(SeqCst) {
        match writer.append(&payload(number)) {
            Ok(_) => {
                number += 1;
                load.appended.store(number, SeqCst);
            }
            Err(AppendError::Full) => {
                writer.wait_for_room(300, Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads on, and releases up to some frames behind: so that there always are some.
fn read_until_stopped(mut reader: Reader, load: &Load) {
    let mut polled = std::collections::VecDeque::new();
    while !load.stop.load(SeqCst) {
        match reader.poll().unwrap() {
            Some(frame) => polled.push_back(frame.next),
            None => thread::yield_now(),
        }
        if polled.len() > 300 {
            for _ in 0..100 {
                let next = polled.pop_front().unwrap();
                // Counted first: what was released may be missing, and nothing else.
                load.released.fetch_add(1, SeqCst);
                reader.release(next);
            }
        }
    }
}

/// Copies a file in small pieces with pauses between them.
fn copy_slowly(from: &Path, to: &Path, pause: Duration) {
    let Ok(mut from) = fs::File::open(from) else {
        // Reused under another name meanwhile.
        return;
    };
    let mut to = fs::File::create(to).unwrap();
    let mut piece = [0; 2048];
    loop {
        let n = from.read(&mut piece).unwrap();
        if n == 0 {
            return;
        }
        to.write_all(&piece[..n]).unwrap();
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
}

/// Copies the log: the names are listed once, then copied in this order, the cursor page first or last.
fn copy(from: &Path, to: &Path, run: u64) {
    let mut names: Vec<PathBuf> = fs::read_dir(from)
        .unwrap()
        .map(|entry| PathBuf::from(entry.unwrap().file_name()))
        .filter(|name| name.as_os_str() != "cursor")
        .collect();
    names.sort();
    if run & 1 == 1 {
        names.reverse();
    }
    let at = if run & 2 == 2 { 0 } else { names.len() };
    names.insert(at, "cursor".into());
    let pause = Duration::from_micros([0, 50, 400][(run / 4 % 3) as usize]);
    for name in names {
        copy_slowly(&from.join(&name), &to.join(&name), pause);
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// What the copy holds: every frame of `first..behind`, in order and once.
fn check(dir: &Path, first: u64, behind: u64, run: u64) {
    let mut writer = Writer::open(dir, &options()).unwrap();
    let mut reader = open_reader(dir);
    let frames = drain(&mut reader).0;
    let numbers: Vec<u64> = frames.iter().map(|(_, bytes)| number(bytes)).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "run {run}: {numbers:?}");
    for (number, (_, bytes)) in numbers.iter().zip(&frames) {
        assert_eq!(bytes, &payload(*number), "run {run}");
    }
    let missing: Vec<u64> = (first..behind)
        .filter(|n| numbers.binary_search(n).is_err())
        .collect();
    assert!(
        missing.is_empty(),
        "run {run}: of {first}..{behind} there are {numbers:?}"
    );
    // The log goes on, and what comes now is read behind all that.
    reader.release(reader.position());
    for i in 0..200 {
        while matches!(writer.append(&payload(i)), Err(AppendError::Full)) {
            assert!(writer.wait_for_room(300, MINUTE), "run {run}");
        }
        let (frames, corrupt) = drain(&mut reader);
        assert_eq!((frames.len(), corrupt), (1, vec![]), "run {run}");
        assert_eq!(frames[0].1, payload(i));
        reader.release(reader.position());
    }
}

#[test]
fn a_copy_taken_file_by_file_under_load_has_all_that_was_there_throughout() {
    let dir = tempfile::tempdir_in(fast()).unwrap();
    let writer = Writer::open(dir.path(), &options()).unwrap();
    let reader = open_reader(dir.path());
    let load = Arc::new(Load::default());
    let stop_at_end = StopAtEnd(Arc::clone(&load));
    let (appending, reading) = (Arc::clone(&load), Arc::clone(&load));
    let appending = thread::spawn(move || append_until_stopped(writer, &appending));
    let reading = thread::spawn(move || read_until_stopped(reader, &reading));
    let mut held = 0;
    for run in 0..COPIES {
        // On the whole a hundred thousand frames go through meanwhile; each copy begins somewhere else.
        let begun = Instant::now();
        let (appended, goal) = (load.appended.load(SeqCst), 500 + run * 7);
        while load.appended.load(SeqCst) < appended + goal {
            assert!(begun.elapsed() < MINUTE);
            thread::yield_now();
        }
        let copied = tempfile::tempdir_in(fast()).unwrap();
        let behind = load.appended.load(SeqCst);
        copy(dir.path(), copied.path(), run);
        let first = load.released.load(SeqCst);
        held += behind.saturating_sub(first);
        if run & 4 == 4 {
            restart_machine(copied.path());
        }
        check(copied.path(), first, behind, run);
    }
    drop(stop_at_end);
    appending.join().unwrap();
    reading.join().unwrap();
    assert!(held > 100, "the copies were too slow to hold anything");
}

struct StopAtEnd(Arc<Load>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop.store(true, SeqCst);
    }
}
