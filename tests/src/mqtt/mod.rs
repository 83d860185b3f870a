//! MQTT clients for the tests: rumqttc, one connection each, never connecting again by itself.
//!
//! A test must know which publish got which answer, so answers are matched to the publishes in the order in which rumqttc
//! sends them.

mod eventloop;
mod message;
mod options;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use message::{Outcome, Publication, Received};
pub use options::{ClientOptions, Version, Will};
pub use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::wait::DEADLINE;

/// A subscription's answer.
pub(crate) type Granted = Result<u8, String>;

#[derive(Default)]
pub(crate) struct Slots {
    pub(crate) publishes: VecDeque<Sender<Outcome>>,
    pub(crate) subscriptions: VecDeque<Sender<Granted>>,
}

pub(crate) type SharedSlots = Arc<Mutex<Slots>>;

enum Requests {
    V311(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// A connected client. Dropping it closes the socket without a word, as a device does that loses its power.
pub struct Client {
    id: String,
    requests: Requests,
    slots: SharedSlots,
    received: Receiver<Received>,
    kill: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<String>>,
    /// Whether the broker had a session of this client id.
    pub session_present: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Client({})", self.id)
    }
}

/// The broker refused the connection; what rumqttc says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl Client {
    /// Connects to a broker.
    pub fn try_connect(port: u16, options: &ClientOptions) -> Result<Client, Refused> {
        let slots = SharedSlots::default();
        let (inbox, received) = std::sync::mpsc::channel();
        let (kill, killed) = tokio::sync::oneshot::channel();
        let (connected, is_connected) = std::sync::mpsc::channel();
        let shared = Arc::clone(&slots);
        let wiring = eventloop::Wiring {
            slots: shared,
            inbox,
            connected,
            killed,
        };
        let (requests, thread) = match options.version {
            Version::V311 => {
                let (client, eventloop) =
                    rumqttc::AsyncClient::new(eventloop::options_v311(port, options), CAPACITY);
                (
                    Requests::V311(client),
                    std::thread::spawn(move || eventloop::run(eventloop, wiring)),
                )
            }
            Version::V5 => {
                let (client, eventloop) =
                    rumqttc::v5::AsyncClient::new(eventloop::options_v5(port, options), CAPACITY);
                (
                    Requests::V5(client),
                    std::thread::spawn(move || eventloop::run(eventloop, wiring)),
                )
            }
        };
        let mut client = Client {
            id: options.id.clone(),
            requests,
            slots,
            received,
            kill: Some(kill),
            thread: Some(thread),
            session_present: false,
        };
        match is_connected.recv_timeout(DEADLINE) {
            Ok(session_present) => {
                client.session_present = session_present;
                Ok(client)
            }
            Err(RecvTimeoutError::Timeout) => Err(Refused("no CONNACK".to_owned())),
            Err(RecvTimeoutError::Disconnected) => Err(Refused(client.end())),
        }
    }

