//! What faults of the machine and of the network need: a network namespace, a small disk, a clock that can be set, a RocketMQ
//! with a slave, and a record of memory.
//!
//! All of them want root, and undo themselves when they are dropped. What a process that was killed left behind is
//! removed by the next one that makes the like.

pub mod clock;
pub mod disk;
pub mod memory;
pub mod netns;
pub mod pair;

use std::process::{Command, Stdio};

pub use clock::Clock;
pub use disk::SmallDisk;
pub use memory::MemoryRecord;
pub use netns::Namespace;
pub use pair::RocketMqPair;

/// Runs a command to its end, and returns what it wrote.
///
/// # Panics
/// When it fails.
#[track_caller]
fn run(command: &[&str]) -> String {
    try_run(command).unwrap_or_else(|problem| panic!("{problem}"))
}

fn try_run(command: &[&str]) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|problem| format!("can't run {program}: {problem}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "`{}` failed ({}): {said}",
            command.join(" "),
            output.status
        ))
    }
}

/// The process in a name that was made by [`name_of_ours`], when that process is gone.
fn is_left_behind(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse().ok())
        .is_some_and(|pid| !crate::proc::is_alive(pid))
}

/// `prefix`, this process's id and a number that makes it unique here.
fn name_of_ours(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{prefix}{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
