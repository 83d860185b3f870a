//! One connection. The packets are rumqttc's; who resumes what is decided in `load`, since rumqttc's own
//! client forgets half of its session when a connection ends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use harness::Version;

use super::{Packet, five, four};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A broker that is stopped accepts connections all the same, so this is also how long a device waits for it.
const CONNACK_LIMIT: Duration = Duration::from_secs(10);
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(20);

/// A connection to a broker.
pub(crate) struct Link {
    version: Version,
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    pinged: Instant,
}

impl Link {
    /// Connects with a session that outlives the connection; also says whether there was one.
    pub(crate) fn open(
        address: SocketAddr,
        version: Version,
        id: &str,
    ) -> io::Result<(Link, bool)> {
        Link::open_as(address, version, id, false)
    }

    /// [`Link::open`], where the session of before goes when it is to be a clean one.
    pub(crate) fn open_as(
        address: SocketAddr,
        version: Version,
        id: &str,
        clean: bool,
    ) -> io::Result<(Link, bool)> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        let mut link = Link {
            version,
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            pinged: Instant::now(),
        };
        link.write(|link| match link.version {
            Version::V311 => four::connect(id, clean, &mut link.output),
            Version::V5 => five::connect(id, clean, &mut link.output),
        })?;
        link.flush()?;
        let deadline = Instant::now() + CONNACK_LIMIT;
        while Instant::now() < deadline {
            match link.read_one(Duration::from_millis(100))? {
                Some(Packet::Connected {
                    accepted: true,
                    session_present,
                }) => return Ok((link, session_present)),
                Some(packet) => return Err(io::Error::other(format!("{packet:?}"))),
                None => {}
            }
        }
        Err(io::Error::new(ErrorKind::TimedOut, "no CONNACK"))
    }

    fn write(&mut self, write: impl FnOnce(&mut Link) -> Result<(), String>) -> io::Result<()> {
        write(self).map_err(io::Error::other)
    }

    /// Queues a PUBLISH; [`Link::flush`] sends it.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        qos: u8,
        packet: u16,
        again: bool,
    ) -> io::Result<()> {
        self.write(|link| match link.version {
            Version::V311 => four::publish(topic, payload, qos, packet, again, &mut link.output),
            Version::V5 => five::publish(topic, payload, qos, packet, again, &mut link.output),
        })
    }

    /// Queues a PUBREL.
    pub(crate) fn release(&mut self, packet: u16) {
        self.answer([0x62, 2], packet);
    }

    /// Queues a PUBACK.
    pub(crate) fn acknowledge(&mut self, packet: u16) {
        self.answer([0x40, 2], packet);
    }

    /// Four bytes in both versions, where there is no reason to give.
    fn answer(&mut self, head: [u8; 2], packet: u16) {
        self.output.extend_from_slice(&head);
        self.output.extend_from_slice(&packet.to_be_bytes());
    }

    /// Queues a SUBSCRIBE.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        self.write(|link| match link.version {
            Version::V311 => four::subscribe(filter, qos, &mut link.output),
            Version::V5 => five::subscribe(filter, qos, &mut link.output),
        })
    }

    /// Sends what is queued, and a PINGREQ now and then.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pinged.elapsed() >= PING_EVERY {
            self.pinged = Instant::now();
            // PINGREQ is these two bytes in both versions.
            self.output.extend_from_slice(&[0xC0, 0]);
        }
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// The next packet, when one comes within `wait`.
    pub(crate) fn read_one(&mut self, wait: Duration) -> io::Result<Option<Packet>> {
        if let Some(packet) = self.parse()? {
            return Ok(Some(packet));
        }
        self.stream
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.input.extend_from_slice(&chunk[..length]),
            Err(problem)
                if matches!(problem.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                return Ok(None);
            }
            Err(problem) => return Err(problem),
        }
        self.parse()
    }

    fn parse(&mut self) -> io::Result<Option<Packet>> {
        match self.version {
            Version::V311 => four::parse(&mut self.input),
            Version::V5 => five::parse(&mut self.input),
        }
        .map_err(io::Error::other)
    }
}
