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

use super::{Arrival, now_ms, number_and_attempt, qos_of, version_of};
use crate::mqtt::{Link, Packet};

const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What has arrived at all devices, in the order of arrival at each.
pub(crate) type Arrivals = Arc<Mutex<Vec<Arrival>>>;

/// A device.
pub(crate) struct Subscriber {
    pub(crate) device: usize,
    pub(crate) address: SocketAddr,
    pub(crate) filter: String,
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
            let _ = match qos_of(self.device) {
                1 => self.connection(),
                _ => self.mosquitto_sub(),
            };
            std::thread::sleep(RECONNECT_PAUSE);
        }
    }

    fn arrived(&self, body: &[u8], again: bool) {
        if let Some((number, identity)) = number_and_attempt(body) {
            self.arrivals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Arrival {
                    number,
                    identity,
                    again,
                    at_ms: now_ms(),
                });
        }
    }

    fn connection(&self) -> io::Result<()> {
        let (mut link, session_present) =
            Link::open(self.address, version_of(self.device), &self.id)?;
        if !session_present {
            link.subscribe(&self.filter, qos_of(self.device))?;
        }
        while !self.stop.load(Ordering::Relaxed) {
            link.flush()?;
            let mut wait = Duration::from_millis(100);
            while let Some(packet) = link.read_one(wait)? {
                wait = Duration::from_millis(1);
                match packet {
                    Packet::Message {
                        packet,
                        again,
                        payload,
                        ..
                    } => {
                        self.arrived(&payload, again);
                        link.acknowledge(packet)?;
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
            .args(["-d", "-F", "%p"])
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
            self.arrived(&line, false);
        }
        ender.join().expect("the thread that ends mosquitto_sub");
        Ok(())
    }
}
