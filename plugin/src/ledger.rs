//! Counting: each message once, whoever is killed when.
//!
//! The counters outlive Mosquitto. What ends a message changes together with the place in the log up to which is counted
//! (`Counters::set_all`). What Mosquitto was in the midst of when it was killed is found at the next start: a publish is counted as
//! matched before it is appended, and the log knows how many frames it has.

use handoff::{Counters, Frame, Reader, Writer};
use protocol::counters as count;

/// A message was appended to the uplink log, with so many bytes.
pub(crate) fn appended(counters: &Counters, bytes: u64, writer: &Writer) {
    counters.set_all(&[
        (
            count::UPLINK_APPENDED,
            counters.get(count::UPLINK_APPENDED) + 1,
        ),
        (
            count::UPLINK_BYTES,
            counters.get(count::UPLINK_BYTES) + bytes,
        ),
        (count::UPLINK_LOG_FRAMES, writer.frames()),
    ]);
}

/// A message that could not be injected was appended to the uplink log.
pub(crate) fn returned(counters: &Counters, writer: &Writer) {
    counters.set_all(&[
        (
            count::UPLINK_RETURNED,
            counters.get(count::UPLINK_RETURNED) + 1,
        ),
        (count::UPLINK_LOG_FRAMES, writer.frames()),
    ]);
}

/// The uplink log is written from now on: counts what the Mosquitto before this one did not come to count.
pub(crate) fn begin_uplink(counters: &Counters, writer: &Writer) {
    settle(counters, writer.epoch(), writer.frames());
}

fn settle(counters: &Counters, epoch: u64, frames: u64) {
    let get = |counter| counters.get(counter);
    let ended: u64 = count::UPLINK_ENDS.iter().map(|end| get(*end)).sum();
    // At most one, but for a loss of power, which may take newer counters than frames, or the other way round.
    let open = get(count::UPLINK_MATCHED).saturating_sub(ended);
    let is_same = get(count::UPLINK_LOG_EPOCH) == epoch;
    let counted = get(count::UPLINK_LOG_FRAMES);
    let (more, lost) = match is_same {
        true => (
            frames.saturating_sub(counted),
            counted.saturating_sub(frames),
        ),
        false => (0, 0),
    };
    let finished = open.min(more);
    let (returned, unknown) = match more - finished {
        rest @ 0..=1 => (rest, 0),
        // More than a kill can leave: the counters are older than the log.
        rest => (0, rest),
    };
    let now = [
        (count::UPLINK_MATCHED, unknown),
        (count::UPLINK_APPENDED, finished + unknown),
        (count::UPLINK_RETURNED, returned),
        (count::UPLINK_INTERRUPTED, open - finished),
        (count::UPLINK_LOST, lost),
    ]
    .map(|(counter, added)| (counter, get(counter) + added));
    let [_, (_, appended), (_, returned), _, (_, lost)] = now;
    let base = match is_same {
        true => get(count::UPLINK_LOG_BASE),
        false => appended
            .wrapping_add(returned)
            .wrapping_sub(lost)
            .wrapping_sub(frames),
    };
    let mut changes = now.to_vec();
    changes.extend([
        (count::UPLINK_LOG_EPOCH, epoch),
        (count::UPLINK_LOG_FRAMES, frames),
        (count::UPLINK_LOG_BASE, base),
    ]);
    counters.set_all(&changes);
}

/// The downlink log is read from now on.
pub(crate) fn begin_downlink(counters: &Counters, reader: &Reader) {
    if counters.get(count::DOWNLINK_LOG_EPOCH) == reader.epoch() {
        return;
    }
    let ended = count::DOWNLINK_ENDS.iter().map(|end| counters.get(*end));
    let base = ended.sum::<u64>().wrapping_sub(reader.released_frames());
    counters.set_all(&[
        (count::DOWNLINK_LOG_EPOCH, reader.epoch()),
        (count::DOWNLINK_LOG_POSITION, reader.position()),
        (count::DOWNLINK_LOG_FRAMES, reader.released_frames()),
        (count::DOWNLINK_LOG_BASE, base),
    ]);
}

/// A frame of the downlink log has ended in `counter`. One that comes again, because Mosquitto was killed before it could be
/// released, is not counted again.
pub(crate) fn ended(counters: &Counters, counter: usize, frame: &Frame<'_>) {
    if frame.next > counters.get(count::DOWNLINK_LOG_POSITION) {
        counters.set_all(&[
            (counter, counters.get(counter) + 1),
            (count::DOWNLINK_LOG_POSITION, frame.next),
            (
                count::DOWNLINK_LOG_FRAMES,
                counters.get(count::DOWNLINK_LOG_FRAMES) + 1,
            ),
        ]);
    }
}

/// Everything before the reader's released position is counted but for what was damaged.
pub(crate) fn damaged(counters: &Counters, reader: &Reader) {
    let counted = counters.get(count::DOWNLINK_LOG_FRAMES);
    let frames = reader.released_frames();
    if frames > counted {
        let damaged = counters.get(count::DOWNLINK_DAMAGED) + (frames - counted);
        counters.set_all(&[
            (count::DOWNLINK_DAMAGED, damaged),
            (count::DOWNLINK_LOG_FRAMES, frames),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(dir: &tempfile::TempDir) -> Counters {
        Counters::keep(&dir.path().join("counters"), count::COUNT).expect("counters")
    }

    /// Killed before the append, behind it, and behind its counter.
    #[test]
    fn a_publish_that_mosquitto_was_killed_in_is_counted_once_at_the_next_start() {
        for (frames, appended, interrupted) in [(10, 10, 1), (11, 11, 0)] {
            let dir = tempfile::tempdir().expect("a directory");
            let counters = page(&dir);
            settle(&counters, 7, 0);
            counters.set_all(&[
                (count::UPLINK_MATCHED, 11),
                (count::UPLINK_APPENDED, 10),
                (count::UPLINK_LOG_FRAMES, 10),
            ]);
            drop(counters);
            for _ in 0..2 {
                let counters = page(&dir);
                settle(&counters, 7, frames);
                assert_eq!(counters.get(count::UPLINK_APPENDED), appended);
                assert_eq!(counters.get(count::UPLINK_INTERRUPTED), interrupted);
                assert_eq!(counters.get(count::UPLINK_RETURNED), 0);
                assert_eq!(counters.get(count::UPLINK_LOG_BASE), 0);
            }
        }
    }

    #[test]
    fn what_was_returned_and_not_counted_is_counted_and_what_power_took_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let counters = page(&dir);
        settle(&counters, 7, 0);
        settle(&counters, 7, 1);
        assert_eq!(counters.get(count::UPLINK_RETURNED), 1);
        counters.set_all(&[
            (count::UPLINK_MATCHED, 5),
            (count::UPLINK_APPENDED, 5),
            (count::UPLINK_LOG_FRAMES, 6),
        ]);
        settle(&counters, 7, 4);
        assert_eq!(counters.get(count::UPLINK_LOST), 2);
        // Another log: the equation goes on with what was before.
        settle(&counters, 8, 0);
        assert_eq!(counters.get(count::UPLINK_LOG_BASE), 4);
    }
}
