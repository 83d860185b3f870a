//! From a device into the spool.

use protocol::counters as count;
use protocol::message::{Property, QoS};

use crate::client::{Client, Login};
use crate::support::{Setup, versions};

#[test]
fn what_is_acknowledged_is_in_the_spool() {
    for version in versions() {
        let mut broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        for (v5, qos, answer) in [
            (false, 1, 0x40),
            (false, 2, 0x50),
            (true, 1, 0x40),
            (true, 2, 0x50),
        ] {
            let mut client = Client::connect(
                &broker,
                "device",
                Login {
                    v5,
                    ..Login::default()
                },
            );
            let acknowledged = client
                .publish("up/a", b"\0\xff", qos)
                .expect("an acknowledgement");
            assert_eq!(acknowledged.0, answer, "{version:?}");
            // No waiting: it has to be there already.
            uplink.with(|message| {
                assert_eq!((message.topic, message.payload), ("up/a", &b"\0\xff"[..]));
                assert_eq!(message.qos, QoS::from_u8(qos).expect("a QoS"));
                assert_eq!(message.client_id, "device");
                assert_eq!(message.mqtt_version, if v5 { 5 } else { 4 });
                assert!(!message.will && !message.retain);
            });
            client
                .publish("elsewhere", b"x", qos)
                .expect("an acknowledgement");
            assert_eq!(uplink.poll(), None, "no rule wants that");
        }
        assert_eq!(broker.counter(count::UPLINK_APPENDED), 4);
        assert_eq!(broker.counter(count::WILLS_APPENDED), 0);
        assert!(broker.stop().success());
        assert_eq!(uplink.poll(), None, "no will was made up");
    }
}

#[test]
fn mqtt_5_properties_come_along() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(
            &broker,
            "device",
            Login {
                v5: true,
                ..Login::default()
            },
        );
        let mut properties = vec![1, 1, 3, 0, 1, b't', 8, 0, 1, b'r', 9, 0, 2, 0, 255];
        properties.extend([38, 0, 1, b'k', 0, 1, b'v', 38, 0, 1, b'k', 0, 1, b'w']);
        let packet = client.publish_packet("up/p", b"x", 1, &properties);
        client.send(&packet);
        client.read().expect("an acknowledgement");
        uplink.with(|message| {
            let mut seen: Vec<String> = message
                .properties
                .iter()
                .map(|property| format!("{property:?}"))
                .collect();
            let mut sent: Vec<String> = [
                Property::PayloadFormat(1),
                Property::ContentType("t"),
                Property::ResponseTopic("r"),
                Property::CorrelationData(&[0, 255]),
                Property::User("k", "v"),
                Property::User("k", "w"),
            ]
            .iter()
            .map(|property| format!("{property:?}"))
            .collect();
            seen.sort();
            sent.sort();
            assert_eq!(seen, sent, "{version:?}");
        });
    }
}

#[test]
fn a_lost_connection_sends_the_will_and_a_clean_end_does_not() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let will = Login {
            will: Some(("up/will", "bye")),
            ..Login::default()
        };
        Client::connect(&broker, "clean", will).disconnect();
        drop(Client::connect(&broker, "lost", will));
        assert_eq!(uplink.next(), "up/will bye will", "{version:?}");
        assert_eq!(broker.counter(count::WILLS_APPENDED), 1);
    }
}

#[test]
fn a_session_taken_over_sends_its_will() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let will = Login {
            will: Some(("up/will", "first")),
            ..Login::default()
        };
        let mut first = Client::connect(&broker, "same", will);
        first.publish("up/a", b"x", 1).expect("an acknowledgement");
        let mut second = Client::connect(&broker, "same", Login::default());
        second.publish("up/b", b"y", 1).expect("an acknowledgement");
        assert_eq!(
            [uplink.next(), uplink.next(), uplink.next()],
            ["up/a x", "up/will first will", "up/b y"]
        );
    }
}

#[test]
fn a_delayed_will_comes_when_its_delay_is_over() {
    for version in versions() {
        let broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let login = Login {
            v5: true,
            will: Some(("up/will", "late")),
            will_delay: Some(1),
            ..Login::default()
        };
        drop(Client::connect(&broker, "delayed", login));
        // A publish in between: the callbacks of others don't confuse it.
        let mut other = Client::connect(&broker, "other", Login::default());
        other.publish("up/o", b"1", 1).expect("an acknowledgement");
        assert_eq!(
            [uplink.next(), uplink.next()],
            ["up/o 1", "up/will late will"],
            "{version:?}"
        );
    }
}

#[test]
fn the_end_of_the_broker_sends_the_wills_of_connected_clients() {
    for version in versions() {
        let mut broker = Setup::new(&version).start();
        let mut uplink = broker.uplink();
        let login = Login {
            will: Some(("up/will", "end")),
            ..Login::default()
        };
        let _client = Client::connect(&broker, "there", login);
        assert!(broker.stop().success(), "{}", broker.log());
        assert_eq!(
            uplink.poll().as_deref(),
            Some("up/will end will"),
            "{version:?}"
        );
        assert_eq!(uplink.poll(), None);
    }
}
