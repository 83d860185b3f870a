//! Log records of every thread, brought to the broker's.
//!
//! `mosquitto_log_printf` is for the main thread alone. So the `log` facade puts records into a bounded queue, and
//! the callbacks drain it. A full queue drops the record and counts it: logging never blocks, and never grows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Records waiting for the broker's thread, at most.
const QUEUE: usize = 1024;
/// Records written in one go, at most.
const AT_ONCE: usize = 128;

struct Queue {
    sender: RwLock<Option<Sender<(Level, String)>>>,
    dropped: AtomicU64,
}

static QUEUE_OF_PROCESS: OnceLock<Queue> = OnceLock::new();

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else {
            return;
        };
        if let Err(TrySendError::Full(_)) =
            sender.try_send((record.level(), record.args().to_string()))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed); // a count only: orders nothing
        }
    }

    fn flush(&self) {}
}

/// The broker's end of the queue. Dropping it turns logging off.
pub(crate) struct LogQueue {
    receiver: Receiver<(Level, String)>,
}

impl LogQueue {
    /// Becomes the logger of the process (of this shared object: nobody else sees it).
    pub(crate) fn install(level: LevelFilter) -> LogQueue {
        let (sender, receiver) = bounded(QUEUE);
        let queue = QUEUE_OF_PROCESS.get_or_init(|| Queue {
            sender: RwLock::new(None),
            dropped: AtomicU64::new(0),
        });
        *queue.sender.write().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        // An error means that it is installed already: this plugin was loaded before in this process.
        let _ = log::set_logger(queue);
        log::set_max_level(level);
        LogQueue { receiver }
    }

    /// Writes what is waiting. Main thread only.
    pub(crate) fn drain(&self, mut write: impl FnMut(Level, &str)) {
        for _ in 0..AT_ONCE {
            let Ok((level, text)) = self.receiver.try_recv() else {
                break;
            };
            write(level, &text);
        }
        let dropped = QUEUE_OF_PROCESS
            .get()
            .map_or(0, |queue| queue.dropped.swap(0, Ordering::Relaxed));
        if dropped > 0 {
            write(
                Level::Warn,
                &format!("{dropped} log records were dropped: too many at once"),
            );
        }
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        log::set_max_level(LevelFilter::Off);
        if let Some(queue) = QUEUE_OF_PROCESS.get() {
            *queue.sender.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_threads_wait_for_the_brokers_and_too_many_are_counted() {
        let queue = LogQueue::install(LevelFilter::Info);
        std::thread::spawn(|| {
            for n in 0..QUEUE + 5 {
                log::info!("record {n}");
            }
            log::debug!("below the level");
        })
        .join()
        .expect("the thread only logs");
        let mut seen = Vec::new();
        queue.drain(|level, text| seen.push((level, text.to_owned())));
        assert_eq!(
            seen.len(),
            AT_ONCE + 1,
            "a bounded number at once, and the note about the dropped ones"
        );
        // The facade is the process's: other tests' records may stand between these, and push some out.
        let ours: Vec<_> = seen
            .iter()
            .filter(|(_, text)| text.starts_with("record "))
            .collect();
        assert!(!ours.is_empty());
        for (n, record) in ours.into_iter().enumerate() {
            assert_eq!(*record, (Level::Info, format!("record {n}")));
        }
        let note = &seen[AT_ONCE].1;
        let dropped = note
            .split_once(" log records were dropped")
            .and_then(|(n, _)| n.parse::<usize>().ok());
        assert!(dropped.is_some_and(|dropped| dropped >= 5), "{note:?}");
    }
}
