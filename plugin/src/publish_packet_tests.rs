//! Packets as a device writes them, cut, bent and made up.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const EXPIRY_60: [u8; 5] = [2, 0, 0, 0, 60];
/// One of each that a device may send, the expiry in their midst.
const ALL: &[u8] = &[
    1, 1, // payload format
    3, 0, 2, b't', b'/', // content type
    35, 0, 7, // topic alias
    2, 0x12, 0x34, 0x56, 0x78, // expiry
    8, 0, 1, b'r', // response topic
    9, 0, 5, 2, 0, 0, 0, 9, // correlation data, which looks like an expiry
    11, 0xff, 0x7f, // subscription id, as other brokers send it
    38, 0, 1, b'k', 0, 0, // user property
    38, 0, 1, b'k', 0, 1, b'v', // and another
];

fn packet(topic: &str, qos: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(u16::try_from(topic.len()).expect("short").to_be_bytes());
    packet.extend(topic.as_bytes());
    if qos > 0 {
        packet.extend([0x12, 0x34]);
    }
    let mut len = properties.len();
    while len >= 128 {
        packet.push((len % 128) as u8 | 128);
        len /= 128;
    }
    packet.push(len as u8);
    packet.extend(properties);
    packet.extend(payload);
    packet
}

#[test]
fn the_expiry_is_found_among_all_properties_at_every_qos() {
    for qos in 0..=2 {
        for (topic, payload) in [("a/b", &b"payload"[..]), ("", b"x"), ("a", b""), ("", b"")] {
            let found = |properties: &[u8]| {
                expiry_s(&packet(topic, qos, properties, payload), qos, payload)
            };
            assert_eq!(found(&EXPIRY_60), Ok(Some(60)), "{qos} {topic}");
            assert_eq!(found(ALL), Ok(Some(0x1234_5678)));
            assert_eq!(found(&[2, 0, 0, 0, 0]), Ok(Some(0)));
            assert_eq!(found(&[2, 255, 255, 255, 255]), Ok(Some(u32::MAX)));
            assert_eq!(found(&[]), Ok(None));
            assert_eq!(found(&[1, 1, 35, 0, 2]), Ok(None));
        }
    }
}

#[test]
fn properties_longer_than_one_digit_says_are_read() {
    for len in [100_u16, 1_000, 20_000, 60_000] {
        let mut properties = vec![3];
        properties.extend(len.to_be_bytes());
        properties.extend(vec![2; usize::from(len)]);
        properties.extend(EXPIRY_60);
        let packet = packet("t", 1, &properties, b"x");
        assert_eq!(expiry_s(&packet, 1, b"x"), Ok(Some(60)), "{len}");
    }
}

#[test]
fn the_payload_has_to_be_the_messages() {
    let long = [7; 1_000];
    let right = packet("t", 0, &EXPIRY_60, &long);
    assert_eq!(expiry_s(&right, 0, &long), Ok(Some(60)));
    assert_eq!(expiry_s(&right, 0, &long[1..]), Err(OtherPacket));
    assert_eq!(expiry_s(&right, 0, &[7; 1_001]), Err(OtherPacket));
    for at in [0, COMPARED - 1, 1_000 - COMPARED, 999] {
        let mut other = long;
        other[at] = 8;
        assert_eq!(expiry_s(&right, 0, &other), Err(OtherPacket), "{at}");
    }
}

#[test]
fn a_packet_of_another_qos_is_another() {
    let with_id = packet("t", 1, &EXPIRY_60, b"x");
    let without = packet("t", 0, &EXPIRY_60, b"x");
    assert_eq!(expiry_s(&with_id, 0, b"x"), Err(OtherPacket));
    assert_eq!(expiry_s(&without, 2, b"x"), Err(OtherPacket));
}

#[test]
fn a_packet_that_is_cut_short_is_none() {
    for qos in 0..=2 {
        let whole = packet("a/topic", qos, ALL, b"payload");
        for len in 0..whole.len() {
            // Cut within its payload it is a shorter message, whole in itself.
            let left = (len + 7).checked_sub(whole.len());
            let found = expiry_s(&whole[..len], qos, &b"payload"[..left.unwrap_or(0)]);
            assert_eq!(found.is_ok(), left.is_some(), "{len} of {}", whole.len());
            assert_eq!(expiry_s(&whole[..len], qos, b"payload"), Err(OtherPacket));
        }
    }
}

#[test]
fn what_mosquitto_would_have_refused_is_another_packet() {
    let twice = [EXPIRY_60, EXPIRY_60].concat();
    let bad: [&[u8]; 11] = [
        &twice,
        &[2, 0, 0, 0],           // an expiry that is too short
        &[35, 0],                // an alias that is
        &[1],                    // a payload format without a value
        &[3, 0, 9, b't'],        // a string beyond the end
        &[38, 0, 1, b'k'],       // a name without a value
        &[38, 0, 1, b'k', 0, 9], // a value beyond the end
        &[11, 255, 255, 255, 255, 1],
        &[17, 0, 0, 0, 9], // of a CONNECT
        &[0],
        &[255],
    ];
    for properties in bad {
        let packet = packet("t", 1, properties, b"x");
        assert_eq!(
            expiry_s(&packet, 1, b"x"),
            Err(OtherPacket),
            "{properties:?}"
        );
    }
    // Lengths that point far behind the packet.
    for hostile in [
        &[255, 255, b't', 0][..],
        &[0, 1, b't', 255, 255, 255, 127],
        &[0, 1, b't', 255, 255, 255, 255, 127],
        &[0, 1, b't', 128],
    ] {
        assert_eq!(expiry_s(hostile, 0, b""), Err(OtherPacket), "{hostile:?}");
    }
}

#[test]
fn no_packet_is_shorter_than_the_shortest() {
    for qos in 0..=2 {
        for payload in [&b""[..], b"payload"] {
            let least = packet("", qos, &[], payload);
            assert_eq!(least.len(), shortest(qos, payload));
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_within_its_bounds(
        bytes in vec(any::<u8>(), 0..200),
        qos in 0_u8..=2,
        payload in 0_usize..64,
    ) {
        let payload = &bytes[bytes.len().saturating_sub(payload)..];
        let _ = expiry_s(&bytes, qos, payload);
    }

    #[test]
    fn a_packet_in_which_one_byte_is_another_does_no_harm(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        qos in 0_u8..=2,
    ) {
        let mut packet = packet("a/topic", qos, ALL, b"payload");
        let at = at.index(packet.len());
        packet[at] = byte;
        let _ = expiry_s(&packet, qos, b"payload");
    }
}
