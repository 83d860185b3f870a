//! The load: several publishers at QoS 1, each with a window of messages in flight, all served by one thread with a few big reads
//! and writes, so that the two cores stay free for what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::mqtt::{self, PUBACK, PUBACK_BYTES, PublishTemplate};
use crate::sys::{self, Interest};

/// The last acknowledgements must come within this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// A paced load looks at the clock at least so often.
const POLL_TIMEOUT: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 64 * 1024;

/// Shape of a load.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Connections that publish.
    pub(crate) publishers: usize,
    /// Messages that each may have unacknowledged.
    pub(crate) window: usize,
    /// Size of the payloads.
    pub(crate) payload: usize,
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
    scratch: Vec<libc::pollfd>,
    read_buffer: Vec<u8>,
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
            .map(|number| Publisher::connect(port, number, shape.payload))
            .collect::<Result<_>>()?;
        Ok(Load {
            publishers,
            window: shape.window,
            scratch: Vec::new(),
            read_buffer: vec![0; READ_BYTES],
        })
    }

    /// Publishes `messages` messages as fast as the acknowledgements come, and waits for the last of these.
    pub(crate) fn run(&mut self, messages: u64) -> Result<Outcome> {
        // At most half a window: a full one must be able to become readable.
        self.set_low_water(self.window.div_ceil(2))?;
        let start = Instant::now();
        let mut left = messages;
        while left > 0 {
            left -= self.refill(left)?;
            if left > 0 {
                self.exchange()?;
            }
        }
        self.drain()?;
        Ok(Outcome {
            messages,
            elapsed: start.elapsed(),
        })
    }

    /// Publishes `rate` messages a second until `stop` says so, each one counted in `sent`, and waits for the last acknowledgement.
    pub(crate) fn run_paced(
        &mut self,
        rate: f64,
        stop: &AtomicBool,
        sent: &AtomicU64,
    ) -> Result<()> {
        self.set_low_water(1)?;
        let start = Instant::now();
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = (start.elapsed().as_secs_f64() * rate) as u64;
            count += self.refill(due.saturating_sub(count))?;
            sent.store(count, Ordering::Relaxed);
            self.exchange()?;
        }
        self.drain()
    }

    fn refill(&mut self, at_most: u64) -> Result<u64> {
        if sys::terminated() {
            bail!("asked to end while publishing");
        }
        let mut left = at_most;
        for publisher in &mut self.publishers {
            left -= publisher.refill(self.window, left)?;
        }
        Ok(at_most - left)
    }

    /// Waits for the last acknowledgements.
    fn drain(&mut self) -> Result<()> {
        self.set_low_water(1)?;
        let start = Instant::now();
        while self
            .publishers
            .iter()
            .any(|publisher| publisher.in_flight > 0)
        {
            if sys::terminated() {
                bail!("asked to end while publishing");
            }
            if start.elapsed() > DRAIN_TIMEOUT {
                bail!("the broker did not acknowledge everything within {DRAIN_TIMEOUT:?}");
            }
            self.exchange()?;
        }
        Ok(())
    }

    fn exchange(&mut self) -> Result<()> {
        let mut interests: Vec<Interest> = self
            .publishers
            .iter()
            .map(|publisher| Interest {
                fd: publisher.stream.as_raw_fd(),
                write: publisher.written < publisher.out.len(),
                ready: false,
            })
            .collect();
        sys::poll(&mut interests, &mut self.scratch, POLL_TIMEOUT).context("poll")?;
        for (publisher, interest) in self.publishers.iter_mut().zip(&interests) {
            if interest.ready {
                publisher.flush()?;
                publisher.read_acknowledgements(&mut self.read_buffer)?;
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
    fn connect(port: u16, number: usize, payload: usize) -> Result<Self> {
        let stream = mqtt::connect(port, &format!("bench-load-{number}"))?;
        stream.set_nonblocking(true)?;
        Ok(Publisher {
            stream,
            template: PublishTemplate::new(&format!("bench/{number}/load"), payload),
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
