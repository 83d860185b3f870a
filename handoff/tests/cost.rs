//! What an append costs: no allocation, and no system call while the reader is awake.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write as _};
use std::process::{Command, Stdio};

use handoff::{LogOptions, Reader, ReaderOptions, SyncPolicy, Writer};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const APPENDS: usize = 50_000;

fn options() -> LogOptions {
    LogOptions {
        sync: SyncPolicy::None,
        ..LogOptions::default()
    }
}

#[test]
fn appending_and_polling_allocate_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), &options()).unwrap();
    let mut reader = Reader::open(dir.path(), &ReaderOptions::default()).unwrap();
    writer.append(b"first").unwrap();
    reader.poll().unwrap();
    let before = ALLOCATIONS.get();
    for _ in 0..APPENDS {
        writer.append(&[1; 200]).unwrap();
        let next = reader.poll().unwrap().unwrap().next;
        reader.release(next);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn appending_calls_the_system_nothing_while_the_reader_is_awake() {
    const DIR: &str = "HANDOFF_TEST_DIR";
    if let Some(dir) = std::env::var_os(DIR) {
        let mut writer = Writer::open(dir.as_ref(), &options()).unwrap();
        let mut out = std::io::stderr();
        // SAFETY: from here on this thread may read, write and exit; the kernel kills it (SIGKILL) at any other call.
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
        for _ in 0..APPENDS {
            if writer.append(&[1; 200]).is_err() {
                break;
            }
        }
        out.write_all(if writer.end() == APPENDS as u64 * 224 {
            b"done"
        } else {
            b"full"
        })
        .unwrap();
        // No way out but to be killed at the next call.
        drop(writer);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "appending_calls_the_system_nothing_while_the_reader_is_awake",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 4];
    let read = child.stderr.take().unwrap().read_exact(&mut said);
    child.kill().unwrap();
    child.wait().unwrap();
    read.expect("the thread was killed for a system call");
    assert_eq!(&said, b"done");
}
