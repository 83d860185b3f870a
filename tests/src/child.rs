//! Child processes that don't outlive their guard.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use crate::proc;
use crate::wait::comes_true;

/// A child process. Dropping it kills it and waits for it; when the test process itself is killed, the kernel kills it.
#[derive(Debug)]
pub struct ChildGuard {
    /// The process.
    pub child: Child,
}

impl ChildGuard {
    /// Starts the command. `signal` is what the child gets when the test process dies.
    pub fn spawn(mut command: Command, signal: i32) -> io::Result<ChildGuard> {
        die_with_parent(&mut command, signal);
        let (answer, spawned) = mpsc::channel();
        keeper()
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .send(Box::new(move || {
                // The receiver waits for it, so it is there.
                let _ = answer.send(command.spawn());
            }))
            .map_err(|_| io::Error::other("the spawning thread has ended"))?;
        let child = spawned.recv().map_err(io::Error::other)??;
        Ok(ChildGuard { child })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        proc::signal(self.pid(), signal);
    }

    /// Its exit status, when it ends within `limit`.
    pub fn wait_for(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        comes_true(limit, || {
            status = self.child.try_wait().unwrap_or(None);
            status.is_some()
        });
        status
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// One thread that starts all children and lives as long as the process: the parent-death signal fires when the *thread* that
/// started the child ends, and a test's thread ends before what it shares with other tests.
fn keeper() -> &'static Mutex<mpsc::Sender<Job>> {
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || queue.into_iter().for_each(|job| job()));
        Mutex::new(jobs)
    })
}

#[allow(unsafe_code, reason = "PR_SET_PDEATHSIG has to be set in the child")]
fn die_with_parent(command: &mut Command, signal: i32) {
    let number = libc::c_ulong::from(signal.unsigned_abs());
    // SAFETY: between fork and exec this makes one system call, with numbers only, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, number) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}
