//! The subscriptions that Mosquitto has saved, from its own database (`mosquitto.db`).
//!
//! As `persist_read.c`, `persist_read_v234.c` and `persist_read_v5.c` of 2.0.11 to 2.1.2 read it: a magic, a checksum that nobody uses, the version; then
//! chunks, each with a kind and the length of what follows. What is not a subscription is skipped by its length. Before version 5 all strings have a length
//! of two bytes before them; since then the lengths stand together at the start of the chunk. Numbers that matter here are big-endian.
//!
//! ```text
//! version 2 to 4: kind u16 | length u32 | client id | filter | QoS u8
//! version 5, 6:   kind u32 | length u32 | identifier u32 | id_len u16 | filter_len u16 | QoS u8 | options u8 | 2 unused | client id | filter
//! ```

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use std::time::UNIX_EPOCH;

const MAGIC: &[u8; 15] = b"\0\xB5\0mosquitto db";
const KIND_SUBSCRIPTION: u32 = 5;
/// Fixed part of a subscription's chunk since version 5.
const FIXED: usize = 12;

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SavedError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not begin as one")]
    Magic,
    #[error("its format {0} is not known")]
    Version(u32),
    #[error("it ends in the midst of a chunk")]
    Short,
    #[error("the subscription at byte {0} is not one")]
    Subscription(u64),
}

/// A database.
pub(super) struct Saved<R> {
    reader: BufReader<R>,
    /// Bytes that there are.
    len: u64,
    /// Bytes that were read.
    at: u64,
}

/// Opens Mosquitto's database. `None`: there is none, or an empty one, as Mosquitto takes it. With when it was written, in milliseconds of the Unix epoch.
pub(super) fn open(path: &Path) -> io::Result<Option<(Saved<File>, u64)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let written = metadata.modified()?.duration_since(UNIX_EPOCH);
    let written_ms = written.unwrap_or_default().as_millis();
    let saved = Saved::new(file, metadata.len());
    // 0 would say that there is none.
    let written_ms = u64::try_from(written_ms).unwrap_or(u64::MAX).max(1);
    Ok((metadata.len() > 0).then_some((saved, written_ms)))
}

impl<R: Read + Seek> Saved<R> {
    pub(super) fn new(reader: R, len: u64) -> Saved<R> {
        Saved {
            reader: BufReader::with_capacity(64 << 10, reader),
            len,
            at: 0,
        }
    }

    /// Calls `each` with the client id, the filter and the QoS of each subscription. Holds one of them at a time.
    pub(super) fn read(mut self, mut each: impl FnMut(&str, &str, u8)) -> Result<(), SavedError> {
        if &self.take::<15>()? != MAGIC {
            return Err(SavedError::Magic);
        }
        let [_checksum, version] = [self.number()?, self.number()?];
        let is_old = match version {
            2..=4 => true,
            5 | 6 => false,
            _ => return Err(SavedError::Version(version)),
        };
        let (mut client_id, mut filter) = (Vec::new(), Vec::new());
        while self.at < self.len {
            let start = self.at;
            let kind = match is_old {
                true => u16::from_be_bytes(self.take()?).into(),
                false => self.number()?,
            };
            let len = self.number()?;
            let end = self.at + u64::from(len);
            if end > self.len {
                return Err(SavedError::Short);
            }
            if kind != KIND_SUBSCRIPTION {
                self.skip_to(end)?;
                continue;
            }
            let broken = || SavedError::Subscription(start);
            let qos = match is_old {
                true => self.old_subscription(end, &mut client_id, &mut filter)?,
                false => self.subscription(end, &mut client_id, &mut filter)?,
            };
            let text = |bytes| std::str::from_utf8(bytes).ok().filter(|it| !it.is_empty());
            match (text(&client_id), text(&filter), qos) {
                (Some(client_id), Some(filter), Some(qos @ 0..=2)) if self.at == end => {
                    each(client_id, filter, qos);
                }
                _ => return Err(broken()),
            }
        }
        Ok(())
    }

    /// `None`: its lengths don't fit.
    fn subscription(
        &mut self,
        end: u64,
        client_id: &mut Vec<u8>,
        filter: &mut Vec<u8>,
    ) -> Result<Option<u8>, SavedError> {
        if end - self.at < FIXED as u64 {
            return Ok(None);
        }
        let fixed = self.take::<FIXED>()?;
        let id_len = u16::from_be_bytes([fixed[4], fixed[5]]);
        let filter_len = u16::from_be_bytes([fixed[6], fixed[7]]);
        let fits = self.string(id_len, end, client_id)? && self.string(filter_len, end, filter)?;
        Ok(fits.then_some(fixed[8]))
    }

    fn old_subscription(
        &mut self,
        end: u64,
        client_id: &mut Vec<u8>,
        filter: &mut Vec<u8>,
    ) -> Result<Option<u8>, SavedError> {
        for text in [client_id, filter] {
            if end - self.at < 2 {
                return Ok(None);
            }
            let len = u16::from_be_bytes(self.take()?);
            if !self.string(len, end, text)? {
                return Ok(None);
            }
        }
        if self.at == end {
            return Ok(None);
        }
        let [qos] = self.take()?;
        Ok(Some(qos))
    }

    /// False when it would end behind `end`.
    fn string(&mut self, len: u16, end: u64, text: &mut Vec<u8>) -> Result<bool, SavedError> {
        if u64::from(len) > end - self.at {
            return Ok(false);
        }
        text.clear();
        text.resize(len.into(), 0);
        self.fill(text)?;
        Ok(true)
    }

    fn number(&mut self) -> Result<u32, SavedError> {
        self.take().map(u32::from_be_bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SavedError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SavedError> {
        self.reader
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => SavedError::Short,
                _ => error.into(),
            })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// A chunk has less than 4 GiB.
    fn skip_to(&mut self, end: u64) -> Result<(), SavedError> {
        let ahead = i64::try_from(end - self.at).unwrap_or(i64::MAX);
        self.reader.seek_relative(ahead)?;
        self.at = end;
        Ok(())
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
