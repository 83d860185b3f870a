//! Idle latency: a few messages a second, each with its time of sending in it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::mqtt::{self, PAYLOAD_BYTES, PublishTemplate};
use crate::sys;

const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Publishes `count` messages at QoS 1 on `topic`, `rate` a second, whether or not they are acknowledged in time.
pub(crate) fn publish(port: u16, topic: &str, count: usize, rate: u32) -> Result<()> {
    let mut stream = mqtt::connect(port, "bench-latency-publisher")?;
    let mut acknowledgements = stream.try_clone()?;
    let mut template = PublishTemplate::new(topic, PAYLOAD_BYTES);
    // Read beside the sending, so that a late acknowledgement never delays the next message.
    let reader = thread::spawn(move || -> Result<()> {
        let mut pubacks = vec![0; count * mqtt::PUBACK_BYTES];
        acknowledgements
            .read_exact(&mut pubacks)
            .context("waiting for the PUBACKs")
    });
    let start = Instant::now();
    let mut packet = Vec::new();
    for index in 0..count {
        if sys::terminated() {
            bail!("asked to end while publishing");
        }
        let due = start + Duration::from_secs(1) * u32::try_from(index)? / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        packet.clear();
        let packet_id = u16::try_from(index % usize::from(u16::MAX))? + 1;
        template.write(packet_id, index as u64, sys::unix_nanos(), &mut packet);
        stream.write_all(&packet)?;
    }
    reader
        .join()
        .map_err(|_| anyhow!("the reader of acknowledgements panicked"))?
}

/// A subscriber at QoS 1 that notes how old each message is when it comes.
pub(crate) struct Subscriber {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Subscriber {
    pub(crate) fn connect(port: u16, filter: &str) -> Result<Self> {
        let mut stream = mqtt::connect(port, "bench-latency-subscriber")?;
        mqtt::subscribe(&mut stream, filter)?;
        Ok(Subscriber {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Waits up to `limit` for one message; `None` when none came.
    pub(crate) fn receive_one(&mut self, limit: Duration) -> Result<Option<u64>> {
        let deadline = Instant::now() + limit;
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(delivery) = mqtt::next_delivery(&mut self.buffer)? {
                let now = sys::unix_nanos();
                if let Some(packet_id) = delivery.packet_id {
                    self.stream.write_all(&mqtt::puback(packet_id))?;
                }
                let sent = delivery
                    .sent_ns
                    .context("a delivered message is too short")?;
                return Ok(Some(now.saturating_sub(sent)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the broker closed the subscriber's connection"),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error).context("reading from the broker"),
            }
        }
    }

    /// Takes what is still coming until nothing came for `quiet`.
    pub(crate) fn drain(&mut self, quiet: Duration) -> Result<()> {
        while self.receive_one(quiet)?.is_some() {}
        Ok(())
    }

    /// Receives `count` messages in a thread of its own; joining it gives the subscriber back with their latencies in nanoseconds.
    pub(crate) fn collect(mut self, count: usize) -> JoinHandle<Result<(Self, Vec<u64>)>> {
        thread::spawn(move || {
            let mut latencies = Vec::with_capacity(count);
            while latencies.len() < count {
                let latency = self.receive_one(RECEIVE_TIMEOUT)?;
                latencies.push(
                    latency.with_context(|| {
                        format!("{} of {count} messages arrived", latencies.len())
                    })?,
                );
            }
            Ok((self, latencies))
        })
    }
}
