//! Whether the process that has a role in the spool is there, by its lock file and `/proc`.

use std::path::Path;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// It runs, or sleeps.
    Running(u32),
    /// It was stopped (SIGSTOP, a debugger).
    Stopped(u32),
    /// There is none.
    Gone,
}

/// The process that holds `role` (`writer`, `reader`) of the log in this directory. A lock file outlives its process; the process id
/// in it may have been given to another one since, which is taken for ours then.
pub(crate) fn holder(log_dir: &Path, role: &str) -> Process {
    let text = std::fs::read_to_string(log_dir.join(format!("{role}.lock")));
    let Some(pid) = text.ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return Process::Gone;
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `pid (name) state …`; the name may hold anything, also brackets.
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    match state {
        None | Some('Z' | 'X' | 'x') => Process::Gone,
        Some('T' | 't') => Process::Stopped(pid),
        Some(_) => Process::Running(pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_role_is_found_by_its_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path(), "writer"), Process::Gone);
        let us = std::process::id();
        std::fs::write(dir.path().join("writer.lock"), format!("{us}\n")).unwrap();
        assert_eq!(holder(dir.path(), "writer"), Process::Running(us));
        std::fs::write(dir.path().join("writer.lock"), "4194400\n").unwrap();
        assert_eq!(holder(dir.path(), "writer"), Process::Gone);
        std::fs::write(dir.path().join("writer.lock"), "rubbish").unwrap();
        assert_eq!(holder(dir.path(), "writer"), Process::Gone);
    }
}
