//! Counting by sequence number: what was sent, acknowledged, arrived, doubled, out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::mqtt::{Client, ClientOptions, Outcome, Publication, Version};
use crate::probe::Reader;
use crate::wait::{DEADLINE, eventually};

/// A device and the number of one of its messages.
pub type Number = (usize, u64);

/// The payload that carries a number.
pub fn payload((device, sequence): Number) -> String {
    format!("device {device} message {sequence}")
}

/// The number in a payload.
pub fn number(payload: &[u8]) -> Option<Number> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut words = text.split(' ');
    let (Some("device"), Some(device), Some("message"), Some(sequence)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    Some((device.parse().ok()?, sequence.parse().ok()?))
}

/// Devices that publish with QoS 1, connect again when they lose their broker, and keep count.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    devices: Vec<JoinHandle<Vec<Number>>>,
}

impl Load {
    /// Starts `devices` devices that publish to `topic_root/<device>`, each a message about every `pause`.
    pub fn start(
        port: u16,
        version: Version,
        topic_root: &str,
        devices: usize,
        pause: Duration,
    ) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let devices = (0..devices)
            .map(|device| {
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                let topic = format!("{topic_root}/{device}");
                std::thread::spawn(move || {
                    publish_until(port, version, device, &topic, pause, &stop, &acknowledged)
                })
            })
            .collect();
        Load {
            stop,
            acknowledged,
            devices,
        }
    }

    /// How many were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more were acknowledged.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let wanted = self.acknowledged() + count;
        eventually(&format!("{count} more messages acknowledged"), || {
            (self.acknowledged() >= wanted).then_some(())
        });
    }

    /// Ends it, and returns the numbers of the acknowledged messages.
    pub fn stop(self) -> BTreeSet<Number> {
        self.stop.store(true, Ordering::Relaxed);
        self.devices
            .into_iter()
            .flat_map(|device| device.join().expect("a device's thread"))
            .collect()
    }
}

fn publish_until(
    port: u16,
    version: Version,
    device: usize,
    topic: &str,
    pause: Duration,
    stop: &AtomicBool,
    acknowledged: &AtomicUsize,
) -> Vec<Number> {
    let options = ClientOptions::new(version, &format!("load-{device}"));
    let mut client: Option<Client> = None;
    let mut taken = Vec::new();
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = client
            .take()
            .or_else(|| Client::try_connect(port, &options).ok())
        else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        // Each number is published once: what isn't acknowledged may arrive or not, but not twice by our doing.
        let number = (device, sequence);
        sequence += 1;
        match connected.try_publish(Publication::new(topic, payload(number))) {
            outcome if outcome.is_taken() => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
                taken.push(number);
                client = Some(connected);
            }
            Outcome::Closed(_) => {}
            _ => client = Some(connected),
        }
        std::thread::sleep(pause);
    }
    taken
}

/// What arrived, counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Count {
    /// Acknowledged messages that have not arrived.
    pub lost: Vec<Number>,
    /// Messages that arrived more than once, by how often more.
    pub doubled: usize,
    /// Messages that arrived behind a later one of their device. Repetitions are not counted here.
    pub reordered: usize,
    /// Different messages that arrived.
    pub arrived: usize,
}

/// Counts payloads in the order in which they arrived.
pub fn count<'a>(
    acknowledged: &BTreeSet<Number>,
    payloads: impl Iterator<Item = &'a [u8]>,
) -> Count {
    let mut seen: BTreeSet<Number> = BTreeSet::new();
    let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
    let mut counted = Count::default();
    for number in payloads.filter_map(number) {
        if !seen.insert(number) {
            counted.doubled += 1;
            continue;
        }
        let newest = newest.entry(number.0).or_insert(number.1);
        if number.1 < *newest {
            counted.reordered += 1;
        }
        *newest = number.1.max(*newest);
    }
    counted.arrived = seen.len();
    counted.lost = acknowledged.difference(&seen).copied().collect();
    counted
}

/// Reads the topic until every acknowledged message has arrived, and counts.
///
/// # Panics
/// When some have not arrived although nothing has come for [`DEADLINE`].
#[track_caller]
pub fn settle(acknowledged: &BTreeSet<Number>, reader: &mut Reader) -> Count {
    let mut last_new = std::time::Instant::now();
    loop {
        let is_new = reader.poll() > 0;
        // RocketMQ keeps order within a queue, and a device's messages are all in one.
        let counted = count(
            acknowledged,
            reader
                .messages
                .iter()
                .map(|message| message.body.as_slice()),
        );
        if counted.lost.is_empty() {
            return counted;
        }
        if is_new {
            last_new = std::time::Instant::now();
        }
        assert!(
            last_new.elapsed() < DEADLINE,
            "{} of {} acknowledged messages have not arrived in RocketMQ: {:?}… (read: {:?})",
            counted.lost.len(),
            acknowledged.len(),
            &counted.lost[..counted.lost.len().min(10)],
            reader.last_error
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_repetitions_and_late_arrivals_are_counted_apart() {
        let acknowledged: BTreeSet<Number> = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)].into();
        let arrived = [(0, 0), (0, 2), (0, 0), (0, 1), (1, 0), (7, 7)].map(payload);
        let counted = count(&acknowledged, arrived.iter().map(String::as_bytes));
        assert_eq!(
            counted,
            Count {
                lost: vec![(1, 1)],
                doubled: 1,
                reordered: 1,
                arrived: 5
            }
        );
    }

    #[test]
    fn a_number_is_read_back_and_anything_else_is_not_one() {
        assert_eq!(number(payload((3, 14)).as_bytes()), Some((3, 14)));
        assert_eq!(number(b"device 3 message 14 and more"), Some((3, 14)));
        assert_eq!(
            [number(b""), number(b"device x message 1"), number(&[255])],
            [None; 3]
        );
    }
}
