//! What is told when Mosquitto starts again.

use std::path::Path;

use super::{Events, KEEP, node};
use crate::client::{Client, Login};
use crate::support::{Broker, Setup, Version, until, versions};

/// Mosquitto keeps its sessions in `dir`.
fn keeping(version: &Version, dir: &Path) -> Setup {
    let mut setup = node(version);
    setup
        .before("persistence true")
        .before(&format!("persistence_location {}", dir.display()));
    setup
}

/// Another Mosquitto goes on with the spool of one that has ended. With what is told from its start on.
fn again(old: &Broker, events: Events, next: Setup, starts: usize) -> (Broker, Events, String) {
    drop(events);
    std::fs::rename(old.spool(), next.path("spool")).expect("moved");
    let broker = next.start();
    let mut events = Events::of(&broker);
    let mut seen = 0;
    let started = until("its start", || {
        let event = events.poll()?;
        seen += usize::from(event.starts_with("started"));
        (seen == starts).then_some(event)
    });
    (broker, events, started)
}

#[test]
fn saved_sessions_and_bridges_are_told_after_a_restart_and_after_a_kill() {
    for version in versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut broker = keeping(&version, dir.path()).start();
        let events = Events::of(&broker);
        let mut kept = Client::connect(&broker, "kept", KEEP);
        kept.subscribe("chat/+/#");
        kept.subscribe("/talk");
        // Mosquitto itself does not save these.
        kept.subscribe("$share/group/chat/a");
        let mut clean = Client::connect(&broker, "clean", Login::default());
        clean.subscribe("chat/b");
        assert!(broker.stop().success());
        let mut setup = keeping(&version, dir.path());
        setup
            .after("connection far")
            .after("address 127.0.0.1:9")
            .after("local_clientid bridge")
            .after("topic out/# out 1 chat/");
        let (mut broker, mut events, started) = again(&broker, events, setup, 2);
        assert_eq!(started, "started saved");
        let mut restored = vec![events.next(), events.next(), events.next()];
        restored[..2].sort();
        let expected = [
            "restored kept /talk 1",
            "restored kept chat/+/# 1",
            "restored bridge chat/out/# 1",
        ];
        assert_eq!(restored, expected, "{version:?}");

        // What is not saved is not there after a kill.
        let mut kept = Client::connect(&broker, "kept", KEEP);
        kept.subscribe("chat/late");
        broker.signal(libc::SIGKILL);
        until("Mosquitto is dead", || broker.ended());
        let online = ["online kept - 4 kept", "subscribed kept chat/late 1"];
        events.expect(&version, &online);
        let setup = keeping(&version, dir.path());
        let (_broker, mut events, started) = again(&broker, events, setup, 3);
        assert_eq!(started, "started saved");
        let mut restored = vec![events.next(), events.next()];
        restored.sort();
        assert_eq!(restored, expected[..2], "{version:?}");
        assert_eq!(events.poll(), None);
    }
}

#[test]
fn without_saved_sessions_nothing_is_there() {
    for version in versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let broker = keeping(&version, dir.path()).start();
        Events::of(&broker).expect(&version, &["started"]);
        drop(broker);
        std::fs::write(dir.path().join("mosquitto.db"), "").expect("written");
        let broker = keeping(&version, dir.path()).start();
        Events::of(&broker).expect(&version, &["started"]);
    }
}
