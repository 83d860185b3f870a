//! A disk that is full.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{drain, file, open_reader, restart_machine, segment, small};
use handoff::{AppendError, LogOptions, OpenError, Writer};

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

/// Mounts one at `place`, if this process may.
fn mount(place: &Path) -> Option<Tiny> {
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=300k", "none"])
        .arg(place)
        .status();
    let mounted = mounted.is_ok_and(|status| status.success());
    mounted.then(|| Tiny(place.to_owned()))
}

#[test]
fn a_sparse_segment_is_not_written_to_when_the_disk_is_full() {
    let place = tempfile::tempdir().unwrap();
    let Some(_tiny) = mount(place.path()) else {
        return;
    };
    let dir = place.path().join("log");
    let options = LogOptions {
        segment_bytes: 64 << 10,
        bytes_max: 1 << 20,
        ..small()
    };
    let mut writer = Writer::open(&dir, &options).unwrap();
    let position = writer.append(b"kept").unwrap();
    drop(writer);
    // As a copy that leaves out what is zero: one page is there, and no room for the others.
    let sparse = file(&segment(&dir, 0));
    sparse.set_len(4096).unwrap();
    sparse.set_len(options.segment_bytes).unwrap();
    let ballast = place.path().join("ballast");
    fs::write(&ballast, vec![1; 300 << 10]).unwrap_err();
    restart_machine(&dir);
    // Without room there is no new segment; what must not come is a signal.
    let opened = Writer::open(&dir, &options);
    assert!(matches!(opened, Err(OpenError::NoSpace { .. })));
    fs::remove_file(&ballast).unwrap();
    let _writer = Writer::open(&dir, &options).unwrap();
    let (frames, _) = drain(&mut open_reader(&dir));
    assert_eq!(frames, [(position, b"kept".to_vec())]);
}

#[test]
fn a_full_disk_is_named_and_the_log_goes_on_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let tiny = mount(place.path());
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
