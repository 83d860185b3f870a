//! Which epoch the positions of a spool's uplink log belong to: the file `uplink.epochs`.
//!
//! A position alone does not name a message. After a loss of power the log may end before messages that RocketMQ has
//! already, and what is taken next stands at their positions; and two brokers may be started from copies of one spool. So
//! each start of Mosquitto begins a new epoch at the position where the log ends then. What was taken before keeps its own:
//! sent again, it is the same message to everybody.
//!
//! ```text
//! mosquitto-rocketmq uplink epochs 2\n
//! \n
//! <epoch of the log> <first position> <epoch> <CRC32C of what stands before it>\n
//! \n
//! ```
//! One start of Mosquitto a line, twice, each with an empty line behind it; positions never fall; epochs and sums in hexadecimal digits. Twice, because
//! with a wrong epoch what is sent again would count as another message; and the empty lines keep a line break that is damaged from gluing both
//! copies together.
//!
//! The plugin writes it, whole or not at all and synced, before it takes the first message; the sidecar reads it. Lines that
//! no message can need any more are left out.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// For people, and for versions to come: each line can stand for itself.
const HEADER: &str = "mosquitto-rocketmq uplink epochs 2\n\n";
const NAME: &str = "uplink.epochs";
/// So many lines stay although no message needs them: segments behind the released position can be looked at for a while.
const STARTS_KEPT: usize = 64;
/// The lowest bits of an epoch are drawn at random: copies of a spool may be started in the same millisecond.
const RANDOM_BITS: u32 = 16;

/// The epochs of an uplink log by position.
#[derive(Debug)]
pub struct Epochs {
    path: PathBuf,
    log_epoch: u64,
    /// First position and epoch, in the order of the file.
    starts: Vec<(u64, u64)>,
    /// Inode and time of the file that was read.
    version: Option<(u64, i64, i64)>,
}

impl Epochs {
    /// Begins a new epoch at `end`, where the log ends now. Nothing before `released` is needed any more.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn begin(spool_dir: &Path, log_epoch: u64, released: u64, end: u64) -> io::Result<Epochs> {
        let mut epochs = Epochs::read(spool_dir, log_epoch)?;
        let newest = epochs.starts.last().map_or(log_epoch, |start| start.1);
        let needed = epochs
            .starts
            .iter()
            .rposition(|start| start.0 <= released)
            .unwrap_or(0);
        let spare = epochs.starts.len().saturating_sub(STARTS_KEPT);
        epochs.starts.drain(..needed.min(spare));
        // A log that was cut off ends before positions that an earlier line speaks of.
        epochs.starts.retain(|start| start.0 < end);
        epochs.starts.push((end, fresh_epoch(newest)));
        epochs.write(spool_dir)?;
        Ok(epochs)
    }

    /// Reads the file. One that isn't there, or that belongs to another log, says nothing: then all positions belong to the
    /// epoch of the log.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read(spool_dir: &Path, log_epoch: u64) -> io::Result<Epochs> {
        let mut epochs = Epochs {
            path: spool_dir.join(NAME),
            log_epoch,
            starts: Vec::new(),
            version: None,
        };
        epochs.load()?;
        Ok(epochs)
    }

    /// Reads the file again if it was replaced. Costs one system call if it was not.
    ///
    /// # Errors
    /// When the file can't be read; what was known stays.
    pub fn refresh(&mut self) -> io::Result<()> {
        if version_of(&self.path)? == self.version {
            return Ok(());
        }
        self.load()
    }

    /// The epoch of the message at this position.
    pub fn at(&self, position: u64) -> u64 {
        self.starts
            .iter()
            .rev()
            .find(|start| start.0 <= position)
            .map_or(self.log_epoch, |start| start.1)
    }

    fn load(&mut self) -> io::Result<()> {
        let version = version_of(&self.path)?;
        let text = match std::fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let found = parse(&text, self.log_epoch);
        if found.is_damaged {
            log::warn!(
                "{}: it is damaged, and read as far as one of two copies is good ({} starts of Mosquitto)",
                self.path.display(),
                found.starts.len()
            );
        }
        self.starts = found.starts;
        self.version = version;
        Ok(())
    }

    fn write(&mut self, spool_dir: &Path) -> io::Result<()> {
        let mut text = HEADER.to_owned();
        for (position, epoch) in &self.starts {
            text.push_str(&encode(self.log_epoch, *position, *epoch));
        }
        let fresh = self.path.with_extension("epochs.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        File::open(spool_dir)?.sync_all()?;
        self.version = version_of(&self.path)?;
        Ok(())
    }
}

