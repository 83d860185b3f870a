//! What the writer and its threads share: the log's files, and how a segment comes to be.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::Position;
use crate::cursor::Cursor;
use crate::dir::{self, Dir};
use crate::layout::{Description, SEGMENT_MAGIC};
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::Segment;

/// Spare segments that are kept for reuse; more of them go back to the file system.
const SPARES_MAX: usize = 2;
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

pub(crate) struct LogFiles {
    pub(crate) dir: Dir,
    pub(crate) description: Description,
    pub(crate) cursor: Arc<Cursor>,
    pub(crate) segments_max: u64,
    /// Have the pages of a new segment backed before it is appended to.
    pub(crate) prefault: bool,
    /// The segment that is appended to. In memory: what the page says may be damaged, or another process's garbage.
    pub(crate) current: AtomicU64,
    /// Everything before has been forced onto the disk, says this writer.
    pub(crate) synced: AtomicU64,
}

impl LogFiles {
    /// The published end, within the segment that is appended to.
    pub(crate) fn end(&self) -> Position {
        let current = self.current.load(Ordering::Relaxed);
        let (from, to) = (
            self.description.start_of(current),
            self.description.start_of(current + 1),
        );
        self.cursor.words().end.position().clamp(from, to)
    }

    /// The released position, as far as it can be believed: another process wrote it.
    pub(crate) fn released(&self, end: Position) -> Position {
        self.cursor.words().released.position().min(end)
    }

    /// Whether the bound lets segment `number` exist beside those that are not released, `end` being where the log ends.
    pub(crate) fn may_exist(&self, number: u64, end: Position) -> bool {
        let first = self.description.segment_of(self.released(end));
        number.saturating_sub(first) < self.segments_max
    }

    /// Makes segment `number`, behind `end`: reuses a released one or allocates a new one, zeroed and really backed by the disk.
    pub(crate) fn make_segment(&self, number: u64, end: Position) -> io::Result<Segment> {
        let ready = self.dir.segment(number);
        let unready = self.dir.unready_segment(number);
        let made = self.make_unready(number, end).and_then(|file| {
            fs::rename(&unready, &ready)?;
            // The name outlives a power loss before the first frame is in it: so no position is ever given away twice.
            self.dir.sync()?;
            Segment::map(file, number, self.description.segment_bytes, true)
        });
        match made {
            Ok(segment) => {
                if self.prefault {
                    segment.prefault();
                }
                Ok(segment)
            }
            Err(error) => {
                // The room of an unfinished file must not be lost; that it is gone already is no matter.
                let _ = fs::remove_file(&unready);
                Err(error)
            }
        }
    }

    fn make_unready(&self, number: u64, end: Position) -> io::Result<File> {
        let unready = self.dir.unready_segment(number);
        // Never the segment that is appended to, whatever the other process says that it has released.
        let first = self
            .description
            .segment_of(self.released(end))
            .min(self.current.load(Ordering::Relaxed));
        // Released ones, and what an earlier writer prepared ahead. The one of the same number first: it is in the way. Those between the end and `number`
        // are prepared already.
        let mut spares: Vec<u64> = self
            .dir
            .segments()?
            .into_iter()
            .filter(|&n| n < first || n >= number)
            .collect();
        spares.sort_unstable_by_key(|&n| (n != number, n));
        let file = match spares.first() {
            Some(&spare) => {
                fs::rename(self.dir.segment(spare), &unready)?;
                let file = dir::open(&unready, true, false)?;
                zero(&file, self.description.segment_bytes)?;
                file
            }
            None => dir::open(&unready, true, true)?,
        };
        // The oldest first: whoever is killed in between leaves no gap between those that are there.
        let surplus = spares.len().saturating_sub(1 + SPARES_MAX);
        for &surplus in spares.iter().skip(1).take(surplus) {
            fs::remove_file(self.dir.segment(surplus))?;
        }
        allocate(&file, self.description.segment_bytes)?;
        file.write_all_at(
            &self.description.of_segment(number).encode(SEGMENT_MAGIC),
            0,
        )?;
        file.sync_all()?;
        Ok(file)
    }

    /// Forces everything up to `end` onto the disk: the segments first, then the cursor page that speaks of them.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let words = self.cursor.words();
        let end = self.end();
        let from = self.synced.load(Ordering::Relaxed).max(self.released(end));
        let (first, last) = (
            self.description.segment_of(from),
            self.description.segment_of(end),
        );
        for number in self
            .dir
            .segments()?
            .into_iter()
            .filter(|n| (first..=last).contains(n))
        {
            match File::open(self.dir.segment(number)) {
                // Syncing the file covers what was stored through its mappings.
                Ok(file) => file.sync_data()?,
                // Released and reused meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.synced.store(end, Ordering::Relaxed);
        words.synced.store(end, Ordering::Relaxed);
        self.cursor.sync()
    }
}

/// Gives a file its size on the disk, so that no store into its mapping can meet a full one.
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length =
        libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: the descriptor is open; no memory is touched.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Zeroes a segment that is to be reused and keeps its blocks.
fn zero(file: &File, bytes: u64) -> io::Result<()> {
    let length =
        libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: the descriptor is open; no memory is touched.
    if unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_ZERO_RANGE, 0, length) } == 0 {
        return Ok(());
    }
    // File systems without that call (tmpfs) get zeros written.
    let mut out = file;
    let mut left = bytes;
    io::Seek::rewind(&mut out)?;
    while left > 0 {
        let n = left.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..n as usize])?;
        left -= n;
    }
    Ok(())
}
