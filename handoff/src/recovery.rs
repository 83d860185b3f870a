//! Where a log that was left behind ends, and how its writer goes on.
//!
//! Two cases, told apart by the boot id in the cursor page:
//! - **The machine has run on** (a process died): the kernel has every byte that was stored. The published end is exact, at most one frame (and a padding) is
//!   committed behind it, and the writer goes on right behind that. Nothing that a reader may have seen is touched.
//! - **The machine was restarted** (or the page is damaged): pages may have reached the disk in any order. The last segment that holds a good frame is looked
//!   for; what lies behind that frame is closed, and the writer goes on in a *new* segment, whose number no segment had before: so no position that a
//!   reader may have seen, and passed on as part of a message's identity, is ever used for another frame. Torn frames stay for the reader to find and report.
use std::io;
use std::os::unix::fs::FileExt;

use crate::Position;
use crate::contents::Contents;
use crate::dir;
use crate::error::{OpenError, is_no_space};
use crate::frame::{self, Decoded};
use crate::layout::{
    DESCRIPTION_BYTES, FRAME_ALIGN, FRAME_HEADER_BYTES, POSITION_MAX, SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
};
use crate::log_files::{LogFiles, allocate};
use crate::primitive::Ordering;
use crate::scan;
use crate::segment::Segment;

/// How far a position in the cursor page may lead beyond the segments that are there and still be believed.
const GAP_SEGMENTS_MAX: u64 = 1 << 16;

/// Finds the end of the log and makes it ready for appending: the segment that the next frame goes to, the end, and how many
/// frames lie before it.
pub(crate) fn recover(files: &LogFiles) -> Result<(Segment, Position, u64), OpenError> {
    let io = |e| OpenError::io(&files.dir.path, "read the segments", e);
    let segments = files.dir.segments().map_err(io)?;
    let words = files.cursor.words();
    let agreed = words.end.agreed();
    if words.end.is_damaged() {
        log::warn!(
            "{}: the published end is damaged in the cursor page ({agreed:?} is left of it)",
            files.dir.path.display()
        );
    }
    let published = agreed.unwrap_or_else(|copies| copies[0]);
    let boot = boot_id();
    let mut end = None;
    if boot != 0
        && agreed.is_ok()
        && words.boot.load(Ordering::Relaxed) == boot
        && is_plausible(files, published, &segments)
    {
        end = end_after_process_death(files, published, &segments).map_err(io)?;
    }
    let is_exact = end.is_some();
    let (end, passed) = match end {
        Some(found) => found,
        None => (
            end_after_power_loss(files, published, &segments).map_err(io)?,
            0,
        ),
    };
    let counted = words.end_frames.get(published);
    let counted = counted.map(|frames| frames.saturating_add(passed));
    let is_settled = settle_released(files, end, &segments);
    let frames = match counted {
        Some(frames) if is_settled && is_exact => frames,
        _ => recount(files, end, &segments, counted).map_err(io)?,
    };
    // Before a segment is made: on a full disk the released ones before this one are all the room there is.
    files
        .current
        .store(files.description.segment_of(end), Ordering::Relaxed);
    let segment = open_tail(files, end, &segments)?;
    // Also when it is there already: all copies of it are good then.
    words.publish(published, end, frames);
    words.boot.store(boot, Ordering::Relaxed);
    Ok((segment, end, frames))
}

/// Counts the frames between the released position and the end where the cursor page can't tell. Returns how many lie before
/// the end. `counted` is what the page and what lies behind the published end say of that.
fn recount(
    files: &LogFiles,
    end: Position,
    segments: &[u64],
    counted: Option<u64>,
) -> io::Result<u64> {
    let (log, words) = (&files.description, files.cursor.words());
    let released = words.released.position();
    let mut waiting: u64 = 0;
    let (first, last) = (log.segment_of(released), log.segment_of(end));
    for &number in segments.iter().filter(|n| (first..=last).contains(*n)) {
        let start = log.start_of(number);
        let first = released.max(start);
        let to = usize::try_from(end - start.min(end)).unwrap_or(usize::MAX);
        let to = to
            .saturating_add(SEGMENT_HEADER_BYTES as usize)
            .min(log.segment_bytes as usize);
        // What is not there is reported by the reader when it comes there.
        let found = Contents::read(&files.dir.segment(number), log.offset_of(first)..to)?;
        waiting += scan::good(&found.bytes, first, log.salt, true).frames;
    }
    let before = words
        .released_frames
        .get(released)
        .unwrap_or_else(|| counted.unwrap_or(0).saturating_sub(waiting));
    words.released_frames.set(released, released, before);
    Ok(before.saturating_add(waiting))
}

