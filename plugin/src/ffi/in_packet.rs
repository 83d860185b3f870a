//! The packet that Mosquitto has read last from a client, for the message expiry in it: Mosquitto takes that out of the
//! properties before it calls the plugins.
//!
//! Within MESSAGE the packet still lies in the client's record, whole and read to its end (`packet__read` frees it when
//! `handle__publish` has returned, and nobody else raises that event; so too for websockets). In the sources:
//!
//! | | 2.0, `struct mosquitto__packet` | 2.1, `struct mosquitto__packet_in` |
//! |---|---|---|
//! | `uint8_t *payload`: all behind the fixed header | 0 | 0 |
//! | `uint32_t remaining_length`: of that | 0x14 | 0x0c |
//! | `uint32_t to_process`: bytes that have not come yet | 0x1c | 0x14 |
//! | `uint32_t pos`: read by the handler | 0x20 | 0x18 |
//! | `uint8_t command`: the first byte of the fixed header | 0x26 | 0x22 |
//! | `int8_t remaining_count`: bytes that the length took, once it is there | 0x27 | 0x30 |

use super::broker::Broker;
use super::c;
use super::client_record::{ClientRecords, Record};
use crate::events::Publish;
use crate::publish_packet::{self, OtherPacket};

/// Where the packet's fields are, in bytes from the start of the client's record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InPacket {
    payload: usize,
    remaining_length: usize,
    to_process: usize,
    pos: usize,
    command: usize,
    remaining_count: usize,
}

impl InPacket {
    /// 2.0's, at `start`.
    pub(super) const fn of_2_0(start: usize) -> InPacket {
        InPacket {
            payload: start,
            remaining_length: start + 0x14,
            to_process: start + 0x1c,
            pos: start + 0x20,
            command: start + 0x26,
            remaining_count: start + 0x27,
        }
    }

    /// 2.1's, at `start`.
    pub(super) const fn of_2_1(start: usize) -> InPacket {
        InPacket {
            payload: start,
            remaining_length: start + 0x0c,
            to_process: start + 0x14,
            pos: start + 0x18,
            command: start + 0x22,
            remaining_count: start + 0x30,
        }
    }
}

const PUBLISH: u8 = 0x30;
/// The largest that MQTT knows (2.1.4).
const REMAINING_LENGTH_MAX: u32 = 268_435_455;

impl ClientRecords {
    /// The message expiry with which `client` has just sent `publish`, in seconds.
    ///
    /// # Safety
    /// `client` is the client of the MESSAGE event at hand, and `publish` what that tells.
    pub(super) unsafe fn expiry_s(
        &self,
        broker: &Broker,
        client: *const c::mosquitto,
        publish: &Publish<'_>,
    ) -> Option<u32> {
        if publish.client.mqtt_version != 5 {
            return None;
        }
        // SAFETY: as the caller promises.
        let (record, layout) = unsafe { self.record(broker, client) }?;
        // SAFETY: it is the client of the event at hand, and a layout that was found to be the broker's.
        let expiry = unsafe { record.packet_of(&layout.in_packet, publish) }
            .and_then(|packet| publish_packet::expiry_s(packet, publish.qos, publish.payload));
        expiry.unwrap_or_else(|OtherPacket| {
            if !self.told_other_packet.replace(true) {
                log::warn!(
                    "what `{}` has published is not what came from it, as when a plugin before this one changes \
                     messages: the message expiry of such messages is not bridged",
                    publish.client.id
                );
            }
            None
        })
    }
}

