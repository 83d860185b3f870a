//! Bodies that RocketMQ's own client has compressed.

use harness::{Mosquitto, Produced, Topic, Version, eventually};

use crate::downlink::from_earliest;

const WAYS: [&str; 3] = ["LZ4", "ZSTD", "ZLIB"];

#[test]
fn what_javas_client_compressed_goes_down_as_it_was_meant() {
    let topic = Topic::shared("COMPRESSED", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} down/%k qos=1", topic.name()))
        .start();
    let client = broker.client(Version::V5, "compressed");
    client.subscribe("down/+", 1);
    // The largest is longer than one block of an LZ4 frame.
    let bodies = [5_000, 300_000, 6_000_000].map(|size: usize| {
        let mut state = 7_u32;
        let noise = std::iter::from_fn(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(if state >> 28 == 0 {
                (state >> 20) as u8
            } else {
                b'x'
            })
        });
        noise.take(size).collect::<Vec<u8>>()
    });
    let mut messages = Vec::new();
    for way in WAYS {
        for body in &bodies {
            let key = format!("{way}-{}", body.len());
            messages.push(Produced::new(body.clone()).keys(&key).compressed(way));
        }
    }
    topic.produce(&messages);
    for way in WAYS {
        for body in &bodies {
            let received = client.receive();
            assert_eq!(received.topic, format!("down/{way}-{}", body.len()));
            assert!(
                received.payload == *body,
                "{} came down changed",
                received.topic
            );
        }
    }
}

#[test]
fn a_body_that_would_be_too_large_is_a_dead_letter_and_stops_nothing() {
    let topic = Topic::shared("COMPRESSED_BOMB", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} down qos=1", topic.name()))
        .start();
    let client = broker.client(Version::V311, "bombed");
    client.subscribe("down", 1);
    for way in WAYS {
        topic.produce(&[Produced::new(vec![0; (16 << 20) + 1]).compressed(way)]);
    }
    topic.produce(&[Produced::new("end")]);
    assert_eq!(client.receive_until(b"end").len(), 1, "nothing but the end");
    eventually("they are dead letters", || {
        (broker.status_number("dead") == Some(3)).then_some(())
    });
}
