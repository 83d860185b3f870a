//! What has been written to the downlink log, remembered across restarts of the sidecar.
//!
//! RocketMQ's own offset follows only after the plugin has injected a message. A sidecar that dies in between would read the
//! messages again and hand them over twice, although their frames are safe in the log. So the file `downlink.offsets` in the
//! spool says, per queue, what is in the log already. It is written in place, one record a queue, right after each message.
//!
//! ```text
//! mosquitto-rocketmq downlink offsets 1 <epoch of the log> <boot id>\n
//! <next offset> <committed offset> <newest store time> <queue id> <broker> <topic>\n      numbers of 20 digits, one line a queue
//! ```
//!
//! A message is left out when its offset is below the next one and not below the committed one. An operator who sets the
//! group's offset back to replay old messages gets them.
//!
//! What holds: after a kill of the sidecar at most the one message is repeated whose frames were written and whose record was
//! not. After a loss of power the file is ignored (the log's tail may be gone while the record is there): then everything
//! not committed to RocketMQ comes again. Repeated is better than lost.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rocketmq::Queue;

const MAGIC: &str = "mosquitto-rocketmq downlink offsets 1";
/// Three numbers of 20 digits with a blank between.
const RECORD_LEN: usize = 62;

/// See the module.
#[derive(Debug)]
pub(crate) struct HandedOver {
    file: File,
    queues: HashMap<Queue, Record>,
    end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    at: u64,
    next_offset: i64,
    /// What RocketMQ was told last.
    committed: i64,
    /// A message that is newer than this was not seen, whatever its offset: the topic was deleted and made anew.
    stored_at_ms: i64,
}

impl Record {
    fn text(&self) -> Vec<u8> {
        let [next, committed, stored] =
            [self.next_offset, self.committed, self.stored_at_ms].map(|n| n.max(0));
        let text = format!("{next:020} {committed:020} {stored:020}").into_bytes();
        debug_assert_eq!(text.len(), RECORD_LEN);
        text
    }
}

