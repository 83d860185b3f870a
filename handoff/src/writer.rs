//! The appending side.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::creation;
use crate::error::is_no_space;
use crate::frame;
use crate::gate::Permit;
use crate::layout::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::log_files::LogFiles;
use crate::prepare::{Preparer, Unready};
use crate::primitive::Ordering;
use crate::recovery;
use crate::segment::Segment;
use crate::sync::Syncer;
use crate::waiter::{Waiter, Which};
use crate::{AppendError, LogOptions, OpenError, Position, SyncPolicy};

/// The one writer of a log. Dropping it joins its threads and gives the role back; the log stays.
pub struct Writer {
    // The threads end before the lock is given back: fields drop in order.
    _syncer: Option<Syncer>,
    preparer: Preparer,
    segment: Segment,
    /// Where in the segment the next frame starts.
    offset: usize,
    end: Position,
    /// How many frames lie before `end`.
    frames: u64,
    /// The segment after this one was not asked for yet: the bound forbade it.
    next_unasked: bool,
    sync_always: bool,
    files: Arc<LogFiles>,
    permit: Permit,
    _lock: File,
}

impl Writer {
    /// Opens the log in `dir`, or creates both. Recovers what an earlier writer left, whatever it died of.
    ///
    /// # Errors
    /// Another writer has it, the format is of another version, the disk is full, or the files can't be used: see [`OpenError`].
    pub fn open(dir: &Path, options: &LogOptions) -> Result<Writer, OpenError> {
        options.check()?;
        let (files, lock) = creation::open_or_create(dir, options)?;
        let files = Arc::new(files);
        let (segment, end, frames) = recovery::recover(&files)?;
        let thread = |e| OpenError::io(dir, "start a thread", e);
        let preparer = Preparer::start(Arc::clone(&files), options.may_wait).map_err(thread)?;
        let syncer = match options.sync {
            SyncPolicy::Interval(interval) => {
                Some(Syncer::start(Arc::clone(&files), interval).map_err(thread)?)
            }
            SyncPolicy::None | SyncPolicy::Always => None,
        };
        let offset = files.description.offset_of(end);
        let sync_always = options.sync == SyncPolicy::Always;
        let mut writer = Writer {
            _syncer: syncer,
            preparer,
            segment,
            offset,
            end,
            frames,
            next_unasked: true,
            sync_always,
            files,
            permit: Permit::new(),
            _lock: lock,
        };
        writer.ask_for_next();
        Ok(writer)
    }

    /// Unix milliseconds at which this log was created. With a position it names a frame, unless a loss of power took frames
    /// from the log's end: then their positions are used again.
    pub fn epoch(&self) -> u64 {
        self.files.description.epoch
    }

    /// The largest payload that fits into a frame.
    pub fn frame_len_max(&self) -> usize {
        self.files.description.frame_len_max()
    }

