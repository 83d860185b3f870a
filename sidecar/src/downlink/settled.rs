//! Up to when all that was of interest of the cluster's messages has been handed over, remembered across restarts of the sidecar: what is of interest since
//! later is read back when it starts again, and nothing else is.
//!
//! ```text
//! mosquitto-rocketmq downlink settled 1 <boot id>\n
//! <Unix milliseconds, 20 digits>\n
//! ```
//! After a loss of power the last minute does not count: the log's tail may be gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rocketmq::Interest;
use tokio::runtime::Handle;
use tokio::sync::watch;

const MAGIC: &str = "mosquitto-rocketmq downlink settled 1";
const POWER_LOST_MS: i64 = 60_000;

/// See the module.
pub(super) struct Settled {
    file: File,
    at: u64,
    ms: i64,
    /// What was of interest when that was noted.
    known: Interest,
}

impl Settled {
    /// Reads the file, or begins one.
    pub(super) fn open(spool_dir: &Path, boot_id: &str) -> io::Result<Settled> {
        let path = spool_dir.join("downlink.settled");
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let header = format!("{MAGIC} {boot_id}\n");
        let temporary = path.with_extension("settled.new");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all_at(header.as_bytes(), 0)?;
        let mut settled = Settled {
            file,
            at: header.len() as u64,
            ms: 0,
            known: Interest::default(),
        };
        settled.note(read(&text, boot_id))?;
        std::fs::rename(&temporary, &path)?;
        Ok(settled)
    }

    /// What is of interest now, and since when all of it is in the log that has been of interest for so long; nothing while some is yet to be read
    /// back.
    pub(super) fn follow(
        &mut self,
        interest: &Interest,
        settled_ms: Option<i64>,
    ) -> io::Result<()> {
        if let Some(ms) = settled_ms {
            self.known = interest.clone();
            return match ms == self.ms {
                true => Ok(()),
                false => self.note(ms),
            };
        }
        // What came with an older time must not count as read if we die now.
        let tags = interest.tags.iter();
        let new = tags.filter(|(tag, _)| !self.known.tags.contains_key(*tag));
        let all = interest
            .all_since_ms
            .filter(|_| self.known.all_since_ms.is_none());
        match new.map(|(_, since)| *since).chain(all).min() {
            Some(oldest) if oldest <= self.ms => self.note(oldest - 1),
            _ => Ok(()),
        }
    }

    fn note(&mut self, ms: i64) -> io::Result<()> {
        self.ms = ms;
        let line = format!("{:020}\n", ms.max(0));
        self.file.write_all_at(line.as_bytes(), self.at)
    }

    /// The interest, with the time as of now. It follows as long as somebody reads it.
    pub(super) fn on(
        &mut self,
        mut interest: watch::Receiver<Arc<Interest>>,
        runtime: &Handle,
    ) -> watch::Receiver<Arc<Interest>> {
        let settled_ms = self.ms;
        let with = move |interest: &Interest| {
            Arc::new(Interest {
                settled_ms,
                ..interest.clone()
            })
        };
        let first = with(&interest.borrow_and_update());
        self.known = Interest::clone(&first);
        let (sender, receiver) = watch::channel(first);
        runtime.spawn(async move {
            loop {
                tokio::select! {
                    changed = interest.changed() => if changed.is_err() {
                        // Nobody changes it any more: it stays as it is.
                        sender.closed().await;
                        return;
                    },
                    () = sender.closed() => return,
                }
                let next = with(&interest.borrow_and_update());
                sender.send_replace(next);
            }
        });
        receiver
    }
}

/// What the file says, 0 for nothing.
fn read(text: &str, boot_id: &str) -> i64 {
    let parsed = || {
        let (header, rest) = text.split_once('\n')?;
        let boot = header.strip_prefix(MAGIC)?.trim();
        let ms: i64 = rest.strip_suffix('\n')?.parse().ok()?;
        Some(match boot == boot_id {
            true => ms,
            false => ms.saturating_sub(POWER_LOST_MS).max(0),
        })
    };
    parsed().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_known_after_a_restart_and_less_of_it_after_a_loss_of_power() {
        let dir = tempfile::tempdir().unwrap();
        let mut settled = Settled::open(dir.path(), "boot").unwrap();
        assert_eq!(settled.ms, 0);
        settled.note(500_000).unwrap();
        settled.note(400_000).unwrap();
        assert_eq!(Settled::open(dir.path(), "boot").unwrap().ms, 400_000);
        assert_eq!(Settled::open(dir.path(), "other").unwrap().ms, 340_000);
        assert_eq!(Settled::open(dir.path(), "other").unwrap().ms, 340_000);
        for text in [
            "",
            "\0\0",
            "mosquitto-rocketmq downlink settled 1 other\n12",
        ] {
            std::fs::write(dir.path().join("downlink.settled"), text).unwrap();
            assert_eq!(Settled::open(dir.path(), "other").unwrap().ms, 0);
        }
    }

    #[test]
    fn what_came_with_an_older_time_does_not_count_as_read_before_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut settled = Settled::open(dir.path(), "boot").unwrap();
        let interest = |tags: &[(&str, i64)]| Interest {
            tags: tags
                .iter()
                .map(|(tag, since)| ((*tag).to_owned(), *since))
                .collect(),
            ..Interest::default()
        };
        settled.follow(&interest(&[("a", 100)]), Some(100)).unwrap();
        settled
            .follow(&interest(&[("a", 100), ("b", 200)]), None)
            .unwrap();
        assert_eq!(settled.ms, 100, "b is newer anyway");
        settled
            .follow(&interest(&[("a", 100), ("b", 200), ("c", 50)]), None)
            .unwrap();
        assert_eq!(Settled::open(dir.path(), "boot").unwrap().ms, 49);
        settled
            .follow(&interest(&[("a", 100), ("b", 200), ("c", 50)]), Some(200))
            .unwrap();
        assert_eq!(settled.ms, 200);
        let all = Interest {
            all_since_ms: Some(7),
            ..settled.known.clone()
        };
        settled.follow(&all, None).unwrap();
        assert_eq!(settled.ms, 6);
    }

    #[test]
    fn the_interest_follows_with_the_time() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut settled = Settled::open(dir.path(), "boot").unwrap();
        settled.note(7).unwrap();
        let (sender, receiver) = watch::channel(Arc::default());
        let mut followed = settled.on(receiver, runtime.handle());
        assert_eq!(followed.borrow_and_update().settled_ms, 7);
        runtime.block_on(async {
            sender.send_replace(Arc::new(Interest {
                all_since_ms: Some(3),
                ..Interest::default()
            }));
            followed.changed().await.unwrap();
        });
        let interest = followed.borrow().clone();
        assert_eq!((interest.all_since_ms, interest.settled_ms), (Some(3), 7));
    }
}
