//! What comes down: a stream for each receiving device, from RocketMQ's own producer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::ledger::Number;
use harness::wait::within;
use harness::{Topic, eventually};

use super::producer::{Account, Producer};
use super::subscriber::{Arrivals, Hears, Subscriber};
use super::{Arrival, DEVICES, Rate};

const MORE_LIMIT: Duration = Duration::from_secs(150);

/// Producers into RocketMQ, and devices that listen to `down/<device>`.
#[derive(Debug)]
pub struct DownlinkLoad {
    topic: Topic,
    rate: Rate,
    stop_producing: Arc<AtomicBool>,
    abandon: Arc<AtomicBool>,
    gate: Arc<RwLock<()>>,
    stop_receiving: Arc<AtomicBool>,
    stored: Arc<AtomicUsize>,
    arrivals: Arrivals,
    accounts: Vec<Account>,
    producers: Vec<JoinHandle<Account>>,
    subscribers: Vec<JoinHandle<()>>,
}

/// What was produced.
#[derive(Debug, Default)]
pub struct Stored {
    /// How many different messages.
    pub sent: usize,
    /// The attempt that RocketMQ acknowledged for each, and when, in Unix ms.
    pub acked: BTreeMap<Number, (String, i64)>,
}

impl Stored {
    /// How many RocketMQ has never acknowledged.
    pub fn unsettled(&self) -> usize {
        self.sent.saturating_sub(self.acked.len())
    }
}

impl DownlinkLoad {
    /// Starts the devices, at this broker, and waits until they have subscribed.
    pub fn listen(address: SocketAddr, topic: &Topic, rate: Rate) -> DownlinkLoad {
        let mut load = DownlinkLoad {
            topic: topic.clone(),
            rate,
            stop_producing: Arc::default(),
            abandon: Arc::default(),
            gate: Arc::default(),
            stop_receiving: Arc::default(),
            stored: Arc::default(),
            arrivals: Arrivals::default(),
            accounts: (0..DEVICES).map(|_| Account::default()).collect(),
            producers: Vec::new(),
            subscribers: Vec::new(),
        };
        load.connect(address);
        load
    }

    /// Starts the devices. They have their sessions of before, if there are.
    pub fn connect(&mut self, address: SocketAddr) {
        self.stop_receiving = Arc::default();
        for device in 0..DEVICES {
            let subscribed = Arc::new(AtomicBool::new(false));
            let subscriber = Subscriber {
                device,
                address,
                filter: format!("down/{device}"),
                hears: Hears::Own,
                id: format!("receiver-{device}"),
                stop: Arc::clone(&self.stop_receiving),
                subscribed: Arc::clone(&subscribed),
                arrivals: Arc::clone(&self.arrivals),
            };
            let thread = std::thread::spawn(move || subscriber.run());
            self.subscribers.push(thread);
            if self.arrivals().is_empty() && self.stored() == 0 {
                eventually(&format!("receiver {device} has subscribed"), || {
                    subscribed.load(Ordering::Relaxed).then_some(())
                });
            }
        }
    }

    /// The devices go, their sessions stay.
    pub fn disconnect(&mut self) {
        self.stop_receiving.store(true, Ordering::Relaxed);
        for thread in self.subscribers.drain(..) {
            thread.join().expect("a subscriber's thread");
        }
    }

    /// Starts the producers.
    pub fn produce(&mut self) {
        self.stop_producing = Arc::default();
        self.spawn(|producer, account| producer.run(account));
    }

    /// Produces this many messages in all, as fast as it goes, instead of what was being produced; returns when RocketMQ has
    /// stored them.
    pub fn backlog(&mut self, count: usize) {
        self.pause_producing();
        let each = (count / DEVICES) as u64;
        self.spawn(move |producer, account| producer.backlog(account, each));
        self.pause_producing();
    }

    fn spawn(&mut self, run: impl Fn(Producer, Account) -> Account + Copy + Send + 'static) {
        for (device, account) in self.accounts.drain(..).enumerate() {
            let producer = Producer {
                device,
                topic: self.topic.clone(),
                per_s: self.rate.downlink_per_s,
                stop: Arc::clone(&self.stop_producing),
                abandon: Arc::clone(&self.abandon),
                gate: Arc::clone(&self.gate),
                stored: Arc::clone(&self.stored),
            };
            self.producers
                .push(std::thread::spawn(move || run(producer, account)));
        }
    }

    /// Ends the producers, each when RocketMQ has acknowledged its last message. [`DownlinkLoad::produce`] goes on.
    pub fn pause_producing(&mut self) {
        self.stop_producing.store(true, Ordering::Relaxed);
        let accounts = self
            .producers
            .drain(..)
            .map(|thread| thread.join().expect("a producer's thread"));
        self.accounts.extend(accounts);
    }

    /// While this is kept, no producer has a message on its way.
    pub fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many RocketMQ has stored so far.
    pub fn stored(&self) -> usize {
        self.stored.load(Ordering::Relaxed)
    }

    /// Everything that has arrived.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .arrivals
            .clone()
    }

    /// What is wrong with each message that came otherwise than it was sent.
    pub fn damaged(&self) -> Vec<String> {
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .damaged
            .clone()
    }

    /// Waits until everything that RocketMQ has stored has arrived at the devices.
    #[track_caller]
    pub fn wait_until_all_has_arrived(&self) {
        eventually("what RocketMQ has for the devices has arrived", || {
            let arrivals = self.arrivals();
            let numbers: BTreeSet<_> = arrivals.iter().map(|arrival| arrival.number).collect();
            (numbers.len() >= self.stored()).then_some(())
        });
    }

    /// How often something has arrived.
    pub fn arrived(&self) -> usize {
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .arrivals
            .len()
    }

    /// Waits until this many more have arrived.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let wanted = self.arrived() + count;
        let what = format!("{count} more messages from RocketMQ at the devices");
        within(MORE_LIMIT, &what, || {
            (self.arrived() >= wanted).then_some(())
        });
    }

    /// Ends the producers, and says what they sent. The devices go on.
    pub fn stop_producing(&mut self) -> Stored {
        self.pause_producing();
        let mut all = Stored::default();
        for (device, account) in self.accounts.drain(..).enumerate() {
            all.sent += usize::try_from(account.sent).expect("counted one by one");
            all.acked.extend(
                account
                    .acked
                    .into_iter()
                    .map(|(sequence, (attempt, at_ms))| {
                        ((device, sequence), (attempt.to_string(), at_ms))
                    }),
            );
        }
        all
    }
}

impl Drop for DownlinkLoad {
    fn drop(&mut self) {
        self.stop_producing.store(true, Ordering::Relaxed);
        self.abandon.store(true, Ordering::Relaxed);
        self.stop_receiving.store(true, Ordering::Relaxed);
        for thread in self.subscribers.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