/// Whether the published end can be true: its segment is there, or it is the start of one that was yet to be made.
fn is_plausible(files: &LogFiles, end: Position, segments: &[u64]) -> bool {
    let number = files.description.segment_of(end);
    let at_start = end == files.description.start_of(number);
    let known = |number: u64| segments.binary_search(&number).is_ok();
    end <= POSITION_MAX
        && end.is_multiple_of(FRAME_ALIGN as u64)
        && if at_start {
            known(number) || number == 0 && segments.is_empty() || number > 0 && known(number - 1)
        } else {
            known(number)
        }
}

/// The end, and how many frames lie between the published one and it. `None` when a good frame ends behind what is no frame: then the published end was not where the
/// writer had come to, but damaged, or the files were copied while they were written to. Also when the segment is cut short or the disk does not give all of it: then
/// nothing can be appended to it.
fn end_after_process_death(
    files: &LogFiles,
    published: Position,
    segments: &[u64],
) -> io::Result<Option<(Position, u64)>> {
    let log = &files.description;
    let mut end = published;
    let mut frames = 0;
    // Bounded: each turn passes at least one frame, and a dead writer leaves at most a padding and a frame.
    'segments: while segments.binary_search(&log.segment_of(end)).is_ok() {
        let number = log.segment_of(end);
        let start = log.start_of(number);
        let segment = read_frames(files, number)?;
        if !segment.is_whole {
            return Ok(None);
        }
        while end < start + log.capacity() {
            let here = &segment.bytes[(end - start) as usize..];
            match frame::decode(here, end, log.salt) {
                Decoded::Payload { total, .. } => {
                    end += total as u64;
                    frames += 1;
                }
                Decoded::Padding { total } => end += total as u64,
                Decoded::Bad(_) => {
                    let good = scan::good(&segment.bytes, start, log.salt, false).end;
                    if good.is_some_and(|good| start + good as u64 > end)
                        || begins_later(files, number, segments)?
                    {
                        return Ok(None);
                    }
                    break 'segments;
                }
            }
        }
    }
    Ok(Some((end, frames)))
}

/// All frames of a segment.
fn read_frames(files: &LogFiles, number: u64) -> io::Result<Contents> {
    let part = SEGMENT_HEADER_BYTES as usize..files.description.segment_bytes as usize;
    Contents::read(&files.dir.segment(number), part)
}

