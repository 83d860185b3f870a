//! The thread that starts the sidecar, reads its log lines, and starts it again.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::child::{Run, start};
use crate::ffi::sys::{self, EventFd};

/// Longest line of the sidecar's that is logged; the rest of a longer one is cut.
const LINE_BYTES_MAX: usize = 4096;
/// Bytes read at once, and how often in a row: as much as a pipe holds. A sidecar that never stops writing must not keep
/// this thread from looking whether it is to end, because Mosquitto waits for that.
const PIECE_BYTES: usize = 4096;
const READS_AT_ONCE: u32 = 16;
/// A process whose standard error lives on in another one is still noticed this soon.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<PathBuf>,
    /// How long it may take to end when it is asked to.
    pub(crate) patience: Duration,
}

/// Keeps one sidecar running until it is stopped.
pub(crate) struct Supervisor {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    starts: Arc<AtomicU64>,
}

struct Stop {
    asked: AtomicBool,
    event: EventFd,
}

impl Stop {
    fn asked(&self) -> bool {
        // Pairs with the release in `Supervisor::stop`.
        self.asked.load(Ordering::Acquire)
    }
}

impl Supervisor {
    /// Starts the thread, and it the sidecar.
    pub(crate) fn start(command: Command) -> io::Result<Supervisor> {
        let stop = Arc::new(Stop {
            asked: AtomicBool::new(false),
            event: EventFd::new()?,
        });
        let starts = Arc::new(AtomicU64::new(0));
        let thread = {
            let (stop, starts) = (Arc::clone(&stop), Arc::clone(&starts));
            sys::spawn_quiet("mrmq-sidecar", move || supervise(&command, &stop, &starts))?
        };
        Ok(Supervisor {
            stop,
            thread: Some(thread),
            starts,
        })
    }

    /// How many were started so far.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed) // a count only: orders nothing
    }

    /// Asks the sidecar to end, waits for it within the bound, ends it otherwise, and joins the thread.
    pub(crate) fn stop(&mut self) {
        self.stop.asked.store(true, Ordering::Release);
        self.stop.event.signal();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that watches the sidecar panicked");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

fn supervise(command: &Command, stop: &Stop, starts: &AtomicU64) {
    let mut backoff = Backoff::new();
    while !stop.asked() {
        let began = Instant::now();
        match start(&command.program, &command.arguments) {
            Ok(run) => {
                starts.fetch_add(1, Ordering::Relaxed);
                log::info!("sidecar started (process {})", run.child.id());
                watch(run, command.patience, stop);
            }
            Err(error) => log::error!(
                "can't start the sidecar `{}`: {error}",
                command.program.display()
            ),
        }
        if stop.asked() {
            return;
        }
        let wait = backoff.after(began.elapsed());
        if wait.is_zero() {
            log::warn!("starting the sidecar again");
        } else {
            log::warn!("starting the sidecar again in {} ms", wait.as_millis());
            sys::poll_readable(&[stop.event.raw()], wait);
        }
    }
}

/// Until the sidecar has ended and is reaped.
fn watch(mut run: Run, patience: Duration, stop: &Stop) {
    let mut lines = Lines::default();
    let mut deadline = None;
    let mut killed = false;
    let mut stderr_open = true;
    loop {
        if stop.asked() && deadline.is_none() {
            run.lifeline = None;
            sys::terminate(run.child.id());
            deadline = Some(Instant::now() + patience);
        }
        stderr_open = stderr_open && lines.read(&mut run.stderr);
        match run.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                lines.read(&mut run.stderr);
                lines.finish();
                report(status, stop.asked());
                return;
            }
            Err(error) => {
                log::error!("lost track of the sidecar: {error}");
                return;
            }
        }
        if deadline.is_some_and(|at| Instant::now() >= at) {
            if std::mem::replace(&mut killed, true) {
                // In the kernel, for good (a disk that does not answer): Mosquitto must end all the same.
                log::error!("the sidecar (process {}) can't be killed", run.child.id());
                return;
            }
            log::warn!(
                "the sidecar did not end within {} s: killed",
                patience.as_secs()
            );
            if let Err(error) = run.child.kill() {
                log::error!("can't kill the sidecar: {error}");
            }
            deadline = Some(Instant::now() + patience);
        }
        let wait = deadline.map_or(LOOK_EVERY, |at| {
            at.saturating_duration_since(Instant::now()).min(LOOK_EVERY)
        });
        let stderr = run.stderr.as_raw_fd();
        match (stderr_open, deadline) {
            (true, None) => sys::poll_readable(&[stderr, stop.event.raw()], wait),
            (true, Some(_)) => sys::poll_readable(&[stderr], wait),
            // Its standard error is closed: it is about to end.
            (false, _) => std::thread::sleep(wait.min(Duration::from_millis(10))),
        }
    }
}

fn report(status: std::process::ExitStatus, asked: bool) {
    match (asked, status.code()) {
        (true, Some(0)) => log::info!("sidecar ended: everything was sent"),
        (true, Some(3)) => {
            log::warn!("sidecar ended with messages left; they are safe in the spool")
        }
        _ => log::warn!("sidecar ended: {status}"),
    }
}

/// Splits what the sidecar writes into lines, and logs them.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    /// Reads what is there, up to a bound. False at the end of the stream.
    fn read(&mut self, from: &mut impl Read) -> bool {
        let mut piece = [0_u8; PIECE_BYTES];
        for _ in 0..READS_AT_ONCE {
            match from.read(&mut piece) {
                Ok(0) => return false,
                Ok(n) => self.take(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.finish();
            } else if self.buffer.len() < LINE_BYTES_MAX {
                self.buffer.push(*byte);
            }
        }
    }

    fn finish(&mut self) {
        if !self.buffer.is_empty() {
            let text = String::from_utf8_lossy(&self.buffer);
            let (level, rest) = level_of(&text);
            log::log!(level, "sidecar: {rest}");
            self.buffer.clear();
        }
    }
}

/// The sidecar writes `LEVEL message`; what has no level (a panic, the loader's complaint) is an error.
fn level_of(line: &str) -> (log::Level, &str) {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    match first.trim_matches(['[', ']']).parse() {
        Ok(level) => (level, rest.trim_start()),
        Err(_) => (log::Level::Error, line),
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
