//! A small MQTT client on a raw socket.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Broker, DEADLINE};

pub(crate) struct Client {
    stream: TcpStream,
    v5: bool,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Login<'a> {
    pub(crate) v5: bool,
    pub(crate) will: Option<(&'a str, &'a str)>,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    /// The session outlives the connection (MQTT 3.1.1).
    pub(crate) keep_session: bool,
    /// Seconds until the will is sent (MQTT 5).
    pub(crate) will_delay: Option<u32>,
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
    out.extend(text);
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left % 128).expect("below 128");
        left /= 128;
        out.push(if left > 0 { digit | 128 } else { digit });
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

impl Client {
    /// Connects and expects to be let in.
    pub(crate) fn connect(broker: &Broker, id: &str, login: Login<'_>) -> Client {
        let (client, code) = Client::try_connect(broker, id, login);
        assert_eq!(code, 0, "{id} was refused");
        client
    }

    /// Connects; the CONNACK's code.
    pub(crate) fn try_connect(broker: &Broker, id: &str, login: Login<'_>) -> (Client, u8) {
        let stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("the broker listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.set_nodelay(true).expect("set");
        let mut client = Client {
            stream,
            v5: login.v5,
        };
        let flags = if login.keep_session { 0 } else { 2 }
            | if login.will.is_some() { 4 } else { 0 }
            | if login.username.is_some() { 128 } else { 0 }
            | if login.password.is_some() { 64 } else { 0 };
        let mut body = vec![
            0,
            4,
            b'M',
            b'Q',
            b'T',
            b'T',
            if login.v5 { 5 } else { 4 },
            flags,
            0,
            60,
        ];
        if login.v5 {
            match login.will_delay {
                // A session that outlives its will's delay: the will comes with the delay, not with the session's end.
                Some(_) => body.extend([5, 17, 0, 0, 0, 60]),
                None => body.push(0),
            }
        }
        text(&mut body, id.as_bytes());
        if let Some((topic, payload)) = login.will {
            if login.v5 {
                match login.will_delay {
                    Some(seconds) => {
                        body.extend([5, 24]);
                        body.extend(seconds.to_be_bytes());
                    }
                    None => body.push(0),
                }
            }
            text(&mut body, topic.as_bytes());
            text(&mut body, payload.as_bytes());
        }
        if let Some(name) = login.username {
            text(&mut body, name.as_bytes());
        }
        if let Some(password) = login.password {
            text(&mut body, password.as_bytes());
        }
        client.send(&packet(0x10, &body));
        let answer = client.read().expect("a CONNACK");
        assert_eq!(answer.0, 0x20);
        (client, answer.1[1])
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// The next packet: its first byte and its body. `None` when the broker closed.
    pub(crate) fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(1) => {}
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("nothing came: {error}"),
        }
        let kind = byte[0];
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            self.stream.read_exact(&mut byte).expect("a length");
            len |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).expect("a body");
        Some((kind, body))
    }

    pub(crate) fn publish_packet(
        &self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        properties: &[u8],
    ) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, topic.as_bytes());
        if qos > 0 {
            body.extend([0, 9]);
        }
        if self.v5 {
            body.push(u8::try_from(properties.len()).expect("short"));
            body.extend(properties);
        }
        body.extend(payload);
        packet(0x30 | (qos << 1), &body)
    }

    /// Publishes and gives the answer to QoS 1 or 2: its first byte and the reason code; `None`: closed without one.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) -> Option<(u8, u8)> {
        let packet = self.publish_packet(topic, payload, qos, &[]);
        self.send(&packet);
        if qos == 0 {
            return Some((0, 0));
        }
        let (kind, body) = self.read()?;
        let reason = if kind == 0xE0 {
            body.first()
        } else {
            body.get(2)
        };
        Some((kind, reason.copied().unwrap_or(0)))
    }

    /// Asks for a subscription, and leaves the answer.
    pub(crate) fn send_subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 7];
        if self.v5 {
            body.push(0);
        }
        text(&mut body, filter.as_bytes());
        body.push(qos);
        self.send(&packet(0x82, &body));
    }

    /// Subscribes at QoS 1; the SUBACK's code.
    pub(crate) fn subscribe(&mut self, filter: &str) -> u8 {
        self.send_subscribe(filter, 1);
        let (kind, body) = self.read().expect("a SUBACK");
        assert_eq!(kind, 0x90);
        *body.last().expect("a code")
    }

    /// Gives a subscription up, and waits for the answer.
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        let mut body = vec![0, 8];
        if self.v5 {
            body.push(0);
        }
        text(&mut body, filter.as_bytes());
        self.send(&packet(0xA2, &body));
        assert_eq!(self.read().expect("an UNSUBACK").0, 0xB0);
    }

    /// The next message as `topic payload`, and the raw properties; acknowledges it.
    pub(crate) fn message(&mut self) -> (String, Vec<u8>) {
        let (kind, body) = self.read().expect("a message");
        assert_eq!(kind & 0xF0, 0x30, "{kind:#x}");
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8_lossy(&body[2..2 + topic_len]).into_owned();
        let mut at = 2 + topic_len;
        if kind & 6 != 0 {
            let mid = [body[at], body[at + 1]];
            at += 2;
            self.send(&[0x40, 2, mid[0], mid[1]]);
        }
        let mut properties = Vec::new();
        if self.v5 {
            let len = usize::from(body[at]); // below 128 in these tests
            properties = body[at + 1..at + 1 + len].to_vec();
            at += 1 + len;
        }
        (
            format!("{topic} {}", String::from_utf8_lossy(&body[at..])),
            properties,
        )
    }

    pub(crate) fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        // Until the broker has seen it.
        while self.read().is_some() {}
    }
}
