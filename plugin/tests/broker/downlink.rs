//! From the log to the devices.

use std::time::{Duration, Instant};

use handoff::Writer;
use protocol::counters as count;
use protocol::message::{Message, Property, PropertyBuffer, QoS};

use crate::client::{Client, Login};
use crate::support::{Setup, Version, oldest, versions};

fn append(writer: &mut Writer, message: &Message<'_>) {
    writer
        .append_with(message.encoded_len(), |frame| message.encode_into(frame))
        .expect("room");
}

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message {
        topic,
        payload,
        qos: QoS::AtLeastOnce,
        received_at_ms: u64::MAX,
        ..Message::default()
    }
}

#[test]
fn messages_reach_subscribers_and_single_clients() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut client = Client::connect(
            &broker,
            "one",
            Login {
                v5: true,
                ..Login::default()
            },
        );
        assert_eq!(client.subscribe("down/#"), 1);
        let mut writer = broker.downlink();
        let mut properties = PropertyBuffer::new();
        properties.push(&Property::ContentType("t")).expect("room");
        properties.push(&Property::User("k", "v")).expect("room");
        let with = Message {
            properties: properties.as_properties(),
            expiry_s: Some(100),
            ..message("down/a", b"1")
        };
        append(&mut writer, &with);
        append(
            &mut writer,
            &Message {
                client_id: "one",
                ..message("not/subscribed", b"2")
            },
        );
        append(
            &mut writer,
            &Message {
                client_id: "nobody",
                ..message("down/b", b"3")
            },
        );
        append(&mut writer, &message("down/c", b""));
        let (first, properties) = client.message();
        assert_eq!(first, "down/a 1");
        let has = |part: &[u8]| properties.windows(part.len()).any(|window| window == part);
        assert!(
            has(&[3, 0, 1, b't']) && has(&[38, 0, 1, b'k', 0, 1, b'v']),
            "{properties:?}"
        );
        assert!(
            has(&[2, 0, 0, 0, 100]) || has(&[2, 0, 0, 0, 99]),
            "the expiry: {properties:?}"
        );
        assert_eq!(client.message().0, "not/subscribed 2");
        assert_eq!(client.message().0, "down/c ", "{version:?}");
        broker.wait_for_counter(count::DOWNLINK_INJECTED, 4);
        crate::support::until("all is given back", || {
            (writer.released() == writer.end()).then_some(())
        });
    }
}

#[test]
fn a_flood_is_drained_in_order() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup.option("downlink_per_tick", "16");
        let broker = setup.start();
        let mut client = Client::connect(&broker, "one", Login::default());
        client.subscribe("down/#");
        let mut writer = broker.downlink();
        for n in 0..500 {
            append(&mut writer, &message("down/n", n.to_string().as_bytes()));
        }
        for n in 0..500 {
            assert_eq!(client.message().0, format!("down/n {n}"), "{version:?}");
        }
    }
}

#[test]
fn what_can_never_be_delivered_does_not_stop_the_rest() {
    let broker = Setup::new(&oldest()).start();
    let mut client = Client::connect(&broker, "one", Login::default());
    client.subscribe("down/#");
    let mut writer = broker.downlink();
    append(&mut writer, &message("down/+", b"a wildcard"));
    writer.append(b"no message at all").expect("room");
    append(&mut writer, &message("down/ok", b"1"));
    assert_eq!(client.message().0, "down/ok 1");
    assert_eq!(broker.counter(count::DOWNLINK_FAILED), 2);
    assert_eq!(broker.counter(count::DOWNLINK_CORRUPT), 0);
    broker.wait_for_log("a message for `down/+`");
    // Both came back over the uplink log, whole and with the reason.
    let epoch = writer.epoch();
    let mut uplink = broker.uplink();
    let (reason, payload) = uplink.returned(epoch);
    assert!(reason.contains("topic"), "{reason}");
    let back = Message::decode(&payload).expect("the message as it was");
    assert_eq!((back.topic, back.payload), ("down/+", &b"a wildcard"[..]));
    let (reason, payload) = uplink.returned(epoch);
    assert!(reason.contains("can't be read"), "{reason}");
    assert_eq!(payload, b"no message at all");
    crate::support::until("all is given back", || {
        (writer.released() == writer.end()).then_some(())
    });
}

/// A full spool has no room for what the broker refuses either.
#[test]
fn what_can_not_be_given_back_waits_until_there_is_room() {
    let mut setup = Setup::new(&oldest());
    setup.option("spool_bytes_max", "12MiB");
    setup.option("spool_segment_bytes", "4MiB");
    let broker = setup.start();
    // Before the spool is full: logins are refused then.
    let mut client = Client::connect(&broker, "one", Login::default());
    client.subscribe("down/#");
    let mut publisher = Client::connect(&broker, "filler", Login::default());
    let payload = vec![b'x'; 1 << 20];
    crate::support::until("the spool is full", || {
        publisher.publish("up/x", &payload, 0);
        (broker.counter(count::UPLINK_DROPPED_QOS0_FULL) > 3).then_some(())
    });
    let mut writer = broker.downlink();
    let big = vec![7; 3 << 20];
    append(&mut writer, &message("down/+", &big));
    append(&mut writer, &message("down/ok", b"1"));
    broker.wait_for_log("can't be given back yet");
    assert_eq!(broker.counter(count::DOWNLINK_FAILED), 0);
    assert_eq!(broker.counter(count::DOWNLINK_INJECTED), 0);
    assert_eq!(writer.released(), 0);
    // The sidecar takes what fills the spool.
    let mut uplink = broker.uplink();
    crate::support::until("it comes back", || uplink.release_until_returned());
    assert_eq!(client.message().0, "down/ok 1");
    broker.wait_for_counter(count::DOWNLINK_FAILED, 1);
}

/// Without a bell the broker takes anything from 0 to 100 ms, 50 at the median: never a median of this of 21.
const AWAKE: Duration = Duration::from_millis(20);

/// The median time from the append to the subscriber, with the broker asleep before each.
fn median_latency(client: &mut Client, writer: &mut Writer) -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|n: u64| {
            // Not a wait for anything: the broker is to fall asleep, at another phase of its 100 ms each time.
            std::thread::sleep(Duration::from_millis(37 + n * 7));
            let began = Instant::now();
            append(writer, &message("down/x", b"now"));
            client.message();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn must_be_woken(version: &Version, wake: &str, method: u64) {
    let mut setup = Setup::new(version);
    setup.option("wake", wake);
    let broker = setup.start();
    assert_eq!(broker.counter(count::WAKEUP), method, "{version:?}");
    let mut client = Client::connect(&broker, "one", Login::default());
    client.subscribe("down/#");
    let mut writer = broker.downlink();
    append(&mut writer, &message("down/first", b""));
    client.message();
    // A machine that is busy with other things may need more than one round.
    crate::support::until("the broker is woken", || {
        let median = median_latency(&mut client, &mut writer);
        println!("Mosquitto {}, {wake}: {median:?}", version.name);
        (median < AWAKE).then_some(())
    });
}

#[test]
fn a_sleeping_broker_is_woken_by_the_eventfd() {
    for version in versions() {
        must_be_woken(&version, "auto", 1);
    }
}

#[test]
fn a_sleeping_broker_is_woken_by_the_connection() {
    for version in versions() {
        must_be_woken(&version, "pingreq", 2);
    }
}
