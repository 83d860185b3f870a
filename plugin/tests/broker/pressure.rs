//! Clients that take their messages slower than RocketMQ sends them.

use std::time::Duration;

use handoff::Writer;
use protocol::counters as count;
use protocol::message::{Message, QoS};

use crate::client::{Client, Login};
use crate::support::{Broker, DEADLINE, Setup, Version, until, versions};

fn append(writer: &mut Writer, topic: &str, client_id: &str, payload: &[u8], qos: QoS) {
    let message = Message {
        topic,
        client_id,
        payload,
        qos,
        received_at_ms: u64::MAX,
        ..Message::default()
    };
    // The sidecar's way: it may wait.
    assert!(writer.wait_for_room(message.encoded_len(), DEADLINE));
    writer
        .append_with(message.encoded_len(), |frame| message.encode_into(frame))
        .expect("room");
}

/// Numbered messages for `client_id`, or for all that subscribe.
fn flood(writer: &mut Writer, client_id: &str, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let payload = n.to_string();
        append(
            writer,
            "down/n",
            client_id,
            payload.as_bytes(),
            QoS::AtLeastOnce,
        );
    }
}

/// Mosquitto's own limit: 1000 messages for each client.
fn start(version: &Version, hold: &str) -> Broker {
    let mut setup = Setup::new(version);
    setup
        .option("downlink", "TOPIC down/%k")
        .option("downlink_hold", hold);
    setup.start()
}

fn subscriber(broker: &Broker, id: &str) -> Client {
    let mut client = Client::connect(broker, id, Login::default());
    assert_eq!(client.subscribe("down/#"), 1);
    client
}

