//! Counters that outlive their process, and change together.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use handoff::Counters;

#[test]
fn counters_that_are_kept_go_on_and_grow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters");
    Counters::keep(&path, 3).unwrap().set_all(&[(0, 7), (2, 9)]);
    let again = Counters::keep(&path, 3).unwrap();
    again.add(1, 1);
    assert_eq!([0, 1, 2].map(|i| again.get(i)), [7, 1, 9]);
    let more = Counters::keep(&path, 5).unwrap();
    more.set_all(&[(4, 4), (0, 8)]);
    assert_eq!([0, 1, 2, 3, 4].map(|i| more.get(i)), [8, 1, 9, 0, 4]);
    // An older process goes on with those of a newer one.
    assert_eq!(Counters::keep(&path, 2).unwrap().get(4), 4);
    std::fs::write(&path, b"no counters").unwrap();
    assert_eq!(Counters::keep(&path, 2).unwrap().get(0), 0);
}

#[test]
fn a_page_of_an_older_version_without_room_for_changes_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters");
    Counters::create(&path, 2).unwrap().set(1, 5);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(64 + 16).unwrap();
    assert_eq!(Counters::open(&path).unwrap().get(1), 5);
    let kept = Counters::keep(&path, 2).unwrap();
    kept.set_all(&[(0, 1)]);
    assert_eq!([kept.get(0), kept.get(1)], [1, 5]);
}

#[test]
fn what_was_begun_is_done_and_what_was_not_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters");
    Counters::keep(&path, 2).unwrap().set_all(&[(0, 1), (1, 1)]);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let behind = 64 + 2 * 8;
    // Killed while it wrote down what it wanted to change.
    file.write_all_at(&2_u64.to_le_bytes(), behind + 32)
        .unwrap();
    assert_eq!(Counters::open(&path).unwrap().get(0), 1);
    // Killed right after it had begun: counter 0 shall be 2.
    file.write_all_at(&2_u64.to_le_bytes(), behind).unwrap();
    assert_eq!(
        Counters::open(&path).unwrap().get(0),
        2,
        "also for who only looks"
    );
    let kept = Counters::keep(&path, 2).unwrap();
    assert_eq!([kept.get(0), kept.get(1)], [2, 1]);
    kept.set(0, 5);
    drop(kept);
    assert_eq!(Counters::keep(&path, 2).unwrap().get(0), 5, "once");
}

const CHILD_DIR: &str = "HANDOFF_COUNTERS_DIR";

/// Not a test by itself: the process that is killed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let counters = Counters::keep(&Path::new(&dir).join("counters"), 64).unwrap();
    loop {
        let next = counters.get(0) + 1;
        let changes: Vec<_> = (0..64).map(|i| (i, next)).collect();
        counters.set_all(&changes);
    }
}

#[test]
fn counters_that_change_as_one_are_equal_whenever_their_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters");
    let mut before = 0;
    for _ in 0..30 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--test-threads=1"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Counters::open(&path).map_or(0, |counters| counters.get(0)) < before + 100 {
            assert!(Instant::now() < deadline, "the child does not count");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = Counters::open(&path).unwrap();
        before = found.get(0);
        for i in 0..64 {
            assert_eq!(found.get(i), before, "counter {i}");
        }
    }
}
