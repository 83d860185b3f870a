//! One device that publishes: with a window, a session that outlives its connection, and repetitions as MQTT has them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::Version;

use super::{Rate, now_ms, payload, qos_of, version_of};
use crate::mqtt::{Link, Packet};

/// How many may wait for their acknowledgement. Below Mosquitto's default for what it takes at once, 20.
const WINDOW: usize = 16;
const BURST_EVERY: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Half of the devices give a connection up when an acknowledgement takes longer; the others wait as long as it stands.
const ACK_LIMIT: Duration = Duration::from_secs(10);

/// What one device sent, and heard of it. Keys are sequence numbers.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// How many different messages.
    pub(crate) sent: u64,
    /// When it heard the PUBACK or PUBREC, in Unix ms.
    pub(crate) acked: BTreeMap<u64, i64>,
    /// The reason by which it was refused; never sent again.
    pub(crate) refused: BTreeMap<u64, String>,
    /// How often those that went out more than once did.
    pub(crate) transmissions: BTreeMap<u64, u32>,
}

struct Pending {
    sequence: u64,
    packet: u16,
    since: Instant,
    /// QoS 2: PUBREC is here, PUBCOMP is not.
    received: bool,
}

/// A device.
pub(crate) struct Publisher {
    pub(crate) device: usize,
    /// The brokers that it knows, its own first. It turns to the next one when its own can't be reached.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) topic: String,
    pub(crate) id: String,
    pub(crate) rate: Rate,
    /// Send nothing new, and end when all is acknowledged.
    pub(crate) stop: Arc<AtomicBool>,
    /// End.
    pub(crate) abandon: Arc<AtomicBool>,
    pub(crate) acked: Arc<AtomicUsize>,
}

struct Session<'a> {
    publisher: &'a Publisher,
    version: Version,
    qos: u8,
    pending: VecDeque<Pending>,
    next_packet: u16,
    account: Account,
    next_burst: Instant,
    left_of_burst: usize,
    /// Which of the brokers it turns to, and which one it was connected to.
    turn: usize,
    last_turn: usize,
}

impl Publisher {
    /// Runs until it is told to stop, and everything is acknowledged then.
    pub(crate) fn run(self) -> Account {
        let mut session = Session {
            publisher: &self,
            version: version_of(self.device),
            qos: qos_of(self.device),
            pending: VecDeque::new(),
            next_packet: 0,
            account: Account::default(),
            next_burst: Instant::now(),
            left_of_burst: 0,
            turn: 0,
            last_turn: 0,
        };
        loop {
            // Whatever ended the connection: it connects again, as a device does.
            let _ = session.connection();
            if self.abandon.load(Ordering::Relaxed)
                || (self.is_stopped() && session.pending.is_empty())
            {
                return session.account;
            }
            std::thread::sleep(RECONNECT_PAUSE);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Session<'_> {
    /// One connection, until it ends or there is nothing left to do.
    fn connection(&mut self) -> io::Result<()> {
        let (mut link, session_present) = self.open()?;
        self.resume(&mut link, session_present)?;
        while !(self.publisher.is_stopped() && self.pending.is_empty()) {
            if !self.publisher.is_stopped() {
                self.send_what_is_due(&mut link)?;
            }
            link.flush()?;
            let mut wait = Duration::from_millis(10);
            while let Some(packet) = link.read_one(wait)? {
                self.hear(&mut link, packet);
                wait = Duration::ZERO;
            }
            if self.publisher.abandon.load(Ordering::Relaxed) {
                return Ok(());
            }
            let oldest = self.pending.front().map(|pending| pending.since.elapsed());
            if self.version == Version::V5 && oldest > Some(ACK_LIMIT) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no acknowledgement",
                ));
            }
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<(Link, bool)> {
        let addresses = &self.publisher.addresses;
        let turn = self.turn % addresses.len();
        // What another broker knows of this device is not what the last one knew, and an exchange that was not completed there is none here:
        // before its PUBREL, Mosquitto has given a message of QoS 2 to none of its own subscribers.
        let is_another = turn != self.last_turn;
        let opened = Link::open_as(
            addresses[turn],
            self.version,
            &self.publisher.id,
            is_another,
        );
        if opened.is_err() {
            self.turn = turn + 1;
        } else if is_another {
            self.last_turn = turn;
            for pending in &mut self.pending {
                pending.received = false;
            }
        }
        opened
    }

    /// What the last connection left open, in the order in which it was sent.
    fn resume(&mut self, link: &mut Link, session_present: bool) -> io::Result<()> {
        if !session_present {
            // The broker took these and has forgotten the exchange: they are done.
            self.pending.retain(|pending| !pending.received);
        }
        for index in 0..self.pending.len() {
            if self.pending[index].received {
                link.release(self.pending[index].packet);
                continue;
            }
            if !session_present {
                self.pending[index].packet = self.fresh_packet();
            }
            let sequence = self.pending[index].sequence;
            self.pending[index].since = Instant::now();
            *self.account.transmissions.entry(sequence).or_insert(1) += 1;
            self.publish(link, sequence, self.pending[index].packet, session_present)?;
        }
        Ok(())
    }

    fn send_what_is_due(&mut self, link: &mut Link) -> io::Result<()> {
        if self.next_burst <= Instant::now() {
            self.next_burst = Instant::now() + BURST_EVERY;
            self.left_of_burst = self.publisher.rate.burst;
        }
        while self.left_of_burst > 0 && self.pending.len() < WINDOW {
            self.left_of_burst -= 1;
            let sequence = self.account.sent;
            let packet = self.fresh_packet();
            self.account.sent += 1;
            self.pending.push_back(Pending {
                sequence,
                packet,
                since: Instant::now(),
                received: false,
            });
            self.publish(link, sequence, packet, false)?;
        }
        Ok(())
    }

    fn publish(&self, link: &mut Link, sequence: u64, packet: u16, again: bool) -> io::Result<()> {
        let number = (self.publisher.device, sequence);
        let text = payload::up(number, self.publisher.rate.payload_bytes);
        link.publish(&self.publisher.topic, &text, self.qos, packet, again)
    }

    fn fresh_packet(&mut self) -> u16 {
        loop {
            self.next_packet = self.next_packet.checked_add(1).unwrap_or(1);
            if !self
                .pending
                .iter()
                .any(|pending| pending.packet == self.next_packet)
            {
                return self.next_packet;
            }
        }
    }

    fn hear(&mut self, link: &mut Link, packet: Packet) {
        match packet {
            Packet::Received {
                packet,
                refused: None,
            } => {
                let found = self.pending.iter_mut().find(|one| one.packet == packet);
                if let Some(pending) = found {
                    let is_new = !pending.received;
                    let sequence = pending.sequence;
                    pending.received = true;
                    pending.since = Instant::now();
                    if is_new {
                        self.note(sequence, None);
                    }
                }
                link.release(packet);
            }
            Packet::Acknowledged { packet, refused } | Packet::Received { packet, refused } => {
                if let Some(pending) = self.remove(packet) {
                    self.note(pending.sequence, refused);
                }
            }
            Packet::Completed { packet } => drop(self.remove(packet)),
            _ => {}
        }
    }

    fn remove(&mut self, packet: u16) -> Option<Pending> {
        let index = self.pending.iter().position(|one| one.packet == packet)?;
        self.pending.remove(index)
    }

    fn note(&mut self, sequence: u64, refused: Option<String>) {
        if let Some(reason) = refused {
            self.account.refused.insert(sequence, reason);
        } else {
            self.account.acked.insert(sequence, now_ms());
            self.publisher.acked.fetch_add(1, Ordering::Relaxed);
        }
    }
}
