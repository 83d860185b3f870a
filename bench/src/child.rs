//! Child processes that end with their guard, and with the benchmark, whatever happens to it.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys;

/// Between two looks at something that is being waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A child process: SIGTERM, and after `grace` SIGKILL, when the guard goes.
pub(crate) struct Guard {
    name: String,
    pub(crate) child: Child,
    grace: Duration,
}

impl Guard {
    pub(crate) fn spawn(name: &str, command: &mut Command, grace: Duration) -> Result<Self> {
        let child = sys::die_with_parent(command)
            .spawn()
            .with_context(|| format!("starting {name} ({command:?})"))?;
        Ok(Guard {
            name: name.to_owned(),
            child,
            grace,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when the process has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended too early ({status})", self.name),
        }
    }

    /// Sends `signal` and waits for the end.
    pub(crate) fn stop(&mut self, signal: libc::c_int) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // A process that ended in between is what we want anyway.
        let _ = sys::kill(self.pid(), signal);
        let deadline = Instant::now() + self.grace;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop(libc::SIGTERM);
    }
}

/// Polls until `condition` gives a value, at most `limit`; `what` names it in the error.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if sys::terminated() {
            bail!("{what}: asked to end");
        }
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: did not happen within {limit:?}");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits, also while this process is ending, until none of the processes is alive; false when one still is after `limit`.
pub(crate) fn all_end(pids: &[u32], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while pids.iter().any(|pid| is_alive(*pid)) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
    true
}

/// Processes whose parent is `parent`.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| parent_of(*pid) == Some(parent))
        .collect()
}

/// True while the process exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(')').next()?.trim().chars().next())
        .is_some_and(|state| state != 'Z')
}

/// CPU time of one thread so far, in nanoseconds.
pub(crate) fn thread_cpu_ns(pid: u32, tid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task/{tid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let first = text.split_whitespace().next().context("empty schedstat")?;
    first.parse().with_context(|| format!("{path}: {text:?}"))
}

/// CPU time of whole processes so far, in nanoseconds.
pub(crate) fn cpu_ns(pids: &[u32]) -> Result<f64> {
    let mut sum = Duration::ZERO;
    for pid in pids {
        sum += sys::process_cpu(*pid).with_context(|| format!("CPU time of process {pid}"))?;
    }
    Ok(sum.as_nanos() as f64)
}

/// Processes that stand still; they go on when this value is dropped.
pub(crate) struct Standstill {
    pids: Vec<u32>,
}

impl Standstill {
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        // Made first, so that whatever was stopped goes on, also after an error.
        let standstill = Standstill {
            pids: pids.to_vec(),
        };
        for pid in pids {
            sys::kill(*pid, libc::SIGSTOP).with_context(|| format!("stopping process {pid}"))?;
        }
        Ok(standstill)
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        for pid in &self.pids {
            // If it is gone, its absence shows in what is measured next.
            let _ = sys::kill(*pid, libc::SIGCONT);
        }
    }
}

/// The most memory that a process ever had resident, in MiB.
pub(crate) fn peak_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmHWM:")
}

/// Memory that a process has resident, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("no {field} in {path}"))?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold blanks and brackets: what follows its last bracket is state, then parent.
    stat.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
