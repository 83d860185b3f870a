//! Dead letters: messages that RocketMQ or the broker will never take, kept for people to look at.
//!
//! JSON lines in `letters-<n>.jsonl` under the spool's `dead-letter/`, appended and synced before the message counts as done with,
//! bounded in bytes. This is not a queue: nothing here is sent again by itself, but people can have it replayed.
//!
//! The sidecar writes letters; the commands read them and take them out, with or without a running sidecar. `files` has the
//! rules by which they share the folder.

mod files;
mod letter;
mod read;
pub(crate) mod replay;
mod tally;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rocketmq::Incoming;

pub(crate) use letter::{Content, Direction, Letter, parse_id};
pub(crate) use read::{Filter, each, find, find_some, remove, remove_all};
pub(crate) use tally::{Summary, Tally};

/// The folder in the spool.
pub(crate) const FOLDER: &str = "dead-letter";
/// How often a letter from the downlink is tried to be written, and the pause between.
const DOWNLINK_TRIES: u32 = 5;
const DOWNLINK_PAUSE: Duration = Duration::from_millis(500);

/// The dead letters of a spool. Clones write to the same files.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    bytes_max: u64,
    tail: Mutex<files::Tail>,
    /// Apart from `tail`: the status must not wait for a slow disk.
    tally: Mutex<Tally>,
    replayed: [AtomicU64; 2],
}

#[derive(Debug, thiserror::Error)]
#[error("dead letters in {}: {source}", dir.display())]
pub(crate) struct OpenDeadLettersError {
    dir: PathBuf,
    source: io::Error,
}

impl DeadLetters {
    /// Opens the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it can't be made or listed.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> Result<DeadLetters, OpenDeadLettersError> {
        let fail = |source| OpenDeadLettersError {
            dir: dir.to_owned(),
            source,
        };
        files::make_dir(dir).map_err(fail)?;
        files::list(dir).map_err(fail)?;
        Ok(DeadLetters {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                bytes_max,
                tail: Mutex::default(),
                tally: Mutex::default(),
                replayed: Default::default(),
            }),
        })
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Gives the letters their ids, appends them and syncs them. On an error none, some or all are there.
    pub(crate) fn append(&self, letters: &mut [Letter]) -> io::Result<()> {
        let mut tail = lock(&self.shared.tail);
        let max = self.shared.bytes_max;
        let removed = files::append(&self.shared.dir, max, &mut tail, letters)?;
        if removed.letters > 0 {
            log::warn!(
                "the oldest {} dead letters ({} bytes) are removed: all together may have {max} bytes",
                removed.letters,
                removed.bytes
            );
        }
        Ok(())
    }

    /// Keeps a message that the downlink can't hand over. It is in RocketMQ too, so that a full disk does not stop the
    /// downlink for ever: where to find it is logged then.
    pub(crate) fn downlink(&self, incoming: &Incoming, rule: &str, reason: &str) {
        let mut letters = [Letter::unmappable(incoming, rule, reason)];
        for attempt in 1..=DOWNLINK_TRIES {
            match self.append(&mut letters) {
                Ok(()) => return,
                Err(error) if attempt == DOWNLINK_TRIES => log::error!(
                    "a message of {} at {} could not be kept as a dead letter ({reason}): {error}; it stays in RocketMQ",
                    incoming.queue.topic,
                    letters[0].position
                ),
                Err(_) => std::thread::sleep(DOWNLINK_PAUSE),
            }
        }
    }

    /// How many there are. What can't be read counts as none.
    pub(crate) fn summary(&self) -> Summary {
        let mut tally = lock(&self.shared.tally);
        let summary = tally.summary(&self.shared.dir, self.shared.bytes_max);
        let [up, down] = &self.shared.replayed;
        Summary {
            replayed_uplink: up.load(Relaxed),
            replayed_downlink: down.load(Relaxed),
            ..summary.unwrap_or_default()
        }
    }

    /// A letter was replayed.
    pub(crate) fn count_replayed(&self, direction: Direction) {
        let [up, down] = &self.shared.replayed;
        let counter = match direction {
            Direction::Uplink => up,
            Direction::Downlink => down,
        };
        counter.fetch_add(1, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
