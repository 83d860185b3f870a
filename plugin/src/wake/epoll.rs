//! An eventfd in the broker's own epoll set.
//!
//! The broker reads an `ident` at the start of whatever `data.ptr` points to, and does nothing for one that it does not
//! know. So ours points to static memory full of zeros (`id_invalid`). The epoll set is found by what it holds: it is
//! the one with a listening socket in it. 2.1's HTTP API has another of these; but libmicrohttpd makes its own
//! close-on-exec, and Mosquitto does not.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use crate::ffi::sys::{self, EventFd};

/// Larger than any field of a mux object that a broker might look at.
static IDENT_OF_NOTHING: [u64; 64] = [0; 64];

/// Rings by writing to the eventfd.
#[derive(Debug)]
pub(crate) struct EpollBell {
    event: EventFd,
}

/// Why there is no such bell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoEpoll {
    /// /proc can't be read.
    #[error("/proc can't be read: {0}")]
    Proc(#[source] io::Error),
    /// None, or more than one, so that it can't be told which is the broker's.
    #[error("{0} epoll sets with a listening socket were found, not one")]
    Found(usize),
    /// The kernel refused.
    #[error("the eventfd could not be made or added: {0}")]
    Add(#[from] io::Error),
}

impl EpollBell {
    /// Looks for the broker's epoll set and adds an eventfd to it. It leaves the set when it is closed.
    pub(crate) fn install() -> Result<EpollBell, NoEpoll> {
        let sets = broker_sets().map_err(NoEpoll::Proc)?;
        let [set] = sets[..] else {
            return Err(NoEpoll::Found(sets.len()));
        };
        let event = EventFd::new()?;
        event.add_to_epoll(set, (&raw const IDENT_OF_NOTHING).cast())?;
        Ok(EpollBell { event })
    }

    pub(super) fn ring(&self) {
        self.event.signal();
    }
}

fn broker_sets() -> io::Result<Vec<RawFd>> {
    let mut sets = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_epoll =
            fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]");
        let Some(fd) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if !is_epoll {
            continue;
        }
        let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        if holds_listener(&fdinfo) {
            sets.push((fd, closes_on_exec(&fdinfo)));
        }
    }
    if sets.len() > 1 {
        sets.retain(|(_, closes_on_exec)| !closes_on_exec);
    }
    Ok(sets.into_iter().map(|(fd, _)| fd).collect())
}

/// Line of each fdinfo: `flags:  02000002`, in octal.
fn closes_on_exec(fdinfo: &str) -> bool {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| libc::c_int::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & libc::O_CLOEXEC != 0)
}

/// Lines of an epoll set's fdinfo: `tfd:        5 events:       19 data: …`.
fn holds_listener(fdinfo: &str) -> bool {
    members(fdinfo).any(sys::is_listening)
}

fn members(fdinfo: &str) -> impl Iterator<Item = RawFd> {
    fdinfo
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("tfd:"))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter_map(|fd| fd.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_of_an_epoll_set_are_read_from_its_fdinfo() {
        let text = "pos:\t0\nflags:\t02\nmnt_id:\t15\n\
                    tfd:        5 events:       19 data:     7ffd  pos:0 ino:61af sdev:7\n\
                    tfd:       17 events:       19 data:     7ffe  pos:0 ino:61b0 sdev:7\n";
        assert_eq!(members(text).collect::<Vec<_>>(), [5, 17]);
        assert_eq!(members("").count(), 0);
        assert!(!closes_on_exec(text) && closes_on_exec("flags:\t02000002\n"));
    }
}
