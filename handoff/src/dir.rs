//! The log's directory: its files' names and rights, and the locks of the two roles.
#![allow(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{OpenError, Role};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// A lock is tried again for 0.2 s: a process that starts a child has its locks in two hands between fork and exec.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The largest number of a segment: ten digits. No log comes to a larger one, and sums with them could overflow.
const NUMBER_MAX: u64 = 9_999_999_999;
/// Behind the name of a segment that is not ready.
pub(crate) const UNREADY: &str = ".new";

#[derive(Debug, Clone)]
pub(crate) struct Dir {
    pub(crate) path: PathBuf,
}

impl Dir {
    /// Makes the directory if need be, for our user alone.
    pub(crate) fn create(path: &Path) -> Result<Dir, OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path)
            .map_err(|e| OpenError::io(path, "create the directory", e))?;
        let mode = fs::metadata(path)
            .map_err(|e| OpenError::io(path, "look at the directory", e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            // Messages are nobody else's business, also in a directory that was made with other rights.
            fs::set_permissions(path, Permissions::from_mode(DIR_MODE))
                .map_err(|e| OpenError::io(path, "make the directory private (0700)", e))?;
        }
        Ok(Dir {
            path: path.to_owned(),
        })
    }

    pub(crate) fn cursor(&self) -> PathBuf {
        self.path.join("cursor")
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("segment-{number:010}"))
    }

    pub(crate) fn unready_segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("segment-{number:010}{UNREADY}"))
    }

    /// The numbers of the segments that are there, in order.
    pub(crate) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix("segment-"))
                .and_then(|number| number.parse().ok())
                .filter(|number| *number <= NUMBER_MAX);
            // A name that is not the one we would give (`segment-7`) is not ours.
            numbers
                .extend(number.filter(|&number| self.segment(number).file_name() == Some(&name)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes what a writer that died left unfinished.
    pub(crate) fn remove_unready(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.ends_with(UNREADY)) {
                fs::remove_file(self.path.join(name))?;
            }
        }
        Ok(())
    }

    /// Makes the names in the directory outlive a power loss.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Takes a role for as long as the returned file is open: the kernel gives it back when the process dies, however it dies. Tries for 0.2 s if it may be patient.
    pub(crate) fn lock(&self, role: Role, patient: bool) -> Result<File, OpenError> {
        let path = self.path.join(format!("{role}.lock"));
        let mut file =
            open(&path, true, true).map_err(|e| OpenError::io(&path, "open the lock", e))?;
        let mut tries = 0..if patient { LOCK_TRIES } else { 0 };
        // SAFETY: the descriptor is open; flock touches no memory.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EWOULDBLOCK) {
                return Err(OpenError::io(path, "lock", error));
            }
            if tries.next().is_none() {
                let mut owner = String::new();
                let _ = file.take(32).read_to_string(&mut owner);
                return Err(OpenError::InUse {
                    dir: self.path.clone(),
                    role,
                    pid: owner.trim().parse().ok(),
                });
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        // The process id is for the error message above alone.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(file)
    }
}

/// Opens one of our files: private, not inherited, never through a symbolic link.
pub(crate) fn open(path: &Path, write: bool, create: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .create(create)
        .mode(FILE_MODE)
        // Neither may another process make us wait by putting a pipe in the place of a file.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if write && file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}
