//! Devices that receive, with a session that outlives their connection: at QoS 1 ones that see MQTT's DUP flag, at QoS 2
//! `mosquitto_sub`, which does QoS 2 by the book.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness::Version;
use harness::child::ChildGuard;

use super::{Arrival, now_ms, pair, payload, qos_of, up_topic, version_of};
use crate::mqtt::{Link, Packet};

const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How `mosquitto_sub` is told to mark a message, among what else it says.
const MARK: &[u8] = b"message ";

/// What has come to all devices.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// In the order of arrival at each.
    pub(crate) arrivals: Vec<Arrival>,
    /// What is wrong with each message that is not as it was sent, or not where it belongs.
    pub(crate) damaged: Vec<String>,
}

/// As the devices share it.
pub(crate) type Arrivals = Arc<Mutex<Heard>>;

/// Which messages a device listens to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hears {
    /// Those that RocketMQ's own producer sends to it.
    Own,
    /// Those of all publishing devices, with payloads of this length.
    Devices(usize),
}

/// A device.
pub(crate) struct Subscriber {
    pub(crate) device: usize,
    pub(crate) address: SocketAddr,
    pub(crate) filter: String,
    pub(crate) hears: Hears,
    pub(crate) id: String,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) subscribed: Arc<AtomicBool>,
    pub(crate) arrivals: Arrivals,
}

impl Subscriber {
    /// Runs until it is told to stop.
    pub(crate) fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            // Whatever ended it: it connects again, as a device does.
            let _ = match self.qos() {
                1 => self.connection(),
                _ => self.mosquitto_sub(),
            };
            std::thread::sleep(RECONNECT_PAUSE);
        }
    }

    /// `mosquitto_sub` does not tell MQTT's own repetitions, which are none at QoS 2 alone.
    fn qos(&self) -> u8 {
        match self.hears {
            Hears::Own => qos_of(self.device),
            Hears::Devices(_) => 1,
        }
    }

    fn arrived(&self, topic: &[u8], body: &[u8], again: bool) {
        let read = self.read(topic, body, again);
        let mut heard = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(arrival) => heard.arrivals.push(arrival),
            Err(problem) => heard.damaged.push(problem),
        }
    }

    fn read(&self, topic: &[u8], body: &[u8], again: bool) -> Result<Arrival, String> {
        if let Hears::Devices(payload_bytes) = self.hears {
            return self.read_a_devices(topic, body, again, payload_bytes);
        }
        let (number, attempt) = payload::read_down(body)?;
        if topic != self.filter.as_bytes() || number.0 != self.device {
            let topic = String::from_utf8_lossy(topic);
            return Err(format!("{number:?} came to {} on {topic}", self.id));
        }
        Ok(Arrival {
            number,
            identity: attempt.to_string(),
            again,
            at_ms: now_ms(),
        })
    }

    /// A message of a publishing device. There is an account for each pair of a listener and a publisher.
    fn read_a_devices(
        &self,
        topic: &[u8],
        body: &[u8],
        again: bool,
        payload_bytes: usize,
    ) -> Result<Arrival, String> {
        let (device, sequence) = payload::read_up(body, payload_bytes)?;
        if topic != up_topic(device).as_bytes() {
            let topic = String::from_utf8_lossy(topic);
            return Err(format!(
                "{:?} came to {} on {topic}",
                (device, sequence),
                self.id
            ));
        }
        Ok(Arrival {
            number: (pair(self.device, device), sequence),
            identity: String::new(),
            again,
            at_ms: now_ms(),
        })
    }

    fn connection(&self) -> io::Result<()> {
        let (mut link, session_present) =
            Link::open(self.address, version_of(self.device), &self.id)?;
        if !session_present {
            link.subscribe(&self.filter, self.qos())?;
        }
        while !self.stop.load(Ordering::Relaxed) {
            link.flush()?;
            let mut wait = Duration::from_millis(100);
            while let Some(packet) = link.read_one(wait)? {
                wait = Duration::from_millis(1);
                match packet {
                    Packet::Message {
                        packet,
                        topic,
                        again,
                        payload,
                    } => {
                        self.arrived(&topic, &payload, again);
                        link.acknowledge(packet);
                        link.flush()?;
                    }
                    Packet::Granted { granted: true } => {
                        self.subscribed.store(true, Ordering::Relaxed);
                    }
                    Packet::Granted { granted: false } => {
                        return Err(io::Error::other("the subscription is refused"));
                    }
                    _ => {}
                }
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn mosquitto_sub(&self) -> io::Result<()> {
        // It leaves its words in a buffer, and flushes messages only.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "mosquitto_sub"])
            .args(["-h", &self.address.ip().to_string()])
            .args(["-p", &self.address.port().to_string()])
            .args(["-i", &self.id, "-c", "-q", "2", "-t", &self.filter])
            // -d says when the subscription is granted.
            .args(["-d", "-F", "message %t %p"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        match version_of(self.device) {
            Version::V311 => command.args(["-V", "mqttv311"]),
            // Mosquitto's own window is below that. With the default, one more message than the window after a resumed session,
            // which 2.0.11 sends, ends it.
            Version::V5 => command.args(["-V", "mqttv5", "-x", "3600"]).args([
                "-D",
                "connect",
                "receive-maximum",
                "65535",
            ]),
        };
        let mut process = ChildGuard::spawn(command, libc::SIGKILL)?;
        let output = process.child.stdout.take().expect("a pipe");
        let pid = process.pid();
        let stop = Arc::clone(&self.stop);
        // It reads until the output ends, which this brings about.
        let ender = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                if !harness::proc::is_alive(pid) {
                    return;
                }
            }
            harness::proc::signal(pid, libc::SIGKILL);
        });
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if line.starts_with(b"Subscribed (mid") {
                self.subscribed.store(true, Ordering::Relaxed);
            }
            // The load's topics have no blanks.
            if let Some(message) = line.strip_prefix(MARK) {
                let mut parts = message.splitn(2, |byte| *byte == b' ');
                let (topic, body) = (parts.next(), parts.next());
                self.arrived(topic.unwrap_or_default(), body.unwrap_or_default(), false);
            }
        }
        ender.join().expect("the thread that ends mosquitto_sub");
        Ok(())
    }
}
