//! One stream of messages into RocketMQ, by RocketMQ's own Java producer: one at a time, so that their order is certain.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use harness::{Produced, Topic};

use super::{now_ms, payload};

const SEND_LIMIT: Duration = Duration::from_secs(3);
const BATCH: usize = 500;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long one goes on after it was stopped, for what is not acknowledged yet.
const LAST_LIMIT: Duration = Duration::from_secs(60);

/// What one stream sent. Keys are sequence numbers.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// How many different messages.
    pub(crate) sent: u64,
    /// The attempt that RocketMQ acknowledged, and when, in Unix ms.
    pub(crate) acked: BTreeMap<u64, (u32, i64)>,
}

/// A stream to one device.
pub(crate) struct Producer {
    pub(crate) device: usize,
    pub(crate) topic: Topic,
    pub(crate) per_s: u32,
    /// Begin nothing new.
    pub(crate) stop: Arc<AtomicBool>,
    /// End.
    pub(crate) abandon: Arc<AtomicBool>,
    /// Entered for each sending.
    pub(crate) gate: Arc<RwLock<()>>,
    pub(crate) stored: Arc<AtomicUsize>,
}

impl Producer {
    /// Runs until it is told to stop, and goes on from an account. What it has begun is acknowledged then, unless RocketMQ does not
    /// answer for a minute.
    pub(crate) fn run(self, mut account: Account) -> Account {
        let queue = i32::try_from(self.device).expect("a few devices");
        let pause = Duration::from_secs(1) / self.per_s.max(1);
        let mut attempt = 0;
        let mut give_up = Instant::now() + LAST_LIMIT;
        while !self.abandon.load(Ordering::Relaxed) {
            if !self.stop.load(Ordering::Relaxed) {
                give_up = Instant::now() + LAST_LIMIT;
            } else if attempt == 0 || Instant::now() >= give_up {
                break;
            }
            let sequence = account.sent;
            attempt += 1;
            let message = Produced::new(payload::down((self.device, sequence), attempt))
                .keys(&self.device.to_string())
                .queue(queue);
            let sent = {
                let _entered = self.gate.read().unwrap_or_else(PoisonError::into_inner);
                self.topic.try_produce(message, SEND_LIMIT)
            };
            if sent {
                account.acked.insert(sequence, (attempt, now_ms()));
                account.sent += 1;
                self.stored.fetch_add(1, Ordering::Relaxed);
                attempt = 0;
                std::thread::sleep(pause);
            } else {
                // It may be there all the same: an attempt of its own, so that this is no repetition of ours.
                std::thread::sleep(RETRY_PAUSE);
            }
        }
        if attempt > 0 {
            // Tried, and not acknowledged: sent, and not to be tried under the same attempts again.
            account.sent += 1;
        }
        account
    }

    /// Produces this many at once, as fast as it can.
    pub(crate) fn backlog(self, mut account: Account, count: u64) -> Account {
        let queue = i32::try_from(self.device).expect("a few devices");
        // A message that was tried and not acknowledged is given up: it may be there.
        let first = account.sent;
        let numbers: Vec<u64> = (first..first + count).collect();
        for some in numbers.chunks(BATCH) {
            let messages: Vec<Produced> = some
                .iter()
                .map(|sequence| {
                    Produced::new(payload::down((self.device, *sequence), 1))
                        .keys(&self.device.to_string())
                        .queue(queue)
                })
                .collect();
            // All stored, or a panic.
            self.topic.produce(&messages);
            let at = now_ms();
            account
                .acked
                .extend(some.iter().map(|sequence| (*sequence, (1, at))));
            self.stored.fetch_add(some.len(), Ordering::Relaxed);
        }
        account.sent = first + count;
        account
    }
}
