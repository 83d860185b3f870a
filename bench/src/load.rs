//! The load: several publishers at QoS 1, each with a window of messages in flight, all served by one thread with a few big reads
//! and writes, so that the two cores stay free for what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::mqtt::{self, PUBACK, PUBACK_BYTES, PublishTemplate};
use crate::sys::{self, Interest};

/// The last acknowledgements must come within this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Shape of a load.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Connections that publish.
    pub(crate) publishers: usize,
    /// Messages that each may have unacknowledged.
    pub(crate) window: usize,
}

/// What a load did: every message of it was acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) messages: u64,
    /// From the first message to the last acknowledgement.
    pub(crate) elapsed: Duration,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }
}

/// Connections ready to publish on `bench/<n>/load`.
pub(crate) struct Load {
    publishers: Vec<Publisher>,
    window: usize,
}

struct Publisher {
    stream: TcpStream,
    template: PublishTemplate,
    packet_id: u16,
    sequence: u64,
    in_flight: usize,
    /// Packets that wait for room in the socket, and how much of them is written.
    out: Vec<u8>,
    written: usize,
    /// Bytes of a PUBACK that was read in part.
    partial: usize,
}

impl Load {
    pub(crate) fn connect(port: u16, shape: Shape) -> Result<Self> {
        let publishers = (0..shape.publishers)
            .map(|number| Publisher::connect(port, number))
            .collect::<Result<_>>()?;
        Ok(Load {
            publishers,
            window: shape.window,
        })
    }

    /// Publishes `messages` messages as fast as the acknowledgements come, and waits for the last of these.
    pub(crate) fn run(&mut self, messages: u64) -> Result<Outcome> {
        let start = Instant::now();
        let mut left = messages;
        let mut scratch = Vec::new();
        let mut read_buffer = vec![0; 64 * 1024];
        // At most half a window: a full one must be able to become readable.
        self.set_low_water(self.window.div_ceil(2))?;
        let mut last_sent = None;
        loop {
            if sys::terminated() {
                bail!("asked to end while publishing");
            }
            for publisher in &mut self.publishers {
                left -= publisher.refill(self.window, left)?;
            }
            if left == 0 && last_sent.is_none() {
                last_sent = Some(Instant::now());
                self.set_low_water(1)?;
            }
            if last_sent.is_some()
                && self
                    .publishers
                    .iter()
                    .all(|publisher| publisher.in_flight == 0)
            {
                let elapsed = start.elapsed();
                return Ok(Outcome { messages, elapsed });
            }
            if last_sent.is_some_and(|sent| sent.elapsed() > DRAIN_TIMEOUT) {
                bail!("the broker did not acknowledge everything within {DRAIN_TIMEOUT:?}");
            }
            self.exchange(&mut scratch, &mut read_buffer)?;
        }
    }

    fn exchange(&mut self, scratch: &mut Vec<libc::pollfd>, read_buffer: &mut [u8]) -> Result<()> {
        let mut interests: Vec<Interest> = self
            .publishers
            .iter()
            .map(|publisher| Interest {
                fd: publisher.stream.as_raw_fd(),
                write: publisher.written < publisher.out.len(),
                ready: false,
            })
            .collect();
        sys::poll(&mut interests, scratch, Duration::from_millis(20)).context("poll")?;
        for (publisher, interest) in self.publishers.iter_mut().zip(&interests) {
            if interest.ready {
                publisher.flush()?;
                publisher.read_acknowledgements(read_buffer)?;
            }
        }
        Ok(())
    }

    fn set_low_water(&self, acknowledgements: usize) -> Result<()> {
        for publisher in &self.publishers {
            sys::set_read_low_water(&publisher.stream, acknowledgements * PUBACK_BYTES)
                .context("SO_RCVLOWAT")?;
        }
        Ok(())
    }
}

impl Publisher {
    fn connect(port: u16, number: usize) -> Result<Self> {
        let stream = mqtt::connect(port, &format!("bench-load-{number}"))?;
        stream.set_nonblocking(true)?;
        Ok(Publisher {
            stream,
            template: PublishTemplate::new(&format!("bench/{number}/load")),
            packet_id: 0,
            sequence: 0,
            in_flight: 0,
            out: Vec::new(),
            written: 0,
            partial: 0,
        })
    }

    /// Fills the window when it is half empty, with at most `limit` messages, and says with how many.
    fn refill(&mut self, window: usize, limit: u64) -> Result<u64> {
        if self.in_flight > window / 2 || self.written < self.out.len() {
            return Ok(0);
        }
        let count = (window - self.in_flight).min(usize::try_from(limit).unwrap_or(usize::MAX));
        let now = sys::unix_nanos();
        self.out.clear();
        self.written = 0;
        for _ in 0..count {
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            self.template
                .write(self.packet_id, self.sequence, now, &mut self.out);
            self.sequence += 1;
        }
        self.in_flight += count;
        self.flush()?;
        Ok(count as u64)
    }

    fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the broker closed a publisher's connection"),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("writing to the broker"),
            }
        }
        Ok(())
    }

    fn read_acknowledgements(&mut self, buffer: &mut [u8]) -> Result<()> {
        let count = match self.stream.read(buffer) {
            Ok(0) => bail!("the broker closed a publisher's connection"),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error).context("reading from the broker"),
        };
        // Nothing but PUBACKs of four bytes can come on this connection: the first byte of each is checked, the rest counted.
        let first = (PUBACK_BYTES - self.partial) % PUBACK_BYTES;
        if let Some(wrong) = buffer[..count]
            .iter()
            .skip(first)
            .step_by(PUBACK_BYTES)
            .find(|byte| **byte != PUBACK)
        {
            bail!("expected a PUBACK from the broker, got packet type {wrong:#04x}");
        }
        let bytes = self.partial + count;
        self.partial = bytes % PUBACK_BYTES;
        self.in_flight = self
            .in_flight
            .checked_sub(bytes / PUBACK_BYTES)
            .context("more acknowledgements than messages")?;
        Ok(())
    }
}
