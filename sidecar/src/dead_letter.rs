//! Dead letters: messages that RocketMQ or the broker will never take, kept for people to look at.
//!
//! JSON lines in `letters-<n>.jsonl` under the spool's `dead-letter/`, appended and synced before the message counts as done with.
//! The newest file grows to an eighth of the bound, then the next one begins; the oldest go when all together pass the bound.
//! This is not a queue: nothing here is sent again by itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rocketmq::{Incoming, Outgoing};
use serde::Serialize;

use crate::metrics::unix_ms;

/// How often a letter from the downlink is tried to be written, and the pause between.
const DOWNLINK_TRIES: u32 = 5;
const DOWNLINK_PAUSE: Duration = Duration::from_millis(500);

/// The dead letters of a spool. Clones write to the same files.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    files: Arc<Mutex<Files>>,
}

#[derive(Debug, thiserror::Error)]
#[error("dead letters in {}: {source}", dir.display())]
pub(crate) struct OpenDeadLettersError {
    dir: PathBuf,
    source: io::Error,
}

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    bytes_max: u64,
    /// Number and size, the oldest first. The last one is being written.
    sizes: Vec<(u64, u64)>,
    current: Option<File>,
}

/// A line of the files. Fields that a letter does not have are left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Letter<'a> {
    time_ms: u64,
    direction: &'static str,
    rule: &'a str,
    reason: &'a str,
    /// The MQTT topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rocketmq_topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<&'a [(String, String)]>,
    /// The body, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// A frame of the hand-off log that could not become a message of RocketMQ, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<String>,
    /// Where it stood: in the hand-off log, or `broker/queue/offset`.
    position: String,
}