impl Record {
    /// The packet of this message behind its fixed header, if it can be it.
    ///
    /// # Safety
    /// A MESSAGE event about this client has not returned, and the fields are where `at` says.
    unsafe fn packet_of<'a>(
        &self,
        at: &InPacket,
        publish: &Publish<'a>,
    ) -> Result<&'a [u8], OtherPacket> {
        let command = PUBLISH | publish.qos << 1 | u8::from(publish.retain);
        let duplicate = command | 8;
        let len = self.word(at.remaining_length);
        let start = self.block(at.payload);
        let fits = [command, duplicate].contains(&self.byte(at.command))
            && (1..=4).contains(&self.byte(at.remaining_count))
            && len <= REMAINING_LENGTH_MAX
            && len as usize >= publish_packet::shortest(publish.qos, publish.payload)
            && self.word(at.pos) == len
            && self.word(at.to_process) == 0
            && !start.is_null();
        if !fits {
            return Err(OtherPacket);
        }
        // SAFETY: the broker has allocated `remaining_length` bytes, has filled them, and frees them after the event.
        Ok(unsafe { std::slice::from_raw_parts(start, len as usize) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Client, NO_EXPIRY};
    use crate::ffi::properties::BorrowedProperties;
    use crate::test_alloc::allocations;

    const AT: InPacket = InPacket::of_2_1(0xa0);

    /// A client's record that holds this packet, QoS 1 and retained.
    struct Memory {
        record: Vec<u8>,
        _packet: Vec<u8>,
    }

    impl Memory {
        fn with(packet: &[u8]) -> Memory {
            let packet = packet.to_vec();
            let mut memory = Memory {
                record: vec![0; 0x100],
                _packet: Vec::new(),
            };
            let len = u32::try_from(packet.len()).expect("short").to_ne_bytes();
            let start = packet.as_ptr().expose_provenance().to_ne_bytes();
            memory.put(AT.payload, &start);
            memory.put(AT.remaining_length, &len);
            memory.put(AT.pos, &len);
            memory.put(AT.command, &[0x33]);
            memory.put(AT.remaining_count, &[1]);
            memory._packet = packet;
            memory
        }

        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.record[at..at + bytes.len()].copy_from_slice(bytes);
        }

        fn packet_of(&self, qos: u8, retain: bool) -> Result<&[u8], OtherPacket> {
            let publish = Publish {
                client: Client {
                    key: 1,
                    id: "device",
                    username: None,
                    mqtt_version: 5,
                },
                topic: "t",
                payload: b"x",
                qos,
                retain,
                properties: BorrowedProperties::NONE,
                expiry: NO_EXPIRY,
            };
            // SAFETY: the fields are where `AT` says, and the packet lives as long as this.
            unsafe { Record::at(self.record.as_ptr()).packet_of(&AT, &publish) }
        }
    }

    const PACKET: &[u8] = &[0, 1, b't', 0, 7, 5, 2, 0, 0, 0, 60, b'x'];

    #[test]
    fn the_packet_of_the_message_at_hand_is_found_without_an_allocation() {
        let memory = Memory::with(PACKET);
        let before = allocations();
        for _ in 0..1_000 {
            let packet = memory.packet_of(1, true);
            let expiry = packet.and_then(|packet| publish_packet::expiry_s(packet, 1, b"x"));
            assert_eq!(expiry, Ok(Some(60)));
        }
        assert_eq!(allocations() - before, 0);
        let mut sent_again = memory;
        sent_again.put(AT.command, &[0x3b]);
        assert_eq!(sent_again.packet_of(1, true), Ok(PACKET));
    }

    #[test]
    fn a_record_without_the_packet_is_followed_nowhere() {
        let len = u32::try_from(PACKET.len()).expect("short");
        let nowhere = usize::MAX.to_ne_bytes();
        let deviations: [(usize, &[u8]); 9] = [
            (AT.payload, &0_usize.to_ne_bytes()),
            (AT.command, &[0x32]),                   // not retained
            (AT.command, &[0x35]),                   // QoS 2
            (AT.command, &[0x62]),                   // no PUBLISH
            (AT.pos, &(len - 1).to_ne_bytes()),      // not read to its end
            (AT.to_process, &1_u32.to_ne_bytes()),   // not there to its end
            (AT.remaining_count, &[0]),              // cleaned up
            (AT.remaining_length, &[5, 0, 0, 0]),    // shorter than its payload
            (AT.remaining_length, &[0, 0, 0, 0x10]), // longer than any
        ];
        for (at, bytes) in deviations {
            let mut memory = Memory::with(PACKET);
            // Would end the test, were it followed.
            memory.put(AT.payload, &nowhere);
            memory.put(at, bytes);
            if at == AT.remaining_length {
                memory.put(AT.pos, bytes);
            }
            assert_eq!(memory.packet_of(1, true), Err(OtherPacket), "{at:#x}");
        }
        assert_eq!(
            Memory::with(PACKET).packet_of(0, true),
            Err(OtherPacket),
            "another QoS"
        );
        assert_eq!(Memory::with(PACKET).packet_of(1, false), Err(OtherPacket));
    }
}
