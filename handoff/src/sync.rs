//! The thread of `SyncPolicy::Interval`: forces the log onto the disk behind the appender's back.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::log_files::LogFiles;
use crate::prepare;

struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

pub(crate) struct Syncer {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(crate) fn start(files: Arc<LogFiles>, interval: Duration) -> io::Result<Syncer> {
        let stop = Arc::new(Stop {
            asked: Mutex::new(false),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&stop);
        let thread = prepare::spawn("handoff-sync", move || {
            sync_until_stopped(&watched, &files, interval)
        })?;
        Ok(Syncer {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        *self
            .stop
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed there.
            let _ = thread.join();
        }
    }
}

fn sync_until_stopped(stop: &Stop, files: &LogFiles, interval: Duration) {
    // A zero interval would spin.
    let interval = interval.max(Duration::from_millis(1));
    let mut synced = None;
    let mut failing = false;
    loop {
        let asked = stop.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = stop
            .changed
            .wait_timeout_while(asked, interval, |asked| !*asked)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let last = *asked;
        drop(asked);
        let end = files.end();
        let state = (end, files.released(end));
        if synced != Some(state) {
            match files.sync() {
                Ok(()) => {
                    synced = Some(state);
                    failing = false;
                }
                Err(error) if !failing => {
                    failing = true;
                    log::error!("{}: cannot sync: {error}", files.dir.path.display());
                }
                Err(_) => {}
            }
        }
        if last {
            return;
        }
    }
}
