//! What the fetchers have read ahead of [`Consumer::poll`](crate::Consumer::poll): messages, and how far a queue was read.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Shared, decode};
use crate::link::lock;
use crate::{Incoming, Interest};

/// What may be read ahead, in KiB of message bodies and properties.
pub(super) const AHEAD_KIB_MAX: u32 = 8 * 1024;
/// What may be read ahead, in answers to pulls.
pub(super) const AHEAD_ANSWERS_MAX: usize = 256;

/// The messages of one answer, and their share of what may be read ahead.
pub(super) struct Fetched {
    pub(super) messages: Vec<Incoming>,
    /// Of the queue with this progress, behind the messages.
    pub(super) mark: Option<(Arc<Progress>, Mark)>,
    _share: OwnedSemaphorePermit,
}

/// How far a queue was read.
pub(super) enum Mark {
    /// Of this interest nothing more is to be read back.
    Settled(Arc<Interest>),
    /// To its end, as that was at this time.
    ReadUntil(i64),
}

/// How far a fetcher is; -1 while unknown.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) next: AtomicI64,
    pub(super) max: AtomicI64,
    /// The last one of which our reader has been told.
    pub(super) settled: Mutex<Option<Arc<Interest>>>,
    /// Our reader has been given what was stored before this time; 0: not known.
    pub(super) read_until_ms: AtomicI64,
}

impl Progress {
    pub(super) fn starting(next: i64) -> Progress {
        Progress {
            next: AtomicI64::new(next),
            max: AtomicI64::new(-1),
            ..Progress::default()
        }
    }

    /// Our reader has been given all that was before the mark.
    pub(super) fn reached(&self, mark: Mark) {
        match mark {
            Mark::Settled(interest) => *lock(&self.settled) = Some(interest),
            Mark::ReadUntil(ms) => self.read_until_ms.store(ms, Ordering::Relaxed),
        }
    }
}

/// Waits until the messages may be held in memory. False when nobody wants them any more.
pub(super) async fn hand_over(
    shared: &Shared,
    messages: Vec<Incoming>,
    mark: Option<(Arc<Progress>, Mark)>,
    outgoing: &mpsc::Sender<Fetched>,
) -> bool {
    let bytes: usize = messages.iter().map(decode::weight).sum();
    let kib = u32::try_from(bytes / 1024 + 1)
        .unwrap_or(u32::MAX)
        .min(AHEAD_KIB_MAX);
    let Ok(share) = Arc::clone(&shared.ahead).acquire_many_owned(kib).await else {
        return false;
    };
    let count = messages.len() as u64;
    shared.buffered.fetch_add(count, Ordering::Relaxed);
    let fetched = Fetched {
        messages,
        mark,
        _share: share,
    };
    outgoing.send(fetched).await.is_ok()
}
