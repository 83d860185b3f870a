//! Counts the system calls of one thread: by the kernel's tracepoints (`perf stat`), which hardly slow it, else by `strace -c`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::{self, Guard};
use crate::sys;

const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);
/// Told apart in the table; what else there is shows in the total.
const NAMED: [&str; 12] = [
    "epoll_ctl",
    "rt_sigprocmask",
    "futex",
    "epoll_wait",
    "read",
    "write",
    "sendto",
    "recvfrom",
    "mmap",
    "munmap",
    "madvise",
    "msync",
];
const TOTAL: &str = "raw_syscalls:sys_enter";

/// System calls by name, and `total`.
pub(crate) type Counts = BTreeMap<String, u64>;

/// A tool counting one thread's system calls.
pub(crate) struct Counter {
    guard: Guard,
    output: PathBuf,
    control: Option<(File, File)>,
}

/// True when `perf` may count system calls here.
pub(crate) fn perf_works() -> bool {
    let mut command = Command::new("perf");
    command
        .args(["stat", "-e", TOTAL, "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Counter {
    /// Starts counting the calls of thread `tid`.
    pub(crate) fn attach(dir: &Path, tid: u32, perf: bool) -> Result<Self> {
        if perf {
            Self::attach_perf(dir, tid)
        } else {
            Self::attach_strace(dir, tid)
        }
    }

    fn attach_perf(dir: &Path, tid: u32) -> Result<Self> {
        let [output, control, acknowledge] =
            ["syscalls.csv", "perf-control", "perf-acknowledge"].map(|name| dir.join(name));
        for path in [&output, &control, &acknowledge] {
            // Left by the counter before, if there was one.
            let _ = fs::remove_file(path);
        }
        let (control_file, acknowledge_file) = (sys::fifo(&control)?, sys::fifo(&acknowledge)?);
        let events = NAMED
            .iter()
            .map(|name| format!("syscalls:sys_enter_{name}"))
            .chain([TOTAL.to_owned()])
            .collect::<Vec<_>>();
        let mut command = Command::new("perf");
        command
            .args([
                "stat",
                "-x",
                ",",
                "--delay",
                "-1",
                "-t",
                &tid.to_string(),
                "-e",
                &events.join(","),
            ])
            .arg("--control")
            .arg(format!(
                "fifo:{},{}",
                control.display(),
                acknowledge.display()
            ))
            .arg("-o")
            .arg(&output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let guard = Guard::spawn("perf stat", &mut command, Duration::from_secs(5))?;
        let mut counter = Counter {
            guard,
            output,
            control: Some((control_file, acknowledge_file)),
        };
        counter.tell("enable")?;
        Ok(counter)
    }

    fn attach_strace(dir: &Path, tid: u32) -> Result<Self> {
        let output = dir.join("syscalls.txt");
        let mut command = Command::new("strace");
        command
            .args(["-c", "-p", &tid.to_string(), "-o"])
            .arg(&output);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut guard = Guard::spawn("strace", &mut command, Duration::from_secs(5))?;
        child::wait_for("strace attaching to Mosquitto", ATTACH_TIMEOUT, || {
            guard
                .check()
                .context("neither perf nor strace may look at Mosquitto")?;
            let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
            Ok(status
                .contains(&format!("TracerPid:\t{}\n", guard.pid()))
                .then_some(()))
        })?;
        Ok(Counter {
            guard,
            output,
            control: None,
        })
    }

    /// Stops counting and gives the counts.
    pub(crate) fn finish(mut self) -> Result<Counts> {
        if self.control.is_some() {
            self.tell("disable")?;
        }
        self.guard.stop(libc::SIGINT);
        let text = fs::read_to_string(&self.output)
            .with_context(|| format!("reading {}", self.output.display()))?;
        let counts = if self.control.is_some() {
            parse_perf(&text)
        } else {
            parse_strace(&text)
        };
        if !counts.contains_key("total") {
            bail!("no count of system calls in {text:?}");
        }
        Ok(counts)
    }

    /// Sends a command to perf and waits until it is carried out.
    fn tell(&mut self, word: &str) -> Result<()> {
        self.guard.check()?;
        let (control, acknowledge) = self.control.as_mut().context("not perf")?;
        writeln!(control, "{word}")?;
        // It answers "ack\n" and a NUL.
        let mut answer = [0; 5];
        acknowledge
            .read_exact(&mut answer)
            .context("waiting for perf")?;
        Ok(())
    }
}

/// Lines of `perf stat -x ,`: count, unit, event, …
fn parse_perf(text: &str) -> Counts {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let count = fields.next()?.parse().ok()?;
        let event = fields.nth(1)?;
        let name = if event == TOTAL {
            "total"
        } else {
            event.strip_prefix("syscalls:sys_enter_")?
        };
        Some((name.to_owned(), count))
    });
    lines.collect()
}

/// Lines of `strace -c`: % time, seconds, usecs/call, calls, errors (may be absent), name.
fn parse_strace(text: &str) -> Counts {
    let lines = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let count = fields.get(3)?.parse().ok()?;
        Some(((*fields.last()?).to_owned(), count))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tools_are_understood() {
        let perf = "# started on …\n\n12,,syscalls:sys_enter_futex,100,100.00,,\n345,,raw_syscalls:sys_enter,100,100.00,,\n";
        assert_eq!(
            parse_perf(perf),
            Counts::from([("futex".to_owned(), 12), ("total".to_owned(), 345)])
        );
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- --------- --------- ------\n 60.00    0.000012           1        12         3 futex\n------ ----------- ----------- --------- --------- ------\n100.00    0.000063           2        29         3 total\n";
        assert_eq!(
            parse_strace(strace),
            Counts::from([("futex".to_owned(), 12), ("total".to_owned(), 29)])
        );
    }
}
