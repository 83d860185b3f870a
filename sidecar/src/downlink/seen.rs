//! Which messages have been handed over before, told by their identity: at-least-once on the sending node's side stores
//! some twice, and here they are dropped.
//!
//! A sending node's lane puts its messages into one RocketMQ queue in the order of their positions, and a repetition repeats
//! from where it began, in order. So one mark per origin, lane and queue is enough: what stands behind the mark in the queue
//! and not above it in position has been here. `mqtt_lane` names the layout of the sender's lanes: when a topic gets other
//! queues, messages change their lane, and begin under another name at a mark of their own.
//!
//! Left alone are messages without identity or lane (from other producers), those with a lane whose seal says that they are
//! not what was put into this queue (an application has copied the properties of one of ours), and a queue that is read again from further
//! back because an operator set the group's offset: a mark only counts for what lies behind the offset at which it was made.
//! What was replayed from the dead letters is out of order by its nature: of that, each identity is remembered by itself.
//!
//! The file `downlink.seen` keeps the marks over a restart, in the manner of `downlink.offsets` and with the same rule: it is
//! believed only for the same log and the same start of the machine. A mark that is forgotten costs a repetition, never a
//! message.
//!
//! ```text
//! mosquitto-rocketmq downlink seen 1 <epoch of the log> <boot id>\n
//! <position> <copy> <offset> <used, Unix seconds> <lane> <queue id> <broker> <topic> <node:epoch>\n     one line a mark
//! replayed <offset> <copy> <queue id> <broker> <topic> <identity>\n                           one line a replayed message
//! ```

mod lines;
mod place;

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rocketmq::Queue;

use lines::{Mark, REPLAYED, mark_line, parse_mark, parse_replay, replay_line};
pub(crate) use place::Place;
use place::{Key, ReplayKey};

const MAGIC: &str = "mosquitto-rocketmq downlink seen 1";
/// Marks kept: some hundred bytes each. A hundred nodes that send to sixteen queues make 1,600 a start of theirs.
const MARKS_MAX: usize = 16_384;
/// A mark that was not used for so long is not taken over by the next run.
const FORGET_AFTER_S: u64 = 30 * 24 * 3600;
/// Identities of replayed messages kept.
const REPLAYS_MAX: usize = 4_096;
/// A longer file is written anew: marks that were forgotten still have their lines.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Seen {
    path: PathBuf,
    header: String,
    file: File,
    end: u64,
    marks: HashMap<Key, Mark>,
    dirty: Vec<Key>,
    replays: HashMap<ReplayKey, (Queue, i64)>,
    /// Oldest first.
    replay_order: VecDeque<ReplayKey>,
    /// Lines of replays in the file, forgotten ones among them.
    replay_lines: usize,
    /// Lines not yet in the file.
    new_replays: String,
    /// The last message of each sender that was read back: its place, and its offset.
    read_back: HashMap<Key, (place::Order, i64)>,
    marks_max: usize,
}

impl Seen {
    /// Reads the file, or starts a new one if there is none, or if it must not be believed.
    pub(crate) fn open(spool_dir: &Path, epoch: u64, boot_id: &str) -> io::Result<Seen> {
        let path = spool_dir.join("downlink.seen");
        let header = format!("{MAGIC} {epoch} {boot_id}\n");
        let old = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut seen = Seen {
            file: fresh_file(&path)?,
            path,
            header,
            end: 0,
            marks: HashMap::new(),
            dirty: Vec::new(),
            replays: HashMap::new(),
            replay_order: VecDeque::new(),
            replay_lines: 0,
            new_replays: String::new(),
            read_back: HashMap::new(),
            marks_max: MARKS_MAX,
        };
        if let Some(lines) = old.strip_prefix(seen.header.as_str()) {
            let oldest = now_s().saturating_sub(FORGET_AFTER_S);
            lines.lines().for_each(|line| seen.read(line, oldest));
        }
        while seen.marks.len() > seen.marks_max {
            seen.forget_oldest();
        }
        seen.rewrite()?;
        Ok(seen)
    }

    /// The message was handed over before.
    pub(crate) fn contains(&self, place: &Place) -> bool {
        if place.is_replayed {
            let found = self.replays.get(&place.replay_key());
            // The same one, read once more because an operator wants it, is no repetition.
            return found.is_some_and(|(queue, offset)| {
                *queue != place.key.queue || place.offset > *offset
            });
        }
        self.marks
            .get(&place.key)
            .is_some_and(|mark| place.order <= mark.order && place.offset > mark.offset)
    }

    /// The message, which was read back, repeats one before it. The marks say nothing of those: what they stand for was read further on.
    pub(crate) fn is_repeated_in_read_back(&mut self, place: &Place) -> bool {
        if place.is_replayed {
            return self.contains(place);
        }
        let now = (place.order, place.offset);
        match self.read_back.get_mut(&place.key) {
            Some((order, offset)) if place.offset > *offset && place.order <= *order => true,
            Some(last) => {
                *last = now;
                false
            }
            None => {
                if self.read_back.len() >= self.marks_max {
                    self.read_back.clear();
                }
                self.read_back.insert(place.key.clone(), now);
                false
            }
        }
    }