    /// Appends a frame of `len` bytes that `fill` writes in place (they are zero before), and wakes the reader. Returns where the frame starts.
    ///
    /// Once this has returned `Ok`, the frame outlives the death of every process. No allocation; no system call while the reader is awake, the segment has
    /// room and the policy isn't `Always`. If `fill` panics, the log is as before.
    ///
    /// # Errors
    /// See [`AppendError`]; but for its `NotSynced` nothing was appended.
    pub fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Position, AppendError> {
        let max = self.frame_len_max();
        if len > max {
            return Err(AppendError::TooLarge { len, max });
        }
        let total = frame::total_bytes(len);
        if total > self.segment.len() - self.offset {
            self.roll_over()?;
        }
        if self.next_unasked {
            self.ask_for_next();
        }
        let start = self.end;
        let frame = self.segment.claim(self.offset, total);
        let mut claimed = ZeroOnUnwind { frame, armed: true };
        fill(&mut claimed.frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len]);
        claimed.armed = false;
        let word = frame::encode(
            claimed.frame,
            len,
            false,
            start,
            self.files.description.salt,
        );
        drop(claimed);
        self.segment.commit(self.offset, word);
        self.offset += total;
        self.end += total as u64;
        self.frames = self.frames.wrapping_add(1);
        let words = self.files.cursor.words();
        words.publish(start, self.end, self.frames);
        if self.sync_always
            && let Err(source) = self.segment.file.sync_data()
        {
            return Err(AppendError::NotSynced {
                position: start,
                source,
            });
        }
        Ok(start)
    }

    /// Appends a frame with a copy of `payload`; as [`Writer::append_with`].
    ///
    /// # Errors
    /// As [`Writer::append_with`].
    pub fn append(&mut self, payload: &[u8]) -> Result<Position, AppendError> {
        self.append_with(payload.len(), |frame| frame.copy_from_slice(payload))
    }

    /// The position behind the last committed frame.
    pub fn end(&self) -> Position {
        self.end
    }

    /// How many frames have been appended since the log was created: those before [`Writer::end`]. Exact also after kill -9.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Everything before this position is done with, says the reader.
    pub fn released(&self) -> Position {
        self.files.released(self.end)
    }

    /// Bytes that the reader has not released.
    pub fn used_bytes(&self) -> u64 {
        self.end - self.released()
    }

    /// Bytes that the log can hold when it is full, with all its segments: what the options allow, in whole segments.
    pub fn bytes_max(&self) -> u64 {
        self.files.segments_max * self.files.description.capacity()
    }

    /// Blocks until a frame of `len` bytes fits (true) or `timeout` has passed (false). For a writer that may wait; the plugin's must not.
    pub fn wait_for_room(&self, len: usize, timeout: Duration) -> bool {
        let since = Instant::now();
        loop {
            let left = timeout.saturating_sub(since.elapsed());
            let released = self.released();
            if len <= self.frame_len_max()
                && frame::total_bytes(len) <= self.segment.len() - self.offset
            {
                return true;
            }
            if self.files.may_exist(self.segment.number + 1, self.end) {
                return self.preparer.wait_ready(self.segment.number + 1, left);
            }
            if left.is_zero() {
                return false;
            }
            self.files
                .cursor
                .words()
                .released
                .wait_beyond(released, Some(left), &self.permit);
        }
    }

    /// Blocks until the reader has released something beyond `beyond` or `timeout` has passed. Returns what it has released.
    pub fn wait_for_release(&self, beyond: Position, timeout: Duration) -> Position {
        self.files
            .cursor
            .words()
            .released
            .wait_beyond(beyond, Some(timeout), &self.permit)
            .min(self.end)
    }

    /// Waits for releases in another thread.
    pub fn release_waiter(&self) -> Waiter {
        Waiter::new(Arc::clone(&self.files.cursor), Which::Released)
    }

    /// Forces everything appended so far onto the disk. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.files.sync()
    }

    /// Goes on in the next segment, if there may be one and it is ready.
    fn roll_over(&mut self) -> Result<(), AppendError> {
        let next = self.segment.number + 1;
        if !self.files.may_exist(next, self.end) {
            return Err(AppendError::Full);
        }
        let segment = self.preparer.take(next).map_err(|unready| match unready {
            Unready::Pending => AppendError::Full,
            Unready::Failed(error) if is_no_space(&error) => AppendError::NoSpace(error),
            Unready::Failed(error) => AppendError::Io(error),
        })?;
        let log = &self.files.description;
        recovery::close(&mut self.segment, self.offset, self.end, log.salt);
        let passed = std::mem::replace(&mut self.segment, segment);
        self.offset = SEGMENT_HEADER_BYTES as usize;
        let before = std::mem::replace(&mut self.end, log.start_of(next));
        self.next_unasked = true;
        self.files.current.store(next, Ordering::Relaxed);
        let words = self.files.cursor.words();
        words.publish(before, self.end, self.frames);
        // The frames in it have been synced, each in its turn, and the padding behind them not yet: without it they would count as torn.
        let synced = match self.sync_always {
            true => passed.file.sync_data(),
            false => Ok(()),
        };
        self.preparer.retire(passed);
        synced.map_err(AppendError::Io)
    }

    /// Has the segment after this one prepared, as soon as the bound lets it exist.
    fn ask_for_next(&mut self) {
        let next = self.segment.number + 1;
        if self.files.may_exist(next, self.end) {
            self.preparer.want(next);
            self.next_unasked = false;
        }
    }
}

/// Makes a claim zero again when the closure that fills it panics: bytes behind the end have to be zero.
struct ZeroOnUnwind<'a> {
    frame: &'a mut [u8],
    armed: bool,
}

impl Drop for ZeroOnUnwind<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.frame.fill(0);
        }
    }
}
