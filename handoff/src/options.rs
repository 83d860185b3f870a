//! What a log can be told when it is opened.

use std::time::Duration;

use crate::error::OpenError;
use crate::layout::PAGE_BYTES;

/// When the log's bytes are forced onto the disk. Whatever the policy, they outlive the death of either process; this is about power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Never by us: the kernel writes dirty pages back in its own time (30 s by default on Linux).
    None,
    /// By a thread of the writer, this often. The appending thread never waits for it.
    Interval(Duration),
    /// Before each append returns.
    Always,
}

/// How a [`Writer`](crate::Writer) lays out its log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Bytes of one segment file: a multiple of 4096, from 4096 to 1 GiB. The size of an existing log stays what it was at its creation.
    pub segment_bytes: u64,
    /// Most bytes that all segment files may take together: room for two segments at least, rounded down to whole segments.
    pub bytes_max: u64,
    /// When bytes are forced onto the disk.
    pub sync: SyncPolicy,
    /// The appending thread may wait for page faults, and for a segment to be made: fewer are made beforehand, and their pages come as they are
    /// written. For a writer whose memory matters more than its delays.
    pub may_wait: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 16 << 20,
            bytes_max: 1 << 30,
            sync: SyncPolicy::Interval(Duration::from_secs(1)),
            may_wait: false,
        }
    }
}

impl LogOptions {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !segment_bytes_allowed(self.segment_bytes) {
            return Err(OpenError::Options {
                option: "segment_bytes",
                value: self.segment_bytes,
                allowed: "a multiple of 4096 from 4 KiB to 1 GiB",
            });
        }
        if self.bytes_max / self.segment_bytes < 2 {
            return Err(OpenError::Options {
                option: "bytes_max",
                value: self.bytes_max,
                allowed: "at least twice the size of a segment",
            });
        }
        Ok(())
    }
}

pub(crate) fn segment_bytes_allowed(bytes: u64) -> bool {
    (PAGE_BYTES..=1 << 30).contains(&bytes) && bytes.is_multiple_of(PAGE_BYTES)
}

/// How a [`Reader`](crate::Reader) is opened; the geometry is the log's own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReaderOptions {
    /// Reads the segments into memory of its own instead of mapping them: a file that another process cuts short or writes to is an error then, and never a signal.
    pub copies: bool,
    /// Frames of more bytes than this are none. Counts for a reader that copies.
    pub frame_bytes_max: usize,
    /// How many bytes a single poll may look through to mend a damaged frame and to find the next good one: rounded down to 16. What is longer takes several
    /// polls, and a longer frame is not mended.
    pub search_bytes_max: usize,
    /// Whether opening may wait 0.2 s for a reader that is about to let go.
    pub patient: bool,
}

impl Default for ReaderOptions {
    fn default() -> ReaderOptions {
        ReaderOptions {
            copies: false,
            frame_bytes_max: usize::MAX,
            search_bytes_max: 1 << 30,
            patient: true,
        }
    }
}

impl ReaderOptions {
    /// For a thread that must not be held up for more than a few milliseconds, whatever the writing process does.
    pub fn guarded() -> ReaderOptions {
        ReaderOptions {
            copies: true,
            // An MQTT packet has at most 256 MiB; the rest is for what comes with it.
            frame_bytes_max: 260 << 20,
            search_bytes_max: 4 << 20,
            patient: false,
        }
    }
}