impl<'a> Letter<'a> {
    /// A message that RocketMQ refused.
    pub(crate) fn refused(
        rocketmq_topic: &'a str,
        message: &'a Outgoing,
        rule: &'a str,
        reason: &'a str,
    ) -> Letter<'a> {
        let property = |names: [&str; 2]| {
            let found = message
                .properties
                .iter()
                .find(|(name, _)| names.contains(&name.as_str()));
            found.map(|(_, value)| value.as_str())
        };
        Letter {
            time_ms: unix_ms(),
            direction: "uplink",
            rule,
            reason,
            topic: property(["mqtt_topic", "mqttTopic"]),
            client_id: property(["mqtt_client_id", "clientId"]),
            rocketmq_topic: Some(rocketmq_topic),
            tag: message.tag.as_deref(),
            keys: message.keys.as_deref(),
            properties: Some(&message.properties),
            body: Some(STANDARD.encode(&message.body)),
            position: property(["mqtt_id", "mqtt_id"])
                .unwrap_or_default()
                .to_owned(),
            ..Letter::default()
        }
    }

    /// A frame that could not be mapped, with what is known of its message.
    pub(crate) fn unmapped(
        position: u64,
        frame: &[u8],
        message: Option<(&'a str, &'a str)>,
        rule: &'a str,
        reason: &'a str,
    ) -> Letter<'a> {
        Letter {
            time_ms: unix_ms(),
            direction: "uplink",
            rule,
            reason,
            topic: message.map(|(topic, _)| topic),
            client_id: message.map(|(_, client_id)| client_id),
            frame: Some(STANDARD.encode(frame)),
            position: position.to_string(),
            ..Letter::default()
        }
    }

    /// The line, with its end.
    pub(crate) fn line(&self) -> Vec<u8> {
        // Strings, numbers and pairs of strings always serialize.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

impl DeadLetters {
    /// Opens the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it can't be made or listed.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> Result<DeadLetters, OpenDeadLettersError> {
        let fail = |source| OpenDeadLettersError {
            dir: dir.to_owned(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(fail)?;
        let sizes = list(dir).map_err(fail)?;
        let files = Files {
            dir: dir.to_owned(),
            bytes_max,
            sizes,
            current: None,
        };
        Ok(DeadLetters {
            files: Arc::new(Mutex::new(files)),
        })
    }

    /// Appends whole lines (see [`Letter::line`]) and syncs them. On an error none, some or all are there.
    pub(crate) fn append(&self, lines: &[u8]) -> io::Result<()> {
        self.lock().append(lines)
    }

    /// Keeps a message that the downlink can't hand over. It is in RocketMQ too, so that a full disk does not stop the
    /// downlink for ever: where to find it is logged then.
    pub(crate) fn downlink(&self, incoming: &Incoming, rule: &str, reason: &str) {
        let position = format!(
            "{}/{}/{}",
            incoming.queue.broker, incoming.queue.id, incoming.offset
        );
        let letter = Letter {
            time_ms: unix_ms(),
            direction: "downlink",
            rule,
            reason,
            rocketmq_topic: Some(&incoming.queue.topic),
            tag: incoming.tag.as_deref(),
            keys: incoming.keys.as_deref(),
            properties: Some(&incoming.properties),
            body: Some(STANDARD.encode(&incoming.body)),
            position,
            ..Letter::default()
        };
        let line = letter.line();
        for attempt in 1..=DOWNLINK_TRIES {
            match self.append(&line) {
                Ok(()) => return,
                Err(error) if attempt == DOWNLINK_TRIES => log::error!(
                    "a message of {} at {} could not be kept as a dead letter ({reason}): {error}; it stays in RocketMQ",
                    incoming.queue.topic,
                    letter.position
                ),
                Err(_) => std::thread::sleep(DOWNLINK_PAUSE),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let added = lines.len() as u64;
        let is_full = self
            .sizes
            .last()
            .is_none_or(|(_, size)| *size > 0 && size + added > self.bytes_max / 8);
        if self.current.is_none() || is_full {
            self.next_file()?;
        }
        self.make_room(added);
        let written = match self.current.as_mut() {
            Some(file) => file.write_all(lines).and_then(|()| file.sync_data()),
            None => Err(io::Error::other("no file is open")),
        };
        if written.is_err() {
            // Half a line may be there: what follows goes to a new file, so that it stays readable.
            self.current = None;
        }
        if let Some((_, size)) = self.sizes.last_mut() {
            *size += added;
        }
        written
    }

    fn next_file(&mut self) -> io::Result<()> {
        let number = self.sizes.last().map_or(1, |(number, _)| number + 1);
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(self.path(number))?;
        File::open(&self.dir)?.sync_all()?;
        self.current = Some(file);
        self.sizes.push((number, 0));
        Ok(())
    }

    fn make_room(&mut self, added: u64) {
        while self.sizes.len() > 1
            && self.sizes.iter().map(|(_, size)| size).sum::<u64>() + added > self.bytes_max
        {
            let (number, size) = self.sizes.remove(0);
            let path = self.path(number);
            let letters = std::fs::read(&path).map_or(0, |bytes| {
                bytes.iter().filter(|byte| **byte == b'\n').count()
            });
            match std::fs::remove_file(&path) {
                Ok(()) => log::warn!(
                    "{letters} dead letters ({size} bytes) are removed, for all together may have {} bytes: {}",
                    self.bytes_max,
                    path.display()
                ),
                Err(error) => log::error!(
                    "old dead letters can't be removed: {}: {error}",
                    path.display()
                ),
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("letters-{number}.jsonl"))
    }
}

fn list(dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| {
            name.strip_prefix("letters-")?
                .strip_suffix(".jsonl")?
                .parse()
                .ok()
        });
        if let Some(number) = number {
            sizes.push((number, entry.metadata()?.len()));
        }
    }
    sizes.sort_unstable();
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(dir: &Path) -> Vec<String> {
        let mut out = Vec::new();
        for (number, _) in list(dir).unwrap() {
            let text =
                std::fs::read_to_string(dir.join(format!("letters-{number}.jsonl"))).unwrap();
            out.extend(text.lines().map(str::to_owned));
        }
        out
    }

    #[test]
    fn a_letter_holds_all_of_the_message() {
        let dir = tempfile::tempdir().unwrap();
        let dead = DeadLetters::open(&dir.path().join("dead-letter"), 1 << 20).unwrap();
        let message = Outgoing {
            body: vec![0, 255, 10].into(),
            tag: Some("t".to_owned()),
            keys: None,
            properties: vec![
                ("mqtt_topic".to_owned(), "a/ü".to_owned()),
                ("mqtt_client_id".to_owned(), "c".to_owned()),
            ],
        };
        dead.append(&Letter::refused("T", &message, "a T", "too large").line())
            .unwrap();
        dead.append(&Letter::unmapped(16, b"raw", Some(("x", "c2")), "b B", "no topic").line())
            .unwrap();
        let found: Vec<serde_json::Value> = lines(&dir.path().join("dead-letter"))
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(found[0]["topic"], "a/ü");
        assert_eq!(found[0]["client_id"], "c");
        assert_eq!(found[0]["body"], "AP8K");
        assert_eq!(found[0]["reason"], "too large");
        assert_eq!(found[1]["frame"], STANDARD.encode(b"raw"));
        assert_eq!(found[1]["position"], "16");
    }

    #[test]
    fn the_oldest_go_when_the_bound_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let dead = DeadLetters::open(dir.path(), 8_000).unwrap();
        for index in 0..100 {
            dead.append(format!("{index:0>199}\n").as_bytes()).unwrap();
        }
        let left = lines(dir.path());
        let total: u64 = list(dir.path()).unwrap().iter().map(|(_, size)| size).sum();
        assert!(total <= 8_000, "{total} bytes");
        assert!(left.len() >= 30, "only {} are left", left.len());
        assert!(left.last().unwrap().ends_with("99"), "the newest is there");
    }

    #[test]
    fn a_second_run_goes_on_in_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..3 {
            let dead = DeadLetters::open(dir.path(), 1 << 20).unwrap();
            dead.append(format!("{index}\n").as_bytes()).unwrap();
        }
        assert_eq!(lines(dir.path()), ["0", "1", "2"]);
    }
}
