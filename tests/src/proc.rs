//! Looking at processes through `/proc`, and signals by process id.

use std::fs;
use std::path::Path;

/// Sends a signal to one process. True if it was there.
pub fn signal(pid: u32, signal: i32) -> bool {
    let Ok(pid) = i32::try_from(pid) else {
        return false;
    };
    // 0 and negative numbers would mean groups of processes.
    if pid <= 1 {
        return false;
    }
    send(pid, signal)
}

#[allow(
    unsafe_code,
    reason = "std can only SIGKILL, and only its own children"
)]
fn send(pid: i32, signal: i32) -> bool {
    // SAFETY: kill(2) has no memory to get wrong.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// One process, as far as the tests care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// `R`, `S`, `Z`, …
    pub state: char,
    /// Its arguments; empty for a zombie.
    pub arguments: Vec<String>,
}

/// All processes that can be seen now.
pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(read)
        .collect()
}

/// The process with this id, if there is one.
pub fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, so what counts is behind the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = arguments
        .split(|byte| *byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    Some(Process {
        pid,
        parent,
        state,
        arguments,
    })
}

/// Whether the process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    read(pid).is_some_and(|process| process.state != 'Z')
}

/// The sidecars of a spool folder, zombies left out.
pub fn sidecars(spool_dir: &Path) -> Vec<u32> {
    let spool_dir = spool_dir.to_string_lossy();
    processes()
        .into_iter()
        .filter(|process| process.state != 'Z')
        .filter(|process| {
            process
                .arguments
                .get(1)
                .is_some_and(|argument| argument == "sidecar")
        })
        .filter(|process| {
            process
                .arguments
                .iter()
                .any(|argument| argument.contains(&*spool_dir))
        })
        .map(|process| process.pid)
        .collect()
}

/// Children of a process that have ended and that it has not waited for.
pub fn zombies_of(parent: u32) -> Vec<u32> {
    processes()
        .into_iter()
        .filter(|process| process.parent == parent && process.state == 'Z')
        .map(|process| process.pid)
        .collect()
}