/// Takes a few thousand a second: slower than they are injected, but without a pause.
fn takes_slowly(client: &mut Client, numbers: std::ops::Range<u32>, why: &str) {
    for n in numbers {
        assert_eq!(client.message().0, format!("down/n {n}"), "{why}");
        if n % 10 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_slow_subscriber_gets_all_of_a_flood_in_order() {
    for version in versions() {
        let broker = start(&version, "60s");
        let mut slow = subscriber(&broker, "slow");
        let mut writer = broker.downlink();
        flood(&mut writer, "", 0..20_000);
        takes_slowly(&mut slow, 0..20_000, version.name);
        assert!(
            broker.counter(count::DOWNLINK_HOLDS) > 0,
            "{version:?}: it was not slow enough to tell"
        );
        assert_eq!(broker.counter(count::DOWNLINK_QUEUE_DROPPED), 0);
    }
}

#[test]
fn a_slow_client_gets_all_of_a_flood_for_it_alone_in_order() {
    for version in versions() {
        let broker = start(&version, "60s");
        let mut slow = Client::connect(&broker, "slow", Login::default());
        let mut writer = broker.downlink();
        flood(&mut writer, "slow", 0..5_000);
        takes_slowly(&mut slow, 0..5_000, version.name);
        assert!(broker.counter(count::DOWNLINK_HOLDS) > 0, "{version:?}");
        assert_eq!(broker.counter(count::DOWNLINK_QUEUE_DROPPED), 0);
    }
}

#[test]
fn a_hung_subscriber_does_not_stop_another_and_what_it_loses_is_counted() {
    for version in versions() {
        let broker = start(&version, "1s");
        let mut hung = subscriber(&broker, "hung");
        let mut other = subscriber(&broker, "other");
        let mut writer = broker.downlink();
        flood(&mut writer, "", 0..3_000);
        for n in 0..3_000 {
            assert_eq!(other.message().0, format!("down/n {n}"), "{version:?}");
        }
        broker.wait_for_log("client `hung` has taken next to nothing");
        // max_queued_messages and max_inflight_messages; later than 2.0.11, those in flight are not counted.
        let kept = if version.name == "2.0.11" {
            1_020_u32
        } else {
            1_040
        };
        let dropped = 3_000 - u64::from(kept);
        broker.wait_for_counter(count::DOWNLINK_QUEUE_DROPPED, dropped);
        assert!(broker.counter(count::DOWNLINK_HOLDS) > 0);
        for n in 0..kept {
            assert_eq!(hung.message().0, format!("down/n {n}"), "{version:?}");
        }
        // It takes messages again, so it is waited for again.
        flood(&mut writer, "", 3_000..6_000);
        let also = std::thread::spawn(move || {
            for n in 3_000..6_000 {
                assert_eq!(other.message().0, format!("down/n {n}"));
            }
        });
        takes_slowly(&mut hung, 3_000..6_000, version.name);
        also.join().expect("the other got all");
        assert_eq!(
            broker.counter(count::DOWNLINK_QUEUE_DROPPED),
            dropped,
            "{version:?}"
        );
    }
}

#[test]
fn a_client_whose_queue_is_full_of_local_messages_holds_nobody() {
    for version in versions() {
        let broker = start(&version, "10min");
        let mut hung = Client::connect(&broker, "hung", Login::default());
        hung.subscribe("local/#");
        // Its queue was empty when it came: else it would have downlink_hold to show what it gets.
        let subscribed = broker.counter(count::LAST_TICK_MS);
        until("a tick", || {
            (broker.counter(count::LAST_TICK_MS) > subscribed).then_some(())
        });
        let mut local = Client::connect(&broker, "local", Login::default());
        for n in 0..1_500 {
            local.publish("local/n", n.to_string().as_bytes(), 1);
        }
        let mut other = subscriber(&broker, "other");
        flood(&mut broker.downlink(), "", 0..3_000);
        for n in 0..3_000 {
            assert_eq!(other.message().0, format!("down/n {n}"), "{version:?}");
        }
        assert_eq!(broker.counter(count::DOWNLINK_QUEUE_DROPPED), 0);
    }
}

/// Reads what a client that was hung has got, of so many: all that was not counted as dropped.
fn reads_all_that_was_not_dropped(broker: &Broker, mut hung: Client, sent: u64, why: &str) {
    let dropped = broker.counter(count::DOWNLINK_QUEUE_DROPPED);
    assert!(
        dropped > 0,
        "{why}: it was not hung for long enough to tell"
    );
    for _ in dropped..sent {
        assert!(hung.message().0.starts_with("down/n "), "{why}");
    }
    Client::connect(broker, "last", Login::default()).publish("down/last", b"", 1);
    assert_eq!(
        hung.message().0,
        "down/last ",
        "{why}: more than was counted"
    );
}

#[test]
fn what_a_hung_subscriber_of_qos_0_loses_is_counted() {
    // Several times what the sockets between the two take.
    const SENT: usize = 3_000;
    let payload = [b'x'; 16 << 10];
    for version in versions() {
        let broker = start(&version, "1s");
        let mut hung = Client::connect(&broker, "hung", Login::default());
        hung.send_subscribe("down/#", 0);
        hung.read().expect("a SUBACK");
        let mut other = subscriber(&broker, "other");
        let also = std::thread::spawn(move || {
            for _ in 0..SENT {
                other.message();
            }
        });
        let mut writer = broker.downlink();
        for _ in 0..SENT {
            append(&mut writer, "down/n", "", &payload, QoS::AtLeastOnce);
        }
        also.join().expect("the other got all");
        reads_all_that_was_not_dropped(&broker, hung, SENT as u64, version.name);
    }
}

#[test]
fn what_a_hung_client_loses_of_messages_for_it_alone_is_counted() {
    for version in versions() {
        let broker = start(&version, "1s");
        let mut hung = Client::connect(&broker, "hung", Login::default());
        hung.subscribe("down/last");
        let mut writer = broker.downlink();
        let all_injected = |writer: &Writer| {
            until("all was injected", || {
                (writer.released() == writer.end()).then_some(())
            });
        };
        flood(&mut writer, "hung", 0..3_000);
        all_injected(&writer);
        // It takes a few, which is next to nothing: there is room for some of the next ones.
        for n in 0..5 {
            assert_eq!(hung.message().0, format!("down/n {n}"), "{version:?}");
        }
        until("its acknowledgements have come", || {
            let received = broker.log().matches("Received PUBACK from hung").count();
            (received == 5).then_some(())
        });
        flood(&mut writer, "hung", 3_000..3_500);
        all_injected(&writer);
        reads_all_that_was_not_dropped(&broker, hung, 3_500 - 5, version.name);
    }
}

#[test]
fn what_a_session_without_its_client_loses_is_counted() {
    for version in versions() {
        let broker = start(&version, "10s");
        let keep = Login {
            keep_session: true,
            ..Login::default()
        };
        let mut client = Client::connect(&broker, "away", keep);
        client.subscribe("down/#");
        client.disconnect();
        let mut writer = broker.downlink();
        flood(&mut writer, "", 0..1_100);
        broker.wait_for_counter(count::DOWNLINK_QUEUE_DROPPED, 100);
        broker.wait_for_log("the queue of `away`, which is not connected, is full");
        let mut client = Client::connect(&broker, "away", keep);
        // It comes back with a full queue, and what comes now waits until there is room.
        flood(&mut writer, "", 1_100..2_000);
        takes_slowly(&mut client, 0..1_000, version.name);
        takes_slowly(&mut client, 1_100..2_000, version.name);
        assert_eq!(broker.counter(count::DOWNLINK_QUEUE_DROPPED), 100);
    }
}

#[test]
fn large_messages_for_a_slow_client_do_not_fill_the_brokers_memory() {
    const LARGE: usize = 2 << 20;
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup
            .option("downlink", "TOPIC down/%k")
            .option("downlink_bytes_max", "16MiB")
            .option("downlink_hold", "10min");
        let broker = setup.start();
        let mut slow = subscriber(&broker, "slow");
        let before = broker.anonymous_memory();
        let mut writer = broker.downlink();
        let mut payload = vec![7; LARGE];
        for n in 0..40 {
            payload[0] = n;
            append(&mut writer, "down/n", "", &payload, QoS::AtLeastOnce);
        }
        until("the client is waited for", || {
            (broker.counter(count::DOWNLINK_HOLDS) > 0).then_some(())
        });
        let grown = broker.anonymous_memory().saturating_sub(before);
        // 16 MiB, what one tick may be beyond them, and the packets that are being written.
        assert!(grown < 48 << 20, "{version:?}: {grown} bytes more");
        for n in 0..40 {
            let (kind, body) = slow.read().expect("a message");
            assert_eq!(kind & 0xF0, 0x30);
            assert_eq!((body.len(), body[10]), (LARGE + 10, n), "{version:?}");
            slow.send(&[0x40, 2, body[8], body[9]]);
        }
    }
}

#[test]
fn clients_that_come_and_go_in_a_flood_leave_the_broker_alive() {
    for version in versions() {
        let mut broker = start(&version, "100ms");
        let mut writer = broker.downlink();
        let mut sent = 0;
        let mut there = Vec::new();
        for round in 0..60_u32 {
            let login = Login {
                keep_session: round % 3 == 0,
                // Of a client that subscribes to its own will.
                will: (round % 2 == 0).then_some(("down/will", "bye")),
                ..Login::default()
            };
            // The same four ids again and again: sessions are taken over while their queues are full.
            let mut client = Client::connect(&broker, &format!("client-{}", round % 4), login);
            // Its answer comes among the messages: not waited for.
            client.send(&[0x82, 11, 0, 7, 0, 6, b'd', b'o', b'w', b'n', b'/', b'#', 1]);
            there.push(client);
            if there.len() > 8 {
                drop(there.remove(0));
            }
            flood(&mut writer, "", sent..sent + 200);
            flood(&mut writer, "client-1", sent..sent + 50);
            sent += 200;
        }
        until("all was injected", || {
            assert!(broker.ended().is_none(), "{version:?}: {}", broker.log());
            (writer.released() == writer.end()).then_some(())
        });
        assert!(broker.stop().success(), "{version:?}");
    }
}

#[test]
fn the_spool_is_no_memory_of_the_broker() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        setup
            .option("spool_segment_bytes", "1MiB")
            .option("spool_bytes_max", "64MiB")
            .option("spool_high_water", "100%");
        let broker = setup.start();
        let mut client = Client::connect(&broker, "device", Login::default());
        let mut fill = |up_to: u64| {
            // At QoS 0: on a busy machine the next segment may not be ready in time, which closes other publishers.
            until("the spool is filled", || {
                for _ in 0..16 {
                    client.publish("up/a", &[7; 16 << 10], 0);
                }
                (broker.counter(count::UPLINK_BYTES) > up_to).then_some(())
            });
            broker.resident_memory()
        };
        // Three segments are mapped at any time: the one that is written, and those made ready behind it.
        let early = fill(8 << 20);
        let late = fill(60 << 20);
        let grown = late.saturating_sub(early);
        assert!(grown < 6 << 20, "{version:?}: {grown} bytes more");
    }
}
