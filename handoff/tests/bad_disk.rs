//! A disk that does not take what is synced, and one that does not give what it has.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::thread;
use std::time::Duration;

use common::{drain, open_reader, restart_machine, small};
use handoff::{AppendError, LogOptions, SyncPolicy, Writer};

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// Where `seccomp_data` has the call's number, and the lower halves of its third and fourth argument (on a little-endian machine).
const NUMBER: u32 = 0;
const THIRD: u32 = 32;
const FOURTH: u32 = 40;
const FAIL: u32 = libc::SECCOMP_RET_ERRNO | libc::EIO as u32;

fn step(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

/// Passes over `jt` steps when the condition holds, else over `jf`.
fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}

/// Has the kernel judge each system call of this thread, and of those that it starts from now on, by `program`.
fn judge_calls(program: &mut [libc::sock_filter]) {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: both calls change this thread alone; the program lives until the kernel has copied it.
    unsafe {
        let (one, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
        let on = libc::PR_SET_NO_NEW_PRIVS;
        assert_eq!(libc::prctl(on, one, none, none, none), 0);
        let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &filter), 0);
    }
}

/// Makes every `fdatasync` fail with EIO.
fn break_syncing() {
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    judge_calls(&mut [
        step(LOAD, NUMBER),
        jump(equal, libc::SYS_fdatasync as u32, 0, 1),
        step(RETURN, FAIL),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// Makes every `pread` fail with EIO that would give the byte at offset `bad` of a file.
fn break_reading(bad: u32) {
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let greater = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    let add = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X;
    judge_calls(&mut [
        step(LOAD, NUMBER),
        jump(equal, libc::SYS_pread64 as u32, 0, 7),
        step(LOAD, FOURTH),
        jump(greater, bad, 5, 0),
        step(libc::BPF_MISC | libc::BPF_TAX, 0),
        step(LOAD, THIRD),
        step(add, 0),
        jump(greater, bad, 0, 1),
        step(RETURN, FAIL),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
}

#[test]
fn a_page_that_the_disk_does_not_give_costs_no_other_frame_and_no_start() {
    for restarted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let options = LogOptions {
            segment_bytes: 64 << 10,
            bytes_max: 256 << 10,
            ..small()
        };
        let mut writer = Writer::open(&path, &options).unwrap();
        let frames: Vec<_> = (0..30u8)
            .map(|i| (writer.append(&[i; 1000]).unwrap(), vec![i; 1000]))
            .collect();
        drop(writer);
        if restarted {
            restart_machine(&path);
        }
        let opening = thread::spawn(move || {
            // In the page of frames 19 to 23.
            break_reading(5 << 12);
            let writer = Writer::open(&path, &options).unwrap();
            assert_eq!(
                writer.end() % (options.segment_bytes - 64),
                0,
                "no new segment"
            );
            writer.frames()
        });
        let counted = opening.join().unwrap();
        assert_eq!(counted, 25);
        // For this thread the disk is as good as ever.
        assert_eq!(drain(&mut open_reader(dir.path())).0, frames);
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

#[test]
fn the_padding_of_a_segment_that_is_full_is_synced_before_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let appending = thread::spawn(move || {
        let options = LogOptions {
            sync: SyncPolicy::Always,
            ..small()
        };
        let mut writer = Writer::open(&path, &options).unwrap();
        for _ in 0..3 {
            writer.append(&[1; 1000]).unwrap();
        }
        assert!(writer.wait_for_room(1000, Duration::from_secs(60)));
        break_syncing();
        let error = writer.append(&[1; 1000]).unwrap_err();
        assert!(matches!(error, AppendError::Io(_)), "{error}");
        let error = writer.append(&[1; 1000]).unwrap_err();
        assert!(matches!(error, AppendError::NotSynced { .. }), "{error}");
    });
    appending.join().unwrap();
    assert_eq!(drain(&mut open_reader(dir.path())).0.len(), 4);
}