/// A start as it stands in the file.
fn encode(log_epoch: u64, position: u64, epoch: u64) -> String {
    let line = format!("{log_epoch:x} {position} {epoch:x}");
    format!("{line} {:08x}\n\n", crc32c::crc32c(line.as_bytes())).repeat(2)
}

/// The log's epoch, a position and its epoch, of a line whose checksum is right.
fn decode(line: &str) -> Option<(u64, u64, u64)> {
    let (start, sum) = line.rsplit_once(' ')?;
    if sum != format!("{:08x}", crc32c::crc32c(start.as_bytes())) {
        return None;
    }
    let mut words = start.split(' ');
    let log_epoch = u64::from_str_radix(words.next()?, 16).ok()?;
    let position = words.next()?.parse().ok()?;
    let epoch = u64::from_str_radix(words.next()?, 16).ok()?;
    words
        .next()
        .is_none()
        .then_some((log_epoch, position, epoch))
}

/// What a file says of a log.
struct Parsed {
    starts: Vec<(u64, u64)>,
    /// Some line is no good, or stands there once.
    is_damaged: bool,
}

fn parse(text: &str, log_epoch: u64) -> Parsed {
    let lines = text.strip_prefix(HEADER);
    let mut is_damaged = lines.is_none() && !text.is_empty();
    let mut starts: Vec<(u64, u64)> = Vec::new();
    // Whether the last one has been seen twice.
    let mut is_double = true;
    for line in lines
        .unwrap_or(text)
        .lines()
        .filter(|line| !line.is_empty())
    {
        let Some((of, position, epoch)) = decode(line) else {
            is_damaged = true;
            continue;
        };
        if of != log_epoch {
            // Another log's: all of its lines are, and it is none of our concern.
            continue;
        }
        if starts.last() == Some(&(position, epoch)) {
            is_double = true;
            continue;
        }
        is_damaged |= !is_double;
        is_double = false;
        starts.push((position, epoch));
    }
    Parsed {
        starts,
        is_damaged: is_damaged || !is_double,
    }
}