    /// Connects to a broker.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn connect(port: u16, options: &ClientOptions) -> Client {
        Client::try_connect(port, options)
            .unwrap_or_else(|Refused(why)| panic!("{} can't connect: {why}", options.id))
    }

    /// Subscribes, and returns the granted QoS, or the reason of the refusal.
    pub fn try_subscribe(&self, filter: &str, qos: u8) -> Granted {
        let (slot, answer) = std::sync::mpsc::channel();
        {
            // Held while sending, so that slots are in the order of the requests.
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.subscriptions.push_back(slot);
            let sent = match &self.requests {
                Requests::V311(client) => client.try_subscribe(filter, qos_v311(qos)).is_ok(),
                Requests::V5(client) => client.try_subscribe(filter, qos_v5(qos)).is_ok(),
            };
            if !sent {
                slots.subscriptions.pop_back();
                return Err("closed".to_owned());
            }
        }
        answer
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| Err("no SUBACK".to_owned()))
    }

    /// Subscribes.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn subscribe(&self, filter: &str, qos: u8) {
        let granted = self.try_subscribe(filter, qos);
        assert_eq!(granted, Ok(qos), "{} subscribes to {filter}", self.id);
    }

    /// Gives a subscription up, without waiting for the answer.
    ///
    /// # Panics
    /// When the connection is closed.
    #[track_caller]
    pub fn unsubscribe(&self, filter: &str) {
        let is_sent = match &self.requests {
            Requests::V311(client) => client.try_unsubscribe(filter).is_ok(),
            Requests::V5(client) => client.try_unsubscribe(filter).is_ok(),
        };
        assert!(is_sent, "{} gives {filter} up", self.id);
    }

    /// Publishes without waiting; the outcome comes later.
    pub fn start_publish(&self, message: Publication) -> Receiver<Outcome> {
        let (slot, outcome) = std::sync::mpsc::channel();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.publishes.push_back(slot);
        let Publication {
            topic,
            payload,
            qos,
            retain,
            properties,
        } = message;
        let sent = match &self.requests {
            Requests::V311(client) => client
                .try_publish(topic, qos_v311(qos), retain, payload)
                .is_ok(),
            Requests::V5(client) => client
                .try_publish_with_properties(
                    topic,
                    qos_v5(qos),
                    retain,
                    payload,
                    properties.unwrap_or_default(),
                )
                .is_ok(),
        };
        if !sent && let Some(slot) = slots.publishes.pop_back() {
            // The receiver is returned below, so it is there.
            let _ = slot.send(Outcome::Closed("not sent".to_owned()));
        }
        outcome
    }

    /// Publishes, and waits for what becomes of it.
    pub fn try_publish(&self, message: Publication) -> Outcome {
        let outcome = self.start_publish(message);
        outcome
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| Outcome::Closed("no acknowledgement".to_owned()))
    }

    /// Publishes, and waits until it is acknowledged.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn publish(&self, message: Publication) {
        let what = format!("{} publishes to {}", self.id, message.topic);
        let outcome = self.try_publish(message);
        assert!(outcome.is_taken(), "{what}: {outcome:?}");
    }

    /// The next message, within [`DEADLINE`].
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn receive(&self) -> Received {
        match self.received.recv_timeout(DEADLINE) {
            Ok(message) => message,
            Err(problem) => panic!("{} waits for a message: {problem}", self.id),
        }
    }

    /// The next message, if one comes within `limit`.
    pub fn receive_within(&self, limit: Duration) -> Option<Received> {
        self.received.recv_timeout(limit).ok()
    }

    /// The next message that is there already.
    pub fn try_receive(&self) -> Option<Received> {
        self.received.try_recv().ok()
    }

    /// Everything up to and with the first message with this payload.
    ///
    /// # Panics
    /// When it does not come within [`DEADLINE`] of the message before.
    #[track_caller]
    pub fn receive_until(&self, payload: &[u8]) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let message = match self.received.recv_timeout(DEADLINE) {
                Ok(message) => message,
                Err(problem) => panic!(
                    "{} waits for {:?}: {problem}; before it came {:?}",
                    self.id,
                    String::from_utf8_lossy(payload),
                    all.iter().map(Received::text).collect::<Vec<_>>()
                ),
            };
            let is_last = message.payload == payload;
            all.push(message);
            if is_last {
                return all;
            }
        }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Says DISCONNECT and waits until the connection is closed.
    pub fn disconnect(mut self) {
        let sent = match &self.requests {
            Requests::V311(client) => client.try_disconnect().is_ok(),
            Requests::V5(client) => client.try_disconnect().is_ok(),
        };
        if sent {
            // The broker closes the socket, which ends the event loop.
            crate::wait::comes_true(DEADLINE, || self.is_closed());
        }
        self.end();
    }

    /// Closes the socket without a DISCONNECT.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) -> String {
        if let Some(kill) = self.kill.take() {
            // It has ended by itself.
            let _ = kill.send(());
        }
        self.thread.take().map_or_else(String::new, |thread| {
            thread.join().unwrap_or_else(|_| "panicked".to_owned())
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

// More than any test has waiting, so that sending never blocks.
const CAPACITY: usize = 200_000;

fn qos_v311(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).expect("a QoS is 0, 1 or 2")
}

fn qos_v5(qos: u8) -> rumqttc::v5::mqttbytes::QoS {
    rumqttc::v5::mqttbytes::qos(qos).expect("a QoS is 0, 1 or 2")
}
