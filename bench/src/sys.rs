//! The system calls that the standard library has no door to. All unsafe code of the benchmark is in this file.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What [`poll`] should wait for on one descriptor, and whether it happened.
#[derive(Clone, Copy)]
pub(crate) struct Interest {
    pub(crate) fd: RawFd,
    pub(crate) write: bool,
    pub(crate) ready: bool,
}

/// Waits until a descriptor is readable (or writable, where asked), at most `timeout`. `scratch` is reused between calls.
pub(crate) fn poll(
    interests: &mut [Interest],
    scratch: &mut Vec<libc::pollfd>,
    timeout: Duration,
) -> io::Result<()> {
    scratch.clear();
    scratch.extend(interests.iter().map(|interest| libc::pollfd {
        fd: interest.fd,
        events: libc::POLLIN | if interest.write { libc::POLLOUT } else { 0 },
        revents: 0,
    }));
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `scratch` holds exactly `scratch.len()` initialised pollfd structs and outlives the call.
    let rc = unsafe { libc::poll(scratch.as_mut_ptr(), scratch.len() as libc::nfds_t, millis) };
    if rc < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    for (interest, polled) in interests.iter_mut().zip(scratch.iter()) {
        interest.ready = rc > 0 && polled.revents != 0;
    }
    Ok(())
}

/// A socket counts as readable only from `bytes` on: acknowledgements are then read by the dozen, and the generator leaves the
/// processor to what is measured.
pub(crate) fn set_read_low_water(socket: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: SO_RCVLOWAT takes a c_int, whose address and size are given; the descriptor is open while `socket` is borrowed.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends a signal to one process. An error (it is gone already) is for the caller to judge.
pub(crate) fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    if pid <= 1 {
        return Err(io::Error::other(
            "refusing to signal init or a process group",
        ));
    }
    // SAFETY: kill takes no pointers; the pid was checked to name one process.
    let rc = unsafe { libc::kill(pid, signal) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// CPU time of a process so far, with that of threads that have ended.
pub(crate) fn process_cpu(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for the answer.
    let rc = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanos = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanos))
}

/// Lets this process and those that it starts open as many descriptors as they may; how many that are.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer, and then a valid limit.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Makes the child end when this process ends, however it ends. The spawning thread has to outlive the child.
pub(crate) fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec and calls only prctl, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        })
    }
}

/// Makes a FIFO and opens it for both directions, so that opening never waits for the other side.
pub(crate) fn fifo(path: &Path) -> io::Result<File> {
    let name =
        std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let rc = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    File::options().read(true).write(true).open(path)
}

/// True when this process runs as root: Mosquitto would then drop its privileges.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Nanoseconds since 1970: the clock that Java's `Instant.now()` reads too, so times can be compared across processes.
pub(crate) fn unix_nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

static TERMINATED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_termination(_signal: libc::c_int) {
    // Relaxed: nothing else is published by it.
    TERMINATED.store(true, Ordering::Relaxed);
}

/// From now on SIGTERM and SIGINT only set what [`terminated`] reads, so that the guards of every child run.
pub(crate) fn note_termination_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let handler = note_termination as extern "C" fn(libc::c_int);
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and has the signature that signal() wants.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// True once this process was asked to end.
pub(crate) fn terminated() -> bool {
    TERMINATED.load(Ordering::Relaxed)
}
