//! A subscriber that takes a backlog as fast as it comes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::mqtt;
use crate::sys;

/// Nothing new for so long: what is missing will not come.
const SILENCE: Duration = Duration::from_secs(60);
/// The broker is answered so often at least, and a signal noticed.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 256 * 1024;

/// When the messages of a backlog came.
pub(crate) struct Drained {
    /// From the first to the last.
    pub(crate) elapsed: Duration,
    /// How many came again.
    pub(crate) repeated: u64,
}

/// A subscriber in a thread of its own.
pub(crate) struct Drain {
    thread: JoinHandle<Result<Drained>>,
}

impl Drain {
    /// Subscribes at QoS 1; from then on it takes `messages` different messages, numbered from 0 on.
    pub(crate) fn start(port: u16, filter: &str, messages: u64) -> Result<Self> {
        let mut stream = mqtt::connect(port, &format!("bench-drain-{port}"))?;
        mqtt::subscribe(&mut stream, filter)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Drain {
            thread: thread::spawn(move || receive(stream, messages)),
        })
    }

    /// Waits for the last message.
    pub(crate) fn finish(self) -> Result<Drained> {
        self.thread
            .join()
            .map_err(|_| anyhow!("the subscriber panicked"))?
    }
}

fn receive(mut stream: TcpStream, messages: u64) -> Result<Drained> {
    let mut seen = vec![false; usize::try_from(messages)?];
    let (mut count, mut repeated) = (0, 0);
    let mut buffer = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut acknowledgements = Vec::new();
    let mut first = None;
    let mut last = Instant::now();
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => bail!("the broker closed the subscriber's connection after {count} messages"),
            Ok(bytes) => buffer.extend_from_slice(&chunk[..bytes]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error).context("reading from the broker"),
        }
        let mut at = 0;
        while let Some(delivery) = mqtt::next_delivery_at(&buffer, &mut at)? {
            if let Some(packet_id) = delivery.packet_id {
                acknowledgements.extend_from_slice(&mqtt::puback(packet_id));
            }
            let number = usize::try_from(delivery.sequence.context("a message too short")?)?;
            let new = seen.get_mut(number).context("a message of someone else")?;
            if std::mem::replace(new, true) {
                repeated += 1;
                continue;
            }
            count += 1;
            last = Instant::now();
            first.get_or_insert(last);
        }
        buffer.drain(..at);
        stream.write_all(&acknowledgements)?;
        acknowledgements.clear();
        if count == messages {
            let elapsed = first.map_or(Duration::ZERO, |first| last - first);
            return Ok(Drained { elapsed, repeated });
        }
        if sys::terminated() || last.elapsed() > SILENCE {
            bail!("{count} of {messages} messages had come when nothing more did");
        }
    }
}