fn version_of(path: &Path) -> io::Result<Option<(u64, i64, i64)>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some((found.ino(), found.mtime(), found.mtime_nsec()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An epoch that is newer than `newest` and that nobody else has: the time in milliseconds with random bits behind it. A
/// clock that was set back does not repeat one.
fn fresh_epoch(newest: u64) -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(0);
    let low = (1 << RANDOM_BITS) - 1;
    let time = (now << RANDOM_BITS).max((newest | low).saturating_add(1));
    // Its keys are random, and differ each time.
    time | (RandomState::new().build_hasher().finish() & low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_an_epoch_of_its_own_and_older_messages_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Epochs::read(dir.path(), 7).unwrap().at(100), 7);
        let first = Epochs::begin(dir.path(), 7, 0, 160).unwrap();
        assert_eq!(first.at(159), 7, "taken by a version that had no epochs");
        let second = Epochs::begin(dir.path(), 7, 0, 320).unwrap();
        assert_eq!(second.at(160), first.at(160));
        assert!(second.at(320) > first.at(319) && first.at(319) > 7);
        let read = Epochs::read(dir.path(), 7).unwrap();
        assert_eq!(
            [read.at(0), read.at(319), read.at(u64::MAX)],
            [7, first.at(160), second.at(320)]
        );
    }

    #[test]
    fn positions_that_are_used_again_after_a_loss_of_power_have_another_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let before = Epochs::begin(dir.path(), 7, 0, 0).unwrap();
        Epochs::begin(dir.path(), 7, 0, 1000).unwrap();
        // The log's last bytes never reached the disk: it ends at 800 now.
        let after = Epochs::begin(dir.path(), 7, 0, 800).unwrap();
        assert_eq!(after.at(799), before.at(799));
        assert_ne!(after.at(800), before.at(800));
        assert_eq!(after.at(1000), after.at(800));
    }

    #[test]
    fn copies_of_a_spool_part_at_their_start() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Epochs::begin(one.path(), 7, 0, 16).unwrap();
        std::fs::copy(one.path().join(NAME), other.path().join(NAME)).unwrap();
        let [one, other] = [one, other].map(|dir| Epochs::begin(dir.path(), 7, 0, 32).unwrap());
        assert_eq!(one.at(16), other.at(16));
        assert_ne!(one.at(32), other.at(32));
    }

    #[test]
    fn what_nothing_needs_any_more_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for start in 0..100 {
            Epochs::begin(dir.path(), 7, start * 10, start * 10 + 5).unwrap();
        }
        let kept = Epochs::read(dir.path(), 7).unwrap().starts.len();
        assert!(
            (STARTS_KEPT..STARTS_KEPT + 3).contains(&kept),
            "{kept} lines"
        );
    }

    #[test]
    fn a_running_reader_sees_a_new_start_and_another_log_is_not_mixed_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Epochs::read(dir.path(), 7).unwrap();
        let writer = Epochs::begin(dir.path(), 7, 0, 16).unwrap();
        reader.refresh().unwrap();
        assert_eq!(reader.at(16), writer.at(16));
        assert_eq!(Epochs::read(dir.path(), 8).unwrap().at(16), 8);
        std::fs::write(dir.path().join(NAME), b"\xff nonsense").unwrap();
        reader.refresh().unwrap();
        assert_eq!(reader.at(16), 7);
    }

    #[test]
    fn no_single_byte_that_is_changed_loses_an_epoch() {
        let dir = tempfile::tempdir().unwrap();
        for end in [0, 160, 320] {
            Epochs::begin(dir.path(), 0x1234_5678, 0, end).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        let whole = parse(&text, 0x1234_5678);
        assert!(!whole.is_damaged && whole.starts.len() == 3);
        for at in 0..text.len() {
            for change in [1, 2, 3, 16, 32, 128, 255, b'\n' ^ text.as_bytes()[at]] {
                if change == 0 {
                    continue;
                }
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= change;
                let found = parse(&String::from_utf8_lossy(&bytes), 0x1234_5678);
                assert_eq!(
                    found.starts, whole.starts,
                    "byte {at} changed by {change:#x}"
                );
                let is_newline_more = text.as_bytes()[at] == b'\n' || bytes[at] == b'\n';
                assert!(found.is_damaged || is_newline_more, "byte {at}");
            }
        }
    }

    #[test]
    fn a_line_without_a_good_copy_is_told_and_never_taken_for_another() {
        let [first, second] = [encode(7, 0, 100), encode(7, 160, 200)];
        let broken = second.replace("160", "161");
        let found = parse(&format!("{HEADER}{first}{broken}"), 7);
        assert_eq!((found.starts, found.is_damaged), (vec![(0, 100)], true));
        let other = parse(&format!("{HEADER}{first}{second}"), 8);
        assert_eq!((other.starts, other.is_damaged), (vec![], false));
    }

    #[test]
    fn a_clock_that_was_set_back_repeats_no_epoch() {
        let future = u64::MAX >> 2;
        assert!(fresh_epoch(future) > future);
        assert_ne!(fresh_epoch(0), fresh_epoch(0));
    }
}
