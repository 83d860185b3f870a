//! The message expiry of what devices publish, which Mosquitto shows no plugin: it is read out of the packet.

use std::io::{Read, Write};
use std::net::TcpStream;

use protocol::message::Message;

use crate::client::{Client, Login};
use crate::support::{Broker, DEADLINE, Setup, Uplink, free_port, until, versions};

const V5: Login<'static> = Login {
    v5: true,
    will: None,
    username: None,
    password: None,
    keep_session: false,
    will_delay: None,
};
const EXPIRY_60: &[u8] = &[2, 0, 0, 0, 60];

/// A message's topic, its payload's length and its expiry.
type Seen = (String, usize, Option<u32>);

/// Topic, properties, payload, and the expiry that has to come.
type Case<'a> = (&'a str, &'a [u8], &'a [u8], Option<u32>);

fn seen(message: &Message<'_>) -> Seen {
    (
        message.topic.to_owned(),
        message.payload.len(),
        message.expiry_s,
    )
}

/// Publishes, sees the exchange through, and gives what is in the spool then.
fn publish(client: &mut Client, uplink: &mut Uplink, packet: &[u8]) -> Seen {
    client.send(packet);
    // Behind the last answer the message has been taken.
    client.send(&[0xC0, 0]);
    loop {
        match client.read().expect("an answer").0 {
            0x50 => client.send(&[0x62, 2, 0, 9]),
            0x40 | 0x70 => {}
            0xD0 => break,
            other => panic!("{other:#x}"),
        }
    }
    uplink.with(seen)
}

fn no_warning(broker: &Broker) {
    assert!(!broker.log().contains("message expiry"), "{}", broker.log());
}

#[test]
fn the_message_expiry_of_an_mqtt_5_publish_comes_along() {
    let others = [
        &[1, 1, 3, 0, 1, b't', 9, 0, 2, 0, 255][..],
        EXPIRY_60,
        &[38, 0, 1, b'k', 0, 1, b'v', 38, 0, 1, b'k', 0, 0],
    ]
    .concat();
    let long = vec![7; 300_000];
    let cases: [Case<'_>; 12] = [
        ("up/a", EXPIRY_60, b"x", Some(60)),
        ("up/a", &[], b"x", None),
        ("up/a", &[1, 1], b"x", None),
        ("up/a", &others, b"x", Some(60)),
        ("up/empty", EXPIRY_60, b"", Some(60)),
        ("up/empty", &[], b"", None),
        ("up/long", EXPIRY_60, &long, Some(60)),
        // None for Mosquitto, and the sidecar too; told all the same.
        ("up/zero", &[2, 0, 0, 0, 0], b"x", Some(0)),
        ("up/most", &[2, 255, 255, 255, 255], b"x", Some(u32::MAX)),
        ("up/alias", &[35, 0, 3, 2, 0, 0, 0, 60], b"x", Some(60)),
        // The alias alone.
        ("", &[2, 0, 0, 1, 1, 35, 0, 3], b"x", Some(257)),
        ("", &[35, 0, 3], b"", None),
    ];
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(&broker, "device", V5);
        for qos in 0..=2 {
            for (topic, properties, payload, expected) in cases {
                let topic_there = if topic.is_empty() { "up/alias" } else { topic };
                for flags in [0, 1] {
                    let mut packet = client.publish_packet(topic, payload, qos, properties);
                    packet[0] |= flags;
                    assert_eq!(
                        publish(&mut client, &mut uplink, &packet),
                        (topic_there.to_owned(), payload.len(), expected),
                        "{version:?}, QoS {qos}, {properties:?}"
                    );
                }
            }
        }
        no_warning(&broker);
    }
}

#[test]
fn packets_that_come_at_once_keep_each_its_expiry() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(&broker, "device", V5);
        let mut all = Vec::new();
        for number in 0..200_u8 {
            let expiry = [2, 0, 0, 0, number];
            let properties: &[u8] = if number % 3 == 0 { &[] } else { &expiry };
            let payload = vec![number; usize::from(number) * 10];
            all.extend(client.publish_packet("up/a", &payload, 0, properties));
        }
        client.send(&all);
        client.send(&[0xC0, 0]);
        assert_eq!(client.read().expect("an answer").0, 0xD0);
        for number in 0..200_u8 {
            let expected = (number % 3 != 0).then(|| u32::from(number));
            assert_eq!(uplink.with(seen).2, expected, "{version:?}, {number}");
        }
        no_warning(&broker);
    }
}

