//! Closing a client at the cluster's command.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use protocol::counters as count;
use protocol::message;

use super::{Events, KEEP, node};
use crate::client::{Client, Login};
use crate::support::{Broker, Setup, free_port, until, versions};

/// Appends a command as the sidecar does.
fn close(broker: &Broker, client_id: &str, login: u64) {
    let command = message::Command::Close {
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

/// A certificate for the broker, and its key.
fn certificate(setup: &Setup) -> (String, String) {
    let (key, certificate) = (setup.path("key.pem"), setup.path("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "openssl is installed"
    );
    (certificate.display().to_string(), key.display().to_string())
}

/// A raw DISCONNECT in the midst of TLS would break it: there the client is told what Mosquitto itself says.
#[test]
fn a_client_with_tls_is_closed_within_tls() {
    for version in versions() {
        let mut setup = node(&version);
        let (certificate, key) = certificate(&setup);
        let port = free_port();
        setup
            .before(&format!("listener {port} 127.0.0.1"))
            .before(&format!("certfile {certificate}"))
            .before(&format!("keyfile {key}"));
        let broker = setup.start();
        let mut events = Events::of(&broker);
        let mut tls = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-connect",
                &format!("127.0.0.1:{port}"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut input = tls.stdin.take().expect("a pipe");
        let connect = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03tls";
        input.write_all(connect).expect("it reads");
        events.expect(&version, &["started", "online tls - 5 clean"]);
        close(&broker, "tls", events.login);
        events.expect(&version, &["offline tls 8e ends"]);
        let mut answer = Vec::new();
        let mut output = tls.stdout.take().expect("a pipe");
        output.read_to_end(&mut answer).expect("until the end");
        let disconnect = &answer[2 + usize::from(answer[1])..];
        assert_eq!(
            disconnect.first(),
            Some(&0xE0),
            "{version:?}: {answer:02x?}"
        );
        assert_eq!(disconnect.get(2), Some(&0x98), "{version:?}: {answer:02x?}");
        drop(input);
        tls.wait().expect("it ends");
    }
}
