//! An MQTT 3.1.1 connection of our own to the broker: its PINGREQ ends the broker's sleep.
//!
//! It subscribes to nothing and publishes nothing, so nothing of it is ever bridged. `$SYS/broker/clients/…` counts it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const PINGREQ: [u8; 2] = [0xC0, 0x00];
const CONNACK: [u8; 2] = [0x20, 0x02];
/// Seconds without a packet after which the broker may close.
const KEEP_ALIVE_S: u16 = 30;

/// Where the broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Who we are, made anew at each start.
#[derive(Clone)]
pub(crate) struct Credentials {
    client_id: String,
    secret: String,
}

// Not derived: the secret must never be printed.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// From the kernel's random numbers.
    pub(crate) fn new() -> io::Result<Credentials> {
        let mut random = [0_u8; 40];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, secret) = hex.split_at(16);
        Ok(Credentials {
            client_id: format!("mosquitto-rocketmq-wake-{id}"),
            secret: secret.to_owned(),
        })
    }

    /// Whether this is the client id of our connection.
    pub(crate) fn is(&self, client_id: &str) -> bool {
        client_id == self.client_id
    }

    /// Whether a login is ours. Takes the same time wherever a wrong secret differs.
    pub(crate) fn admit(&self, client_id: &str, password: Option<&str>) -> bool {
        let Some(password) = password else {
            return false;
        };
        let same_secret = password.len() == self.secret.len()
            && password
                .bytes()
                .zip(self.secret.bytes())
                .fold(0, |all, (a, b)| all | (a ^ b))
                == 0;
        client_id == self.client_id && same_secret
    }

    fn connect_packet(&self) -> Vec<u8> {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_0010]; // user name, password, clean session
        body.extend(KEEP_ALIVE_S.to_be_bytes());
        for field in [&self.client_id, &self.client_id, &self.secret] {
            // Both are short: made above.
            body.extend(u16::try_from(field.len()).unwrap_or(0).to_be_bytes());
            body.extend(field.as_bytes());
        }
        let mut packet = vec![0x10];
        let mut left = body.len();
        loop {
            let digit = u8::try_from(left % 128).unwrap_or(0);
            left /= 128;
            packet.push(if left > 0 { digit | 128 } else { digit });
            if left == 0 {
                break;
            }
        }
        packet.extend(body);
        packet
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

#[derive(Default)]
struct State {
    stream: Option<Box<dyn Stream>>,
    tried: Option<Instant>,
    complained: bool,
}

/// Rings by PINGREQ.
pub(crate) struct PingBell {
    address: Address,
    credentials: Credentials,
    state: Mutex<State>,
    /// Somebody wants it rung.
    asked: AtomicBool,
}

impl std::fmt::Debug for PingBell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PingBell")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl PingBell {
    pub(crate) fn new(address: Address, credentials: Credentials) -> PingBell {
        PingBell {
            address,
            credentials,
            state: Mutex::default(),
            asked: AtomicBool::new(false),
        }
    }

    /// Connects when there is no connection. For the waking thread: it may take seconds.
    pub(super) fn maintain(&self) {
        if self.is_due() {
            // Without the lock: the broker's thread, which has to answer, may want to ring.
            let result = self.connect();
            self.connected(result);
        }
        // The lock was taken here too.
        self.serve();
    }

    fn is_due(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due =
            state.stream.is_none() && state.tried.is_none_or(|at| at.elapsed() >= RETRY_AFTER);
        if due {
            state.tried = Some(Instant::now());
        }
        due
    }

    fn connected(&self, result: io::Result<Box<dyn Stream>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(stream) => {
                state.stream = Some(stream);
                state.complained = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut state.complained, true) {
                    log::warn!(
                        "the wake-up connection to {:?} failed: {error} (tried again)",
                        self.address
                    );
                }
            }
        }
    }

    /// Never blocks: when the other thread has the lock, that one rings once more after it has let go. (A PINGREQ
    /// wakes the broker's thread while the waking thread still holds the lock, so this does happen.)
    pub(super) fn ring(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.serve();
    }

    fn serve(&self) {
        // SYNC POINT between the two threads: `asked` is set before the lock is tried, and looked at after it is let go.
        while self.asked.load(Ordering::SeqCst) {
            let Ok(mut state) = self.state.try_lock() else {
                return;
            };
            self.asked.store(false, Ordering::SeqCst);
            let Some(stream) = &mut state.stream else {
                continue;
            };
            if let Err(error) = ping(stream) {
                log::warn!("the wake-up connection ended: {error} (made again)");
                state.stream = None;
            }
        }
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, CONNECT_TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
                self.log_in(&stream)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
                self.log_in(&stream)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream))
            }
        }
    }

    fn log_in(&self, mut stream: impl Read + Write) -> io::Result<()> {
        stream.write_all(&self.credentials.connect_packet())?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        match answer {
            [a, b, _, 0] if [a, b] == CONNACK => Ok(()),
            [.., code] => Err(io::Error::other(format!(
                "the broker refused it with code {code}"
            ))),
        }
    }
}

/// Reads the answers to earlier ones, and sends one more.
fn ping(stream: &mut Box<dyn Stream>) -> io::Result<()> {
    let mut answers = [0; 64];
    loop {
        match stream.read(&mut answers) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    match stream.write_all(&PINGREQ) {
        // The broker has so many unread that it is awake for sure.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_of_the_right_client_is_admitted() {
        let ours = Credentials::new().expect("random numbers");
        let id = ours.client_id.clone();
        assert!(ours.admit(&id, Some(&ours.secret.clone())));
        assert!(!ours.admit("someone", Some(&ours.secret.clone())));
        assert!(!ours.admit(&id, None));
        assert!(!ours.admit(&id, Some("")));
        assert!(!ours.admit(&id, Some(&"0".repeat(64))));
        assert!(!format!("{ours:?}").contains(&ours.secret));
    }

    #[test]
    fn the_connect_packet_is_that_of_mqtt_3_1_1() {
        let who = Credentials {
            client_id: "id".into(),
            secret: "s".into(),
        };
        let packet = who.connect_packet();
        assert_eq!(packet[..2], [0x10, 21]);
        assert_eq!(
            packet[2..12],
            [0, 4, b'M', b'Q', b'T', b'T', 4, 0xC2, 0, 30]
        );
        assert_eq!(
            packet[12..],
            [0, 2, b'i', b'd', 0, 2, b'i', b'd', 0, 1, b's']
        );
    }
}
