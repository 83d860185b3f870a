//! Closing a client at the cluster's command.

use protocol::counters as count;
use protocol::message::Command;

use super::{Events, KEEP, node};
use crate::client::{Client, Login};
use crate::support::{Broker, until, versions};

/// Appends a command as the sidecar does.
fn close(broker: &Broker, client_id: &str, login: u64) {
    let command = Command::Close {
        client_id,
        login,
        reason: 0x8E,
        at_ms: 1,
    };
    let mut frame = vec![0; command.encoded_len()];
    command.encode_into(&mut frame);
    let before = broker.counter(count::DOWNLINK_COMMANDS);
    broker.downlink().append(&frame).expect("room");
    broker.wait_for_counter(count::DOWNLINK_COMMANDS, before + 1);
}

#[test]
fn a_command_closes_the_login_it_means_and_no_newer_one_without_its_will() {
    for version in versions() {
        for v5 in [false, true] {
            let broker = node(&version).start();
            let mut events = Events::of(&broker);
            let mut watcher = Client::connect(&broker, "watcher", Login::default());
            watcher.subscribe("wills/#");
            let login = Login {
                v5,
                will: Some(("wills/device", "lost")),
                ..KEEP
            };
            let first = Client::connect(&broker, "device", login);
            until("it is online", || {
                events.next().starts_with("online device").then_some(())
            });
            let old = events.login;
            drop(first);
            assert_eq!(watcher.message().0, "wills/device lost");
            let mut second = Client::connect(&broker, "device", login);
            until("it is online again", || {
                events.next().starts_with("online device").then_some(())
            });
            close(&broker, "device", old);
            close(&broker, "nobody", old);
            second
                .publish("free/a", b"still there", 1)
                .expect("an acknowledgement");
            close(&broker, "device", events.login);
            if v5 {
                assert_eq!(second.read(), Some((0xE0, vec![0x8E, 0])), "{version:?}");
                while second.read().is_some() {}
            } else {
                assert_eq!(second.read(), None, "{version:?}");
            }
            // An MQTT 5 session without an expiry ends.
            let kind = if v5 { "ends" } else { "stays" };
            events.expect(&version, &[&format!("offline device 8e {kind}")]);
            // Its will would have come before this.
            let mut other = Client::connect(&broker, "other", Login::default());
            other.publish("wills/other", b"not a will", 1);
            assert_eq!(watcher.message().0, "wills/other not a will", "{version:?}");
        }
    }
}

/// A kick has the broker check the subscriptions of a session that stays.
#[test]
fn a_closed_session_subscribes_to_nothing_anew() {
    for version in versions() {
        let broker = node(&version).start();
        let mut events = Events::of(&broker);
        let mut client = Client::connect(&broker, "device", KEEP);
        client.subscribe("chat/#");
        events.expect(
            &version,
            &[
                "started",
                "online device - 4 kept",
                "subscribed device chat/# 1",
            ],
        );
        close(&broker, "device", events.login);
        assert_eq!(client.read(), None);
        events.expect(&version, &["offline device 8e stays"]);
        assert_eq!(events.poll(), None, "{version:?}");
    }
}
