//! The few system calls that std has no name for.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Which thread Mosquitto's main loop runs on: the one that called init. 0 before that.
static MAIN_THREAD: AtomicUsize = AtomicUsize::new(0);

fn this_thread() -> usize {
    // SAFETY: no pointers. A number, or an address that is only compared.
    unsafe { libc::pthread_self() as usize }
}

/// The thread of the caller is Mosquitto's.
pub(crate) fn claim_main_thread() {
    // Relaxed: Mosquitto makes its other threads after init, and that orders it.
    MAIN_THREAD.store(this_thread(), Ordering::Relaxed);
}

/// Whether the caller is on Mosquitto's thread.
pub(crate) fn is_main_thread() -> bool {
    MAIN_THREAD.load(Ordering::Relaxed) == this_thread()
}

/// An eventfd, close-on-exec and non-blocking.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: new, and nobody else's.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable. Each signal is a new edge for an edge-triggered epoll. A counter that is full (2^64 signals
    /// not read) stays readable, so the error is none.
    pub(crate) fn signal(&self) {
        let one = 1_u64;
        // SAFETY: eight readable bytes.
        let _ = unsafe { libc::write(self.raw(), (&raw const one).cast(), 8) };
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Adds it, edge-triggered, to an epoll set that is not ours; `data` is what the owner of the set will be given.
    pub(crate) fn add_to_epoll(&self, epoll: RawFd, data: *const u8) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLET).cast_unsigned();
        let mut event = libc::epoll_event {
            events,
            u64: data.addr() as u64,
        };
        // SAFETY: a valid event; the kernel copies it.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, self.raw(), &raw mut event) })
            .map(|_| ())
    }
}

/// Whether `fd` is a socket that listens.
pub(crate) fn is_listening(fd: RawFd) -> bool {
    let mut value: libc::c_int = 0;
    let mut len: libc::socklen_t = 4; // size of c_int
    // SAFETY: an int to write to, and its size.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    result == 0 && value == 1
}

/// Starts a thread with all signals blocked. Mosquitto's handlers (and 2.1's SIGRTMIN) are for its own thread; a
/// signal that one of ours took would leave the broker asleep.
pub(crate) fn spawn_quiet(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: a place for a set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was filled; `before` is a place for a set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    // The new thread inherits the mask.
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    // SAFETY: `before` was filled by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    thread
}

/// Between fork and exec of the sidecar: only async-signal-safe calls.
pub(crate) fn prepare_child(parent: u32) -> io::Result<()> {
    // SIGTERM, not SIGKILL: a sidecar whose Mosquitto was killed still sends what is in the spool.
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })?;
    // SAFETY: no pointers.
    if unsafe { libc::getppid() }.cast_unsigned() != parent {
        // Mosquitto died before the line above took effect.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // Its own process group: a Ctrl-C meant for Mosquitto reaches the sidecar through us.
    // SAFETY: no pointers.
    unsafe { libc::setpgid(0, 0) };
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGPIPE,
    ] {
        // SAFETY: the default action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: a place for a set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` was filled.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
    close_on_exec();
    Ok(())
}

/// Mosquitto's sockets are not close-on-exec: a sidecar that had them would keep its ports and clients open.
fn close_on_exec() {
    // Since Linux 5.11.
    // SAFETY: no pointers.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked == 0 {
        return;
    }
    // SAFETY: no pointers.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(1024, 65_536);
    for fd in 3..i32::try_from(most).unwrap_or(1024) {
        // SAFETY: no pointers; a number that is not open is an error and no more.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// A socket of the broker's by a descriptor of its own: closing it leaves the broker's open.
pub(crate) fn copy_of_socket(fd: RawFd) -> io::Result<TcpStream> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not -1, and borrowed for the call alone; a number that is not open is an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(TcpStream::from)
}

/// Makes reads of a pipe return at once.
pub(crate) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(|_| ())
}

/// Waits until one of `fds` is readable or closed, or until `wait` is over. At most four.
pub(crate) fn poll_readable(fds: &[RawFd], wait: Duration) {
    let mut polled = [libc::pollfd {
        fd: -1,
        events: libc::POLLIN,
        revents: 0,
    }; 4];
    for (slot, fd) in polled.iter_mut().zip(fds) {
        slot.fd = *fd;
    }
    let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: four structs; the ones with fd -1 are skipped. An interruption only ends the wait early.
    unsafe { libc::poll(polled.as_mut_ptr(), 4, wait) };
}

/// SIGTERM to a child of ours that has not been reaped, so the number is still its own.
pub(crate) fn terminate(child: u32) {
    // SAFETY: no pointers.
    unsafe { libc::kill(child.cast_signed(), libc::SIGTERM) };
}

fn loaded_file(address: *const libc::c_void) -> Option<libc::Dl_info> {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: any address, and a place to write to.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: dladdr filled it.
    (found != 0).then(|| unsafe { info.assume_init() })
}

/// Where the file that `address` belongs to is loaded: the same for all of its symbols.
pub(crate) fn file_base(address: *const libc::c_void) -> Option<usize> {
    loaded_file(address).map(|info| info.dli_fbase.addr())
}

/// The file that this code was loaded from.
pub(crate) fn own_path() -> Option<std::path::PathBuf> {
    let info = loaded_file((own_path as fn() -> _ as *const ()).cast())?;
    // SAFETY: null, or the loader's C string, which lives as long as the object.
    unsafe { super::borrow::borrow_text(info.dli_fname) }
        .text()
        .map(Into::into)
}
