//! A disk that does not take what is synced.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::thread;

use common::{drain, open_reader, small};
use handoff::{AppendError, LogOptions, SyncPolicy, Writer};

/// Makes every `fdatasync` of this thread, and of those that it starts from now on, fail with EIO.
fn break_syncing() {
    let step = |code: u32, k: u32, jf: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let mut program = [
        // The call's number, which stands at the start of `seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_fdatasync as u32,
            1,
        ),
        step(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EIO as u32,
            0,
        ),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: both calls change this thread alone; the program lives until the kernel has copied it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &filter), 0);
    }
}

#[test]
fn a_frame_that_could_not_be_synced_is_in_the_log_once_and_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let appending = thread::spawn(move || {
        let options = LogOptions {
            sync: SyncPolicy::Always,
            ..small()
        };
        let mut writer = Writer::open(&path, &options).unwrap();
        writer.append(b"on the disk").unwrap();
        break_syncing();
        let end = writer.end();
        let error = writer.append(b"in the log").unwrap_err();
        assert!(
            matches!(error, AppendError::NotSynced { position, .. } if position == end),
            "{error}"
        );
        assert!(writer.end() > end);
    });
    appending.join().unwrap();
    let frames = drain(&mut open_reader(dir.path())).0;
    let frames: Vec<_> = frames.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(frames, [&b"on the disk"[..], b"in the log"]);
}
