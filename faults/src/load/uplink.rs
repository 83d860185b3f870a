//! The devices that publish.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::ledger::Number;
use harness::wait::{comes_true, within};

use super::publisher::{Account, Publisher};
use super::{DEVICES, Rate, home_of, publisher_id, up_topic};

/// A fault may keep the devices waiting for its whole length.
const MORE_LIMIT: Duration = Duration::from_secs(150);
/// How long they go on after the load was stopped, for what is not acknowledged yet.
const LAST_LIMIT: Duration = Duration::from_secs(60);

/// Devices that publish to `load/<device>`.
#[derive(Debug)]
pub struct UplinkLoad {
    stop: Arc<AtomicBool>,
    abandon: Arc<AtomicBool>,
    acked: Arc<AtomicUsize>,
    payload_bytes: usize,
    devices: Vec<JoinHandle<Account>>,
}

/// What the devices sent.
#[derive(Debug, Default)]
pub struct Published {
    /// How many different messages.
    pub sent: usize,
    /// How long the payload of each is.
    pub payload_bytes: usize,
    /// When each of the acknowledged was, in Unix ms.
    pub acked: BTreeMap<Number, i64>,
    /// The reason by which it was refused.
    pub refused: BTreeMap<Number, String>,
    /// How often those went out that did so more than once.
    pub transmissions: BTreeMap<Number, u32>,
}

impl UplinkLoad {
    /// Starts the devices, in turn at these brokers. Each turns to the next one when it can't reach its own.
    pub fn start(addresses: &[SocketAddr], rate: Rate) -> UplinkLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let abandon = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicUsize::new(0));
        let devices = (0..DEVICES)
            .map(|device| {
                let publisher = Publisher {
                    device,
                    addresses: from_its_own(device, addresses),
                    topic: up_topic(device),
                    id: publisher_id(device),
                    rate,
                    stop: Arc::clone(&stop),
                    abandon: Arc::clone(&abandon),
                    acked: Arc::clone(&acked),
                };
                std::thread::spawn(move || publisher.run())
            })
            .collect();
        UplinkLoad {
            stop,
            abandon,
            acked,
            payload_bytes: rate.payload_bytes,
            devices,
        }
    }

    /// How many were acknowledged so far.
    pub fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until this many more were acknowledged.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let wanted = self.acked() + count;
        let what = format!("{count} more messages of devices acknowledged");
        within(MORE_LIMIT, &what, || (self.acked() >= wanted).then_some(()));
    }

    /// Ends it, once everything is acknowledged or a minute has passed.
    pub fn stop(mut self) -> Published {
        self.stop.store(true, Ordering::Relaxed);
        comes_true(LAST_LIMIT, || {
            self.devices.iter().all(JoinHandle::is_finished)
        });
        self.abandon.store(true, Ordering::Relaxed);
        let mut all = Published {
            payload_bytes: self.payload_bytes,
            ..Published::default()
        };
        for (device, thread) in self.devices.drain(..).enumerate() {
            let account = thread.join().expect("a device's thread");
            let numbered = |sequence: u64| (device, sequence);
            all.sent += usize::try_from(account.sent).expect("counted one by one");
            all.acked
                .extend(account.acked.iter().map(|(one, at)| (numbered(*one), *at)));
            let refused = account.refused.into_iter();
            all.refused
                .extend(refused.map(|(one, reason)| (numbered(one), reason)));
            all.transmissions.extend(
                account
                    .transmissions
                    .iter()
                    .map(|(one, times)| (numbered(*one), *times)),
            );
        }
        all
    }
}

fn from_its_own(device: usize, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    let own = home_of(device) % addresses.len();
    addresses.rotate_left(own);
    addresses
}

impl Published {
    /// How many were neither acknowledged nor refused: their devices still wait.
    pub fn unsettled(&self) -> usize {
        let refused = self.refused.keys();
        let only_refused = refused.filter(|number| !self.acked.contains_key(number));
        self.sent
            .saturating_sub(self.acked.len() + only_refused.count())
    }
}

impl Drop for UplinkLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.abandon.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_heard_neither_of_the_two_still_waits() {
        let published = Published {
            sent: 4,
            acked: [((0, 0), 1), ((0, 1), 2)].into(),
            refused: [(0, 1), (0, 2)]
                .map(|number| (number, "QuotaExceeded".to_owned()))
                .into(),
            ..Published::default()
        };
        assert_eq!(published.unsettled(), 1);
    }
}