#[test]
fn mqtt_3_1_1_has_no_expiry() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(&broker, "device", Login::default());
        for qos in 0..=2 {
            // To MQTT 3.1.1 it is a payload that begins like properties.
            let mut payload = vec![5];
            payload.extend(EXPIRY_60);
            let packet = client.publish_packet("up/a", &payload, qos, &[]);
            let seen = publish(&mut client, &mut uplink, &packet);
            assert_eq!(seen, ("up/a".to_owned(), 6, None), "{version:?}");
        }
    }
}

#[test]
fn behind_a_mount_point_the_expiry_comes_along() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup.after("mount_point up/here/");
        let broker = setup.start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(&broker, "device", V5);
        let packet = client.publish_packet("a", b"x", 1, EXPIRY_60);
        let seen = publish(&mut client, &mut uplink, &packet);
        assert_eq!(seen, ("up/here/a".to_owned(), 1, Some(60)), "{version:?}");
    }
}

/// Mosquitto's own bridge is a client with a record too, and another topic in its packets.
#[test]
fn what_a_native_bridge_brings_has_its_expiry() {
    for version in versions() {
        let far = Setup::without_plugin(&version).start();
        let mut setup = Setup::new(&version);
        setup
            .after("connection native")
            .after(&format!("address 127.0.0.1:{}", far.port()))
            .after("bridge_protocol_version mqttv50")
            .after("topic # in 1 up/ far/");
        let broker = setup.start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(&far, "device", V5);
        let packet = client.publish_packet("far/a", b"bridged", 1, EXPIRY_60);
        // Until the bridge has subscribed.
        let (topic, len, expiry) = until("the bridge brings a message", || {
            client.send(&packet);
            client.read().expect("an acknowledgement");
            uplink.try_with(seen)
        });
        assert_eq!((&topic[..], len), ("up/a", 7));
        let expiry = expiry.expect("an expiry");
        assert!((1..=60).contains(&expiry), "{expiry}");
        no_warning(&broker);
    }
}

/// An MQTT 5 client behind a websocket, with as much of that as is needed here.
struct WebSocket(TcpStream);

impl WebSocket {
    fn connect(port: u16) -> WebSocket {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream
            .write_all(
                b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
                  Sec-WebSocket-Version: 13\r\n\r\n",
            )
            .expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
        WebSocket(stream)
    }

    /// One frame, masked with zeros.
    fn send(&mut self, packet: &[u8]) {
        let len = u16::try_from(packet.len()).expect("short");
        let mut frame = vec![0x82, 0x80 | 126];
        frame.extend(len.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(packet);
        self.0.write_all(&frame).expect("written");
    }

    /// The MQTT packet in the next frame.
    fn read(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let mut packet = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut packet).expect("a frame");
        packet
    }
}

#[test]
fn through_a_websocket_the_expiry_comes_along() {
    for version in versions() {
        let port = free_port();
        let mut setup = Setup::new(&version);
        setup
            .after(&format!("listener {port} 127.0.0.1"))
            .after("protocol websockets");
        let broker = setup.start();
        let mut uplink = broker.uplink();
        let mut client = WebSocket::connect(port);
        client.send(b"\x10\x10\0\x04MQTT\x05\x02\0\x3c\0\0\x03web");
        assert_eq!(client.read()[0], 0x20, "{version:?}");
        let writer = Client::connect(&broker, "writes packets", V5);
        for (number, payload) in [&b""[..], b"x", &[7; 20_000]].into_iter().enumerate() {
            let packet = writer.publish_packet("up/web", payload, 1, EXPIRY_60);
            // In one frame, and cut in its midst.
            let (head, tail) = packet.split_at([packet.len(), 6, 9_000][number]);
            client.send(head);
            if !tail.is_empty() {
                client.send(tail);
            }
            assert_eq!(client.read()[0], 0x40, "{version:?}");
            let expected = ("up/web".to_owned(), payload.len(), Some(60));
            assert_eq!(uplink.with(seen), expected, "{version:?}");
        }
        no_warning(&broker);
    }
}