    /// The message is handed over. [`Seen::flush`] keeps it for the next run.
    pub(crate) fn note(&mut self, place: &Place) {
        if place.is_replayed {
            let key = place.replay_key();
            self.new_replays
                .push_str(&replay_line(&key, &place.key.queue, place.offset));
            self.replay_lines += 1;
            self.remember_replay(key, place.key.queue.clone(), place.offset);
            return;
        }
        let used_s = now_s();
        if let Some(mark) = self.marks.get_mut(&place.key) {
            mark.order = place.order;
            mark.offset = place.offset;
            mark.used_s = used_s;
            if !std::mem::replace(&mut mark.is_dirty, true) {
                self.dirty.push(place.key.clone());
            }
            return;
        }
        if self.marks.len() >= self.marks_max {
            self.forget_oldest();
        }
        let mark = Mark {
            at: 0,
            order: place.order,
            offset: place.offset,
            used_s,
            is_dirty: true,
        };
        self.marks.insert(place.key.clone(), mark);
        self.dirty.push(place.key.clone());
    }

    /// The message lies in the log since an earlier run, which may have died before it kept that.
    pub(crate) fn note_older(&mut self, place: &Place) {
        let is_known = match place.is_replayed {
            true => self.replays.contains_key(&place.replay_key()),
            false => self
                .marks
                .get(&place.key)
                .is_some_and(|mark| place.order <= mark.order),
        };
        if !is_known {
            self.note(place);
        }
    }

    /// Keeps what was noted. To be called before any of these messages is committed to RocketMQ: those that were not
    /// come again after a crash, and are noted then.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.end > FILE_BYTES_MAX || self.replay_lines > 2 * REPLAYS_MAX {
            return self.rewrite();
        }
        for key in std::mem::take(&mut self.dirty) {
            let Some(mark) = self.marks.get_mut(&key) else {
                continue;
            };
            mark.is_dirty = false;
            let (at, text) = (mark.at, mark.text());
            if at == 0 {
                mark.at = self.end;
                let line = mark_line(&text, &key);
                self.put(&line)?;
            } else {
                self.file.write_all_at(text.as_bytes(), at)?;
            }
        }
        let lines = std::mem::take(&mut self.new_replays);
        self.put(&lines)
    }

    fn remember_replay(&mut self, key: ReplayKey, queue: Queue, offset: i64) {
        if self.replays.insert(key.clone(), (queue, offset)).is_none() {
            self.replay_order.push_back(key);
        }
        if self.replay_order.len() > REPLAYS_MAX
            && let Some(oldest) = self.replay_order.pop_front()
        {
            self.replays.remove(&oldest);
        }
    }

    /// Makes room for a quarter of the marks, those not used for longest.
    fn forget_oldest(&mut self) {
        let mut times: Vec<u64> = self.marks.values().map(|mark| mark.used_s).collect();
        times.sort_unstable();
        let limit = times.get(times.len() / 4).copied().unwrap_or(0);
        let mut left = (times.len() / 4).max(1);
        self.marks.retain(|_, mark| {
            let is_kept = mark.used_s > limit || left == 0;
            left -= usize::from(!is_kept);
            is_kept
        });
    }

    /// Writes the whole file anew beside the old one, and puts it in its place.
    fn rewrite(&mut self) -> io::Result<()> {
        self.file = fresh_file(&self.path)?;
        self.end = 0;
        self.put(&self.header.clone())?;
        let mut lines = String::new();
        for (key, mark) in &mut self.marks {
            mark.at = self.end + lines.len() as u64;
            mark.is_dirty = false;
            lines.push_str(&mark_line(&mark.text(), key));
        }
        self.dirty.clear();
        self.new_replays.clear();
        for key in &self.replay_order {
            if let Some((queue, offset)) = self.replays.get(key) {
                lines.push_str(&replay_line(key, queue, *offset));
            }
        }
        self.replay_lines = self.replay_order.len();
        self.put(&lines)?;
        std::fs::rename(temporary(&self.path), &self.path)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        let at = self.end;
        self.end += text.len() as u64;
        self.file.write_all_at(text.as_bytes(), at)
    }

    /// A line that can't be read is left out.
    fn read(&mut self, line: &str, oldest_s: u64) {
        if let Some(rest) = line.strip_prefix(REPLAYED) {
            if let Some((key, queue, offset)) = parse_replay(rest) {
                self.remember_replay(key, queue, offset);
            }
        } else if let Some((key, mark)) = parse_mark(line)
            && mark.used_s >= oldest_s
        {
            self.marks.insert(key, mark);
        }
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("seen.new")
}

fn fresh_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(temporary(path))
}

fn now_s() -> u64 {
    crate::metrics::unix_ms() / 1000
}

#[cfg(test)]
#[path = "tests/seen.rs"]
mod tests;
