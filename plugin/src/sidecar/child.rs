//! One run of the sidecar's process.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Stdio};

use crate::ffi::sys;

/// A running sidecar, and the two pipes to it.
pub(super) struct Run {
    pub(super) child: Child,
    /// The life-line: the sidecar drains and exits when it reads end-of-file.
    pub(super) lifeline: Option<ChildStdin>,
    pub(super) stderr: ChildStderr,
}

/// Starts `program` with `arguments`. Must be called by the thread that watches it: PR_SET_PDEATHSIG is about the
/// death of the *thread* that forked.
pub(super) fn start<S: AsRef<std::ffi::OsStr>>(program: &Path, arguments: &[S]) -> io::Result<Run> {
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.current_dir("/");
    let parent = std::process::id();
    // SAFETY: `prepare_child` only makes async-signal-safe system calls.
    unsafe { command.pre_exec(move || sys::prepare_child(parent)) };
    let mut child = command.spawn()?;
    let lifeline = child.stdin.take();
    let Some(stderr) = child.stderr.take() else {
        return Err(io::Error::other(
            "the sidecar's standard error was not captured",
        ));
    };
    sys::set_nonblocking(stderr.as_raw_fd())?;
    Ok(Run {
        child,
        lifeline,
        stderr,
    })
}
