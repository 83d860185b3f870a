//! What can go wrong, one enum per operation.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::Position;

/// The side of the log that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that appends.
    Writer,
    /// The one that polls.
    Reader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Writer => "writer",
            Role::Reader => "reader",
        })
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process (or another part of this one) has this side of the log.
    #[error("{} already has a {role}{}: stop that process, or give this one a spool directory of its own", dir.display(), pid_text(*pid))]
    InUse {
        /// The log's directory.
        dir: PathBuf,
        /// The side that is taken.
        role: Role,
        /// Who has it, when it left its process id.
        pid: Option<u32>,
    },
    /// There is no log yet: its writer creates it.
    #[error("{} holds no log yet: its writer creates it", dir.display())]
    NotThere {
        /// The directory without a log.
        dir: PathBuf,
    },
    /// The log was written by another version of this software.
    #[error("{} has format version {found}, and this program knows {supported}: drain it with the program that wrote it, or move it away", path.display())]
    Version {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this program.
        supported: u32,
    },
    /// The system denied access.
    #[error("{}: not permitted to {action}: make the directory belong to the user of this process", path.display())]
    Permission {
        /// What was asked for.
        path: PathBuf,
        /// What was done with it.
        action: &'static str,
    },
    /// The system failed otherwise.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// What was done with it.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file system has no room for a segment.
    #[error("{}: no room for a segment of {bytes} bytes ({source}): free some space or make the segments smaller", path.display())]
    NoSpace {
        /// The file without room.
        path: PathBuf,
        /// The size that it should have.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The log can't be understood.
    #[error("{}: {reason}: move the directory away to begin a new log", path.display())]
    Corrupt {
        /// The file that makes no sense.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An option is out of its range.
    #[error("{option} = {value}: must be {allowed}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl OpenError {
    /// The system's error as ours: lack of rights and of space have names of their own.
    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
        source: io::Error,
    ) -> OpenError {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::Permission { path, action },
            _ => OpenError::Io {
                path,
                action,
                source,
            },
        }
    }
}

/// Whether the system said that the disk (or quota, or file size limit) is exhausted.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)
    )
}

/// Why an append failed. Nothing of the frame is in the log then, but for [`AppendError::NotSynced`]: that frame is, and must not be appended again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log has reached its bound (or the disk is too slow to give the next segment in time); room comes when the reader releases.
    #[error("the log is full")]
    Full,
    /// The frame can never fit.
    #[error(
        "a frame of {len} bytes is larger than the {max} that fit into a segment: make the segments larger"
    )]
    TooLarge {
        /// The length asked for.
        len: usize,
        /// The largest length that fits.
        max: usize,
    },
    /// The file system has no room for the next segment. Tried again at later appends.
    #[error("no room on the disk for the next segment: {0}")]
    NoSpace(io::Error),
    /// Under [`SyncPolicy::Always`](crate::SyncPolicy::Always): the frame was appended and the reader has it, but the disk did not take it. It outlives every process
    /// and may not outlive a loss of power.
    #[error("it is in the log, but could not be synced to the disk: {source}")]
    NotSynced {
        /// Where the frame starts.
        position: Position,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed otherwise: preparing a segment, or finishing the one before.
    #[error("the log's file system failed: {0}")]
    Io(#[from] io::Error),
}

/// Why a poll gave no frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes from `from` up to `to` are no good frames. The reader stands at `to` now and goes on there.
    #[error("corrupted frames from {from} to {to}: {reason}")]
    Corrupt {
        /// Where the stretch begins.
        from: Position,
        /// Where the next good frame or segment begins, or as far as was looked. Equal to `from` when the segment there is missing and none behind it is there
        /// yet: the reader waits for one.
        to: Position,
        /// What was seen there.
        reason: String,
    },
    /// The system failed; the reader has not moved, and the next poll tries again.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was done with it.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
