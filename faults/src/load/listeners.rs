//! Devices on the nodes of a cluster that listen to all that other devices publish, on whichever node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::eventually;
use harness::ledger::Number;
use harness::wait::within;

use super::subscriber::{Arrivals, Hears, Subscriber};
use super::{Arrival, DEVICES, Published, Rate, home_of, pair};

const MORE_LIMIT: Duration = Duration::from_secs(150);

/// Devices that listen to `load/#`, with sessions that outlive their connections.
#[derive(Debug)]
pub struct Listeners {
    stop: Arc<AtomicBool>,
    arrivals: Arrivals,
    devices: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Starts them, in turn at these two brokers, and waits until they have subscribed.
    pub fn start(addresses: [SocketAddr; 2], rate: Rate) -> Listeners {
        let (stop, arrivals) = (Arc::<AtomicBool>::default(), Arrivals::default());
        let mut listeners = Listeners {
            stop: Arc::clone(&stop),
            arrivals: Arc::clone(&arrivals),
            devices: Vec::new(),
        };
        for device in 0..DEVICES {
            let subscribed = Arc::new(AtomicBool::new(false));
            let subscriber = Subscriber {
                device,
                address: addresses[home_of(device)],
                filter: "load/#".to_owned(),
                hears: Hears::Devices(rate.payload_bytes),
                id: format!("listener-{device}"),
                stop: Arc::clone(&stop),
                subscribed: Arc::clone(&subscribed),
                arrivals: Arc::clone(&arrivals),
            };
            let thread = std::thread::spawn(move || subscriber.run());
            listeners.devices.push(thread);
            eventually(&format!("listener {device} has subscribed"), || {
                subscribed.load(Ordering::Relaxed).then_some(())
            });
        }
        listeners
    }

    /// Everything that has arrived, in the order of arrival at each. MQTT does not show which sending of its publisher a message comes
    /// from: as many as the publisher sent are taken for those, and what is above that is a repetition of ours.
    pub fn arrivals(&self, published: &Published) -> Vec<Arrival> {
        let heard = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arrivals = heard.arrivals.clone();
        drop(heard);
        name_sendings(&mut arrivals, published);
        arrivals
    }

    /// What is wrong with each message that came otherwise than it was sent.
    pub fn damaged(&self) -> Vec<String> {
        let heard = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        heard.damaged.clone()
    }

    /// How often something has arrived.
    pub fn arrived(&self) -> usize {
        let heard = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        heard.arrivals.len()
    }

    /// Waits until this many more have arrived.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let wanted = self.arrived() + count;
        let what = format!("{count} more messages of other devices at the listeners");
        within(MORE_LIMIT, &what, || {
            (self.arrived() >= wanted).then_some(())
        });
    }
}

/// What each listener has to hear, and when that was acknowledged, in Unix ms.
pub(crate) fn for_each_listener(acked: &BTreeMap<Number, i64>) -> BTreeMap<Number, i64> {
    (0..DEVICES)
        .flat_map(|listener| {
            acked.iter().map(move |((publisher, sequence), at)| {
                ((pair(listener, *publisher), *sequence), *at)
            })
        })
        .collect()
}

fn name_sendings(arrivals: &mut [Arrival], published: &Published) {
    let mut times: BTreeMap<Number, u32> = BTreeMap::new();
    for arrival in arrivals.iter_mut().filter(|arrival| !arrival.again) {
        let (pair, sequence) = arrival.number;
        let sendings = published.transmissions.get(&(pair % DEVICES, sequence));
        let times = times.entry(arrival.number).or_default();
        let sending = (*times).min(sendings.map_or(0, |sendings| sendings - 1));
        *times += 1;
        arrival.identity = sending.to_string();
    }
    // MQTT's own repetition is one of what came first.
    for arrival in arrivals.iter_mut().filter(|arrival| arrival.again) {
        arrival.identity = "0".to_owned();
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.devices.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::{self, Acked};

    fn arrival(number: Number, again: bool) -> Arrival {
        Arrival {
            number,
            identity: String::new(),
            again,
            at_ms: 0,
        }
    }

    #[test]
    fn as_many_as_the_publisher_sent_are_not_ours_and_one_more_is() {
        let number = (pair(2, 1), 7);
        let published = Published {
            transmissions: [((1, 7), 2)].into(),
            ..Published::default()
        };
        let mut arrivals = [
            arrival(number, false),
            arrival(number, true),
            arrival(number, false),
            arrival(number, false),
            arrival((pair(3, 1), 7), false),
        ];
        name_sendings(&mut arrivals, &published);
        let counted = count::count(&Acked::default(), &arrivals);
        assert_eq!(
            (counted.redelivered, counted.sent_again, counted.duplicated),
            (1, 1, 1)
        );
    }

    #[test]
    fn each_listener_has_to_hear_each_message() {
        let wanted = for_each_listener(&[((0, 0), 5), ((3, 1), 6)].into());
        assert_eq!(wanted.len(), 2 * DEVICES);
        assert_eq!(wanted.get(&(pair(2, 3), 1)), Some(&6));
    }
}
