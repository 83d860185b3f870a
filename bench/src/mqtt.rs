//! As much of MQTT 3.1.1 as a load generator needs: packets are built once and only patched, and what comes back is hardly parsed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// First byte of a PUBACK.
pub(crate) const PUBACK: u8 = 0x40;
/// Size of a PUBACK in MQTT 3.1.1, always.
pub(crate) const PUBACK_BYTES: usize = 4;
/// Size of a payload where nothing else is said.
pub(crate) const PAYLOAD_BYTES: usize = 128;
/// What every payload begins with: a sequence number and the time of sending.
const STAMP_BYTES: usize = 16;

/// A PUBLISH at QoS 1 that is built once and patched for each message.
///
/// ```text
/// 0x32 | remaining length | topic length (2) | topic | packet id (2) | sequence (8) | sent, ns (8) | zeros
/// ```
pub(crate) struct PublishTemplate {
    bytes: Vec<u8>,
    packet_id_at: usize,
}

impl PublishTemplate {
    /// For payloads of `payload` bytes, at least those of the stamp.
    pub(crate) fn new(topic: &str, payload: usize) -> Self {
        let mut body = string(topic);
        let packet_id_at = body.len();
        body.resize(packet_id_at + 2 + payload.max(STAMP_BYTES), 0);
        let bytes = packet(0x32, &body);
        let header = bytes.len() - body.len();
        PublishTemplate {
            packet_id_at: header + packet_id_at,
            bytes,
        }
    }

    /// Appends the packet with these values to `out`.
    pub(crate) fn write(&mut self, packet_id: u16, sequence: u64, sent_ns: u64, out: &mut Vec<u8>) {
        let at = self.packet_id_at;
        self.bytes[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        self.bytes[at + 2..at + 10].copy_from_slice(&sequence.to_be_bytes());
        self.bytes[at + 10..at + 18].copy_from_slice(&sent_ns.to_be_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

/// Opens a connection with a clean session and waits for the CONNACK.
pub(crate) fn connect(port: u16, client_id: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .with_context(|| format!("connecting to 127.0.0.1:{port}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut body = string("MQTT");
    // Level 4 (3.1.1), clean session, no keep-alive.
    body.extend_from_slice(&[4, 0x02, 0, 0]);
    body.extend_from_slice(&string(client_id));
    stream.write_all(&packet(0x10, &body))?;
    let mut connack = [0; 4];
    stream
        .read_exact(&mut connack)
        .context("waiting for the CONNACK")?;
    if connack != [0x20, 2, 0, 0] {
        bail!("the broker refused the connection: CONNACK {connack:02x?}");
    }
    Ok(stream)
}

/// Subscribes at QoS 1 and waits for the SUBACK.
pub(crate) fn subscribe(stream: &mut TcpStream, filter: &str) -> Result<()> {
    let mut body = vec![0, 1];
    body.extend_from_slice(&string(filter));
    body.push(1);
    stream.write_all(&packet(0x82, &body))?;
    let mut suback = [0; 5];
    stream
        .read_exact(&mut suback)
        .context("waiting for the SUBACK")?;
    if suback != [0x90, 3, 0, 1, 1] {
        bail!("the broker refused the subscription: SUBACK {suback:02x?}");
    }
    Ok(())
}

/// What a subscriber finds in its stream.
pub(crate) struct Delivery {
    /// Packet id, at QoS 1.
    pub(crate) packet_id: Option<u16>,
    /// Its number, from the payload; `None` when the payload is too short to say.
    pub(crate) sequence: Option<u64>,
    /// When it was sent, from the payload, likewise.
    pub(crate) sent_ns: Option<u64>,
}

/// Takes the first whole packet off `buffer`: `None` when there is none yet. Anything but a PUBLISH is skipped.
pub(crate) fn next_delivery(buffer: &mut Vec<u8>) -> Result<Option<Delivery>> {
    let mut at = 0;
    let delivery = next_delivery_at(buffer, &mut at)?;
    buffer.drain(..at);
    Ok(delivery)
}

/// The same from `at` on, which it moves past what it has taken.
pub(crate) fn next_delivery_at(buffer: &[u8], at: &mut usize) -> Result<Option<Delivery>> {
    while let Some((header, length)) = fixed_header(&buffer[*at..])? {
        let packet = &buffer[*at..];
        let Some(body) = packet.get(header..header + length) else {
            return Ok(None);
        };
        *at += header + length;
        if packet[0] & 0xf0 == 0x30 {
            return delivery(packet[0], body).map(Some);
        }
    }
    Ok(None)
}

/// A PUBACK for `packet_id`.
pub(crate) fn puback(packet_id: u16) -> [u8; PUBACK_BYTES] {
    let [high, low] = packet_id.to_be_bytes();
    [PUBACK, 2, high, low]
}

fn delivery(first: u8, body: &[u8]) -> Result<Delivery> {
    let topic = usize::from(u16::from_be_bytes([
        *body.first().context("short PUBLISH")?,
        *body.get(1).context("short PUBLISH")?,
    ]));
    let mut at = 2 + topic;
    let mut packet_id = None;
    if first & 0x06 != 0 {
        packet_id = Some(u16::from_be_bytes([
            *body.get(at).context("short PUBLISH")?,
            *body.get(at + 1).context("short PUBLISH")?,
        ]));
        at += 2;
    }
    let number = |from: usize| {
        let bytes = body.get(from..from + 8)?;
        bytes.try_into().ok().map(u64::from_be_bytes)
    };
    Ok(Delivery {
        packet_id,
        sequence: number(at),
        sent_ns: number(at + 8),
    })
}

/// Sizes of the fixed header and of the rest of the packet at the start of `buffer`; `None` when more bytes are needed.
fn fixed_header(buffer: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (index, byte) in buffer.iter().skip(1).enumerate() {
        if index == 4 {
            bail!("malformed remaining length from the broker");
        }
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 2, length)));
        }
    }
    Ok(None)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        bytes.push(if left == 0 { low } else { low | 0x80 });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    // Only the benchmark's own short names come here.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_carries_its_patched_values_and_survives_being_cut() {
        let mut template = PublishTemplate::new("a/b", PAYLOAD_BYTES);
        let mut bytes = Vec::new();
        template.write(7, 8, 9, &mut bytes);
        template.write(10, 11, 12, &mut bytes);
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        for byte in bytes {
            buffer.push(byte);
            while let Some(delivery) = next_delivery(&mut buffer).unwrap() {
                seen.push((delivery.packet_id, delivery.sent_ns));
            }
        }
        assert_eq!(seen, [(Some(7), Some(9)), (Some(10), Some(12))]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn other_packets_are_skipped_and_a_bad_length_is_an_error() {
        let mut buffer = puback(5).to_vec();
        assert!(next_delivery(&mut buffer).unwrap().is_none());
        assert!(buffer.is_empty());
        let mut malformed = vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(next_delivery(&mut malformed).is_err());
    }
}