/// Whether a segment behind `number` begins with a good frame: those that are only prepared are empty.
fn begins_later(files: &LogFiles, number: u64, segments: &[u64]) -> io::Result<bool> {
    let log = &files.description;
    let first = SEGMENT_HEADER_BYTES as usize;
    for &later in segments.iter().filter(|&&later| later > number) {
        let path = files.dir.segment(later);
        let head = Contents::read(&path, first..first + FRAME_HEADER_BYTES)?.bytes;
        let word = head
            .first_chunk()
            .map_or(0, |word| u32::from_le_bytes(*word));
        let total = frame::total_of(word).filter(|total| *total as u64 <= log.capacity());
        if let Some(total) = total {
            let found = Contents::read(&path, first..first + total)?.bytes;
            let decoded = frame::decode(&found, log.start_of(later), log.salt);
            if !matches!(decoded, Decoded::Bad(_)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn end_after_power_loss(
    files: &LogFiles,
    published: Position,
    segments: &[u64],
) -> io::Result<Position> {
    let log = &files.description;
    let place = files.dir.path.display();
    log::warn!(
        "{place}: the machine was restarted, or the cursor page or a segment is damaged; looking for the end of the log in its segments"
    );
    for &number in segments.iter().rev() {
        let start = log.start_of(number);
        let segment = read_frames(files, number)?;
        let good = scan::good(&segment.bytes, start, log.salt, true).end;
        let tail = good.unwrap_or(0);
        let rest = &segment.bytes[tail..];
        let lost = published > start + tail as u64 && !rest.is_empty();
        if !segment.is_whole || lost || !scan::is_zero(rest) {
            log::warn!("{place}: segment {number} is torn behind byte {tail} of its frames");
        } else if let Err(error) = close_behind(files, number, tail) {
            log::warn!("{place}: segment {number} cannot be closed behind its frames: {error}");
        }
        if good.is_some() {
            break;
        }
    }
    // A number that no segment had: see the module's head.
    let mut next = segments.last().map_or(0, |last| last + 1);
    for position in [published, files.cursor.words().released.position()] {
        let number = position.div_ceil(log.capacity());
        if position <= POSITION_MAX && number < next + GAP_SEGMENTS_MAX {
            next = next.max(number);
        }
    }
    Ok(log.start_of(next))
}

/// Fills a segment up behind `tail` bytes of frames. Where that fails, the reader reports what is missing.
fn close_behind(files: &LogFiles, number: u64, tail: usize) -> io::Result<()> {
    let log = &files.description;
    let mut segment = open(files, number)?;
    // A file that was restored or copied may be sparse, and a store into its mapping on a full disk a SIGBUS.
    allocate(&segment.file, log.segment_bytes)?;
    close(
        &mut segment,
        SEGMENT_HEADER_BYTES as usize + tail,
        log.start_of(number) + tail as u64,
        log.salt,
    );
    Ok(())
}

/// Fills the rest of a segment with a padding frame. It is zero.
pub(crate) fn close(segment: &mut Segment, offset: usize, position: Position, salt: u32) {
    let left = segment.len() - offset;
    if left >= FRAME_HEADER_BYTES {
        let word = frame::encode(
            segment.claim(offset, left),
            left - FRAME_HEADER_BYTES,
            true,
            position,
            salt,
        );
        segment.commit(offset, word);
    }
}

/// Puts a released position that can't be true back to the oldest segment: to deliver twice is better than to lose.
/// False when it had to be, or when nobody knows how many frames lie before it.
fn settle_released(files: &LogFiles, end: Position, segments: &[u64]) -> bool {
    let oldest = segments
        .first()
        .map_or(end, |&oldest| files.description.start_of(oldest))
        .min(end);
    let gate = &files.cursor.words().released;
    match gate.agreed() {
        Ok(released) if released <= end && released.is_multiple_of(FRAME_ALIGN as u64) => {
            if released < oldest {
                // The page is older than the segments: what lay before them had been released.
                gate.advance(oldest);
                return false;
            }
            let known = &files.cursor.words().released_frames;
            known.get(released).is_some()
        }
        found => {
            log::warn!(
                "{}: the released position {found:?} cannot be true (the log ends at {end}); starting again at {oldest}",
                files.dir.path.display()
            );
            gate.advance(oldest);
            false
        }
    }
}

/// Opens (or makes) the segment that the next frame goes to, with nothing behind the end.
fn open_tail(files: &LogFiles, end: Position, segments: &[u64]) -> Result<Segment, OpenError> {
    let log = &files.description;
    let number = log.segment_of(end);
    let path = files.dir.segment(number);
    if segments.binary_search(&number).is_err() {
        return files
            .make_segment(number, end)
            .map_err(|e| match is_no_space(&e) {
                true => OpenError::NoSpace {
                    path,
                    bytes: log.segment_bytes,
                    source: e,
                },
                false => OpenError::io(path, "make a segment", e),
            });
    }
    let io = |e| OpenError::io(&path, "open the segment", e);
    let mut segment = open(files, number).map_err(io)?;
    let header = log.of_segment(number).encode(SEGMENT_MAGIC);
    let mut found = [0; DESCRIPTION_BYTES];
    segment.file.read_exact_at(&mut found, 0).map_err(io)?;
    if found != header {
        log::warn!(
            "{}: its header is damaged; writing it again",
            path.display()
        );
        segment.file.write_all_at(&header, 0).map_err(io)?;
    }
    // A file that was restored or copied may be sparse.
    allocate(&segment.file, log.segment_bytes).map_err(io)?;
    let offset = log.offset_of(end);
    let rest = segment.claim(offset, log.segment_bytes as usize - offset);
    if !scan::is_zero(rest) {
        // What a writer had begun when it died. Its bytes must not be taken for frames once the end has grown to their middle.
        rest.fill(0);
    }
    if files.prefault {
        segment.prefault();
    }
    Ok(segment)
}

fn open(files: &LogFiles, number: u64) -> io::Result<Segment> {
    let file = dir::open(&files.dir.segment(number), true, false)?;
    Segment::map(file, number, files.description.segment_bytes, true)
}

/// A number that differs from boot to boot, or 0 when the system does not tell.
pub(crate) fn boot_id() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}