impl HandedOver {
    /// Reads the file, or starts a new one if there is none, if it belongs to another log, or if the machine was
    /// restarted since.
    pub(crate) fn open(spool_dir: &Path, epoch: u64, boot_id: &str) -> io::Result<HandedOver> {
        let path = spool_dir.join("downlink.offsets");
        let header = format!("{MAGIC} {epoch} {boot_id}\n");
        let old = match std::fs::read(&path) {
            Ok(bytes) => parse(&String::from_utf8_lossy(&bytes), &header),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let temporary = path.with_extension("offsets.new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all_at(header.as_bytes(), 0)?;
        let end = header.len() as u64;
        let mut this = HandedOver {
            file,
            queues: HashMap::new(),
            end,
        };
        for (queue, record) in old {
            this.append(&queue, record)?;
        }
        std::fs::rename(&temporary, &path)?;
        Ok(this)
    }

    /// The message was handed over by an earlier run, or before the consumer was opened again.
    pub(crate) fn contains(&self, queue: &Queue, offset: i64, stored_at_ms: i64) -> bool {
        self.queues.get(queue).is_some_and(|record| {
            (record.committed..record.next_offset).contains(&offset)
                && stored_at_ms <= record.stored_at_ms
        })
    }

    /// The message's frames are in the log. Costs one `pwrite`.
    pub(crate) fn record(
        &mut self,
        queue: &Queue,
        offset: i64,
        stored_at_ms: i64,
    ) -> io::Result<()> {
        let next_offset = offset.saturating_add(1);
        let Some(record) = self.queues.get_mut(queue) else {
            return self.append(
                queue,
                Record {
                    at: 0,
                    next_offset,
                    committed: 0,
                    stored_at_ms,
                },
            );
        };
        if offset < record.committed {
            // Set back by an operator, or the topic was made anew and its offsets began again.
            record.committed = 0;
        }
        record.next_offset = next_offset;
        record.stored_at_ms = record.stored_at_ms.max(stored_at_ms);
        self.file.write_all_at(&record.text(), record.at)
    }

    /// RocketMQ has stored the offset.
    pub(crate) fn committed(&mut self, queue: &Queue, offset: i64) -> io::Result<()> {
        let Some(record) = self.queues.get_mut(queue) else {
            return Ok(());
        };
        record.committed = offset;
        self.file.write_all_at(&record.text(), record.at)
    }

    fn append(&mut self, queue: &Queue, record: Record) -> io::Result<()> {
        let record = Record {
            at: self.end,
            ..record
        };
        let mut line = record.text();
        line.extend_from_slice(
            format!(" {} {} {}\n", queue.id, queue.broker, queue.topic).as_bytes(),
        );
        self.file.write_all_at(&line, self.end)?;
        self.end += line.len() as u64;
        self.queues.insert(queue.clone(), record);
        Ok(())
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

/// The records of a file with this header; a line that can't be read is left out, and its messages come again.
fn parse(text: &str, header: &str) -> Vec<(Queue, Record)> {
    let Some(lines) = text.strip_prefix(header) else {
        return Vec::new();
    };
    lines.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(Queue, Record)> {
    let mut fields = line.splitn(6, ' ');
    let next_offset = fields.next()?.parse().ok()?;
    let committed = fields.next()?.parse().ok()?;
    let stored_at_ms = fields.next()?.parse().ok()?;
    let id = fields.next()?.parse().ok()?;
    let broker = fields.next()?.to_owned();
    let topic = fields.next().filter(|topic| !topic.is_empty())?.to_owned();
    Some((
        Queue { topic, broker, id },
        Record {
            at: 0,
            next_offset,
            committed,
            stored_at_ms,
        },
    ))
}

/// The id of this start of the machine; when it can't be read one of its own, so that nothing older is trusted.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_else(|_| {
            format!(
                "unknown-{}-{}",
                std::process::id(),
                crate::metrics::unix_ms()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> Queue {
        Queue {
            topic: "COMMANDS".into(),
            broker: "broker-a".into(),
            id,
        }
    }

    #[test]
    fn what_was_handed_over_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = HandedOver::open(dir.path(), 7, "boot").unwrap();
        for offset in 0..5 {
            first.record(&queue(0), offset, 1000 + offset).unwrap();
        }
        first.record(&queue(1), 99, 2000).unwrap();
        drop(first);
        let second = HandedOver::open(dir.path(), 7, "boot").unwrap();
        assert!(second.contains(&queue(0), 4, 1004));
        assert!(!second.contains(&queue(0), 5, 1005));
        assert!(second.contains(&queue(1), 99, 2000));
        assert!(!second.contains(&queue(2), 0, 1));
    }

    #[test]
    fn nothing_is_trusted_after_a_restart_of_the_machine_or_with_another_log() {
        let dir = tempfile::tempdir().unwrap();
        HandedOver::open(dir.path(), 7, "boot")
            .unwrap()
            .record(&queue(0), 4, 1)
            .unwrap();
        assert!(
            HandedOver::open(dir.path(), 7, "other boot")
                .unwrap()
                .is_empty()
        );
        HandedOver::open(dir.path(), 7, "boot")
            .unwrap()
            .record(&queue(0), 4, 1)
            .unwrap();
        assert!(HandedOver::open(dir.path(), 8, "boot").unwrap().is_empty());
    }

    #[test]
    fn a_topic_that_was_made_anew_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = HandedOver::open(dir.path(), 7, "boot").unwrap();
        table.record(&queue(0), 500, 1000).unwrap();
        assert!(!table.contains(&queue(0), 0, 1001));
        table.record(&queue(0), 0, 1001).unwrap();
        assert!(!table.contains(&queue(0), 1, 1002));
        assert!(table.contains(&queue(0), 0, 1001));
    }

    #[test]
    fn an_operator_can_set_the_offset_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = HandedOver::open(dir.path(), 7, "boot").unwrap();
        table.record(&queue(0), 9, 1000).unwrap();
        table.committed(&queue(0), 8).unwrap();
        assert!(
            table.contains(&queue(0), 8, 999),
            "in the log, not yet injected"
        );
        assert!(
            !table.contains(&queue(0), 3, 500),
            "was injected and is wanted again"
        );
        drop(table);
        let table = HandedOver::open(dir.path(), 7, "boot").unwrap();
        assert!(table.contains(&queue(0), 8, 999) && !table.contains(&queue(0), 7, 998));
    }

    #[test]
    fn a_damaged_file_is_not_an_error_and_only_its_good_lines_count() {
        let dir = tempfile::tempdir().unwrap();
        HandedOver::open(dir.path(), 7, "boot")
            .unwrap()
            .record(&queue(0), 4, 1)
            .unwrap();
        let path = dir.path().join("downlink.offsets");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"\xff\xfe nonsense\n12 x\n");
        std::fs::write(&path, bytes).unwrap();
        let table = HandedOver::open(dir.path(), 7, "boot").unwrap();
        assert!(table.contains(&queue(0), 4, 1));
        std::fs::write(&path, b"\0\0\0").unwrap();
        assert!(HandedOver::open(dir.path(), 7, "boot").unwrap().is_empty());
    }
}
