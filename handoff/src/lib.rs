//! The hand-off log: a crash-safe, lock-free log in shared memory between one writing and one reading process.
//!
//! It is at once the channel between the plugin and the sidecar and the disk spool: preallocated segment files, mapped by both sides, frames committed by
//! a release-store of their length and covered by a CRC32C, and a cursor page with both positions and the futex words that wake the side that sleeps.
//! What [`Writer::append`] returned `Ok` for outlives kill -9 of either process; `docs/handoff-format.md` has the bytes and the argument.
//!
//! It is **not** a queue for many writers or readers, not a database, and not a network protocol: both sides run on one machine as one user.
//!
//! The path of a message reads down the modules: [`Writer`] → frame → segment → cursor page → [`Reader`].
#![deny(unsafe_code)]

mod futex;
mod gate;
mod primitive;
mod threefold;

#[cfg(not(loom))]
mod checksum;
#[cfg(not(loom))]
mod contents;
#[cfg(not(loom))]
mod counters;
#[cfg(not(loom))]
mod counts;
#[cfg(not(loom))]
mod crc;
#[cfg(not(loom))]
mod creation;
#[cfg(not(loom))]
mod cursor;
#[cfg(not(loom))]
mod dir;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod frame;
#[cfg(not(loom))]
mod layout;
#[cfg(not(loom))]
mod log_files;
#[cfg(not(loom))]
mod look;
#[cfg(not(loom))]
mod opening;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod peek;
#[cfg(not(loom))]
mod prepare;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod recovery;
#[cfg(not(loom))]
mod repair;
#[cfg(not(loom))]
mod scan;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod source;
#[cfg(not(loom))]
mod sync;
#[cfg(not(loom))]
mod waiter;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use {
    counters::Counters,
    error::{AppendError, OpenError, ReadError, Role},
    look::LogState,
    options::{LogOptions, ReaderOptions, SyncPolicy},
    peek::Peek,
    reader::{Frame, Reader},
    waiter::Waiter,
    writer::Writer,
};

/// The frame decoder, for the fuzz targets alone.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::frame::{Decoded, Search, decode, encode, next_good};
    pub use crate::repair::{Mended, Stretch, mend};
}

/// Bytes since the log was created: where a frame starts, strictly growing, a multiple of 16.
#[cfg(not(loom))]
pub type Position = u64;

#[cfg(all(loom, test))]
#[allow(unsafe_code, clippy::undocumented_unsafe_blocks)]
mod loom_tests;
