//! kill -9 of the writing process at random moments.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{open_reader, payload};
use handoff::{AppendError, LogOptions, Reader, SyncPolicy, Writer};

const KILLS: u64 = 300;
const DIR: &str = "HANDOFF_TEST_DIR";
const RUN: &str = "HANDOFF_TEST_RUN";

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        bytes_max: 256 << 10,
        sync: SyncPolicy::None,
        ..LogOptions::default()
    }
}

/// What frame `i` of `run` holds: enough to check every byte.
fn frame(run: u64, i: u64) -> Vec<u8> {
    let mut out = run.to_le_bytes().to_vec();
    out.extend(payload(i));
    // Now and then a large one, so that the kill also hits the middle of a copy.
    if i % 7 == 3 {
        out.resize(6000, 0xA5);
    }
    out
}

/// The process that gets killed: appends, and reports each frame on stderr once it is appended.
fn write_until_killed(dir: &Path, run: u64) -> ! {
    let mut writer = Writer::open(dir, &options()).unwrap();
    let mut report = std::io::stderr();
    let mut i = 0;
    loop {
        match writer.append(&frame(run, i)) {
            Ok(position) => {
                let mut line = i.to_le_bytes().to_vec();
                line.extend(position.to_le_bytes());
                report.write_all(&line).unwrap();
                i += 1;
            }
            Err(AppendError::Full) => {
                writer.wait_for_room(6000, Duration::from_secs(60));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &Path, run: u64, test: &str) -> Killed {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .env(RUN, run.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Killed(child)
}

/// Is this process the one to be killed?
fn child() {
    if let (Some(dir), Ok(run)) = (std::env::var_os(DIR), std::env::var(RUN)) {
        write_until_killed(&PathBuf::from(dir), run.parse().unwrap());
    }
}

/// Lets a writer run, kills it, and returns how many frames it had reported. `read` is called meanwhile.
fn run_and_kill(dir: &Path, run: u64, test: &str, mut read: impl FnMut()) -> Vec<(u64, u64)> {
    let mut killed = spawn(dir, run, test);
    let mut reports = killed.0.stderr.take().unwrap();
    // SAFETY: a call on an open descriptor that touches no memory.
    unsafe { libc::fcntl(reports.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let mut bytes = Vec::new();
    let born = Instant::now();
    // Some kills come during the opening; the others up to some thousand frames after the first one, however slow the machine is.
    if !run.is_multiple_of(5) {
        while bytes.is_empty() && born.elapsed() < Duration::from_secs(60) {
            read();
            let _ = reports.read_to_end(&mut bytes);
        }
    }
    let life = Duration::from_micros((run * 7919) % 9000);
    let begun = Instant::now();
    while begun.elapsed() < life {
        read();
        let _ = reports.read_to_end(&mut bytes);
    }
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    let _ = reports.read_to_end(&mut bytes);
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
    bytes
        .chunks_exact(16)
        .map(|c| (word(&c[..8]), word(&c[8..])))
        .collect()
}

/// Polls everything, checks each frame's bytes, and notes its run, number and position.
fn collect(reader: &mut Reader, seen: &mut Vec<(u64, u64, u64)>) {
    while let Some(polled) = reader.poll().expect("kill -9 corrupts nothing") {
        let word = |at: usize| u64::from_le_bytes(polled.payload[at..at + 8].try_into().unwrap());
        let (run, i) = (word(0), word(8));
        assert_eq!(polled.payload, frame(run, i));
        seen.push((run, i, polled.position));
        let next = polled.next;
        reader.release(next);
    }
}

/// Each run's reported frames came in order, once; at most one more, which was committed but not reported when the kill came.
fn check(reported: &[Vec<(u64, u64)>], seen: &[(u64, u64, u64)]) {
    let mut seen = seen.iter().peekable();
    for (run, reported) in reported.iter().enumerate() {
        let mut of_run = Vec::new();
        while let Some(&(_, i, position)) = seen.next_if(|(r, _, _)| *r == run as u64) {
            of_run.push((i, position));
        }
        let more = of_run.len().saturating_sub(reported.len());
        assert!(
            more <= 1 && of_run[..reported.len().min(of_run.len())] == reported[..],
            "run {run}"
        );
        assert_eq!(of_run.last().map_or(0, |(i, _)| i + 1), of_run.len() as u64);
    }
    assert_eq!(seen.next(), None);
}

#[test]
fn every_reported_frame_is_read_once_over_kills_of_the_writer_by_a_reader_that_goes_on() {
    child();
    let dir = tempfile::tempdir().unwrap();
    drop(Writer::open(dir.path(), &options()).unwrap());
    let mut reader = open_reader(dir.path());
    let (mut reported, mut seen) = (Vec::new(), Vec::new());
    let test =
        "every_reported_frame_is_read_once_over_kills_of_the_writer_by_a_reader_that_goes_on";
    for run in 0..KILLS {
        reported.push(run_and_kill(dir.path(), run, test, || {
            collect(&mut reader, &mut seen)
        }));
        collect(&mut reader, &mut seen);
    }
    // What was committed and not published comes with the next writer.
    drop(Writer::open(dir.path(), &options()).unwrap());
    collect(&mut reader, &mut seen);
    check(&reported, &seen);
    assert!(
        reported.iter().map(Vec::len).sum::<usize>() > KILLS as usize,
        "the kills hit writers at work"
    );
}

#[test]
fn every_reported_frame_is_read_once_after_kills_by_a_reader_that_comes_anew() {
    child();
    let dir = tempfile::tempdir().unwrap();
    let (mut reported, mut seen) = (Vec::new(), Vec::new());
    let test = "every_reported_frame_is_read_once_after_kills_by_a_reader_that_comes_anew";
    for run in 0..KILLS / 3 {
        reported.push(run_and_kill(dir.path(), run, test, || {
            std::thread::sleep(Duration::from_micros(100))
        }));
        // The first kills may come before there is a log.
        drop(Writer::open(dir.path(), &options()).unwrap());
        collect(&mut open_reader(dir.path()), &mut seen);
    }
    check(&reported, &seen);
}
