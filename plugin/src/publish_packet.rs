//! The message expiry interval in a PUBLISH packet of MQTT 5, as its sender wrote it.
//!
//! Mosquitto has parsed and checked the packet before. This reads it once more, and gives an answer only where it is a
//! PUBLISH to its last byte and ends in the payload of the message at hand.
//!
//! ```text
//! | 2 bytes, topic | packet id (QoS > 0) | 1 to 4 bytes, properties | payload |
//! ```

/// The packet is not the message's, or no packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OtherPacket;

/// Bytes of a payload that are compared, at either end: a long one must not cost more than a short one.
const COMPARED: usize = 64;

// MQTT 5, 2.2.2.2: the properties that a PUBLISH may have.
const PAYLOAD_FORMAT: u8 = 1;
const EXPIRY: u8 = 2;
const CONTENT_TYPE: u8 = 3;
const RESPONSE_TOPIC: u8 = 8;
const CORRELATION_DATA: u8 = 9;
const SUBSCRIPTION_ID: u8 = 11;
const TOPIC_ALIAS: u8 = 35;
const USER_PROPERTY: u8 = 38;

/// The fewest bytes that a PUBLISH with such a payload has behind its fixed header.
pub(crate) fn shortest(qos: u8, payload: &[u8]) -> usize {
    let packet_id = if qos > 0 { 2 } else { 0 };
    // The lengths of topic and properties.
    2 + packet_id + 1 + payload.len()
}

/// The expiry in seconds, if there is one; `packet` is what is behind the fixed header.
///
/// The topic is not compared: an alias, a mount point or a bridge's prefixes make it another than the message's.
pub(crate) fn expiry_s(packet: &[u8], qos: u8, payload: &[u8]) -> Result<Option<u32>, OtherPacket> {
    let (properties, rest) = split(packet, qos).ok_or(OtherPacket)?;
    if !has_same_ends(rest, payload) {
        return Err(OtherPacket);
    }
    find(properties)
}

/// The properties and the payload.
fn split(packet: &[u8], qos: u8) -> Option<(Rest<'_>, &[u8])> {
    let mut rest = Rest(packet);
    rest.counted()?;
    if qos > 0 {
        rest.take(2)?;
    }
    let len = rest.varint()?;
    let properties = rest.take(len)?;
    Some((Rest(properties), rest.0))
}

fn has_same_ends(one: &[u8], other: &[u8]) -> bool {
    let compared = COMPARED.min(one.len());
    one.len() == other.len()
        && one[..compared] == other[..compared]
        && one[one.len() - compared..] == other[other.len() - compared..]
}

/// All of the properties are read: they have to end where their length says.
fn find(mut properties: Rest<'_>) -> Result<Option<u32>, OtherPacket> {
    let mut expiry = None;
    while !properties.0.is_empty() {
        match properties.property().ok_or(OtherPacket)? {
            // Twice is an error, which Mosquitto would have told its sender.
            Some(_) if expiry.is_some() => return Err(OtherPacket),
            Some(seconds) => expiry = Some(seconds),
            None => {}
        }
    }
    Ok(expiry)
}

/// What is still to be read. `None` from its functions: it is too short.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// A string or binary data: a length of two bytes, and as many.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let len = u16::from_be_bytes(self.array()?);
        self.take(usize::from(len))
    }

    /// A variable byte integer (1.5.5): at most four digits of seven bits, the lowest first.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let [digit] = self.array()?;
            value |= usize::from(digit & 0x7f) << shift;
            if digit < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The next property; its value where that is the expiry. `None` also for one that a PUBLISH can't have.
    fn property(&mut self) -> Option<Option<u32>> {
        let [id] = self.array()?;
        match id {
            EXPIRY => return Some(Some(u32::from_be_bytes(self.array()?))),
            PAYLOAD_FORMAT => self.take(1).map(drop)?,
            TOPIC_ALIAS => self.take(2).map(drop)?,
            SUBSCRIPTION_ID => self.varint().map(drop)?,
            CONTENT_TYPE | RESPONSE_TOPIC | CORRELATION_DATA => self.counted().map(drop)?,
            USER_PROPERTY => {
                self.counted()?;
                self.counted()?;
            }
            _ => return None,
        }
        Some(None)
    }
}

#[cfg(test)]
#[path = "publish_packet_tests.rs"]
mod tests;
