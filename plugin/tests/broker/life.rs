//! Reload, the sidecar's process, and the end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use protocol::counters as count;

use crate::client::{Client, Login};
use crate::support::{Broker, Setup, is_alive, oldest, until, versions};

#[test]
fn reload_takes_good_rules_and_keeps_the_old_ones_over_bad_ones() {
    for version in versions() {
        let mut setup = Setup::new(&version);
        let rules = setup.write("rules", "uplink first/# FIRST\n");
        setup.option("rules_file", &rules.display().to_string());
        let mut broker = setup.start();
        let mut uplink = broker.uplink();
        let mut client = Client::connect(&broker, "device", Login::default());
        client
            .publish("first/a", b"1", 1)
            .expect("an acknowledgement");
        assert_eq!(uplink.next(), "first/a 1");

        fs::write(&rules, "uplink second/# SECOND\n").expect("written");
        broker.signal(libc::SIGHUP);
        broker.wait_for_counter(count::RELOADS_OK, 1);
        client
            .publish("first/a", b"2", 1)
            .expect("an acknowledgement");
        client
            .publish("second/a", b"3", 1)
            .expect("an acknowledgement");
        assert_eq!(uplink.next(), "second/a 3");
        let options = fs::read_to_string(broker.spool().join("options.conf")).expect("there");
        assert!(
            options.contains("SECOND") && !options.contains("FIRST"),
            "{options}"
        );

        fs::write(&rules, "uplink bad/#/x BAD\n").expect("written");
        broker.signal(libc::SIGHUP);
        broker.wait_for_counter(count::RELOADS_FAILED, 1);
        broker.wait_for_log("the old ones stay at work");
        client
            .publish("second/a", b"4", 1)
            .expect("an acknowledgement");
        assert_eq!(uplink.next(), "second/a 4");
        assert!(broker.ended().is_none(), "{version:?}");
    }
}

/// A shell script as the sidecar.
fn with_sidecar(mut setup: Setup, script: &str) -> Setup {
    let path = setup.write("sidecar", &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
    setup
        .option("namesrv", "127.0.0.1:9876")
        .option("uplink", "up/# TOPIC");
    setup.option("sidecar_path", &path.display().to_string());
    setup
}

fn pids(broker: &Broker) -> Vec<u32> {
    let text = fs::read_to_string(broker.setup.path("pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn the_sidecar_is_started_logged_restarted_and_ended() {
    for version in versions() {
        let setup = Setup::bare(&version);
        let note = setup.path("pids").display().to_string();
        let script = format!(
            "echo $$ >> {note}; echo \"WARN args $*\" >&2; read -r line; echo 'INFO drained' >&2; exit 0"
        );
        let mut broker = with_sidecar(setup, &script).start();
        let first = until("a sidecar", || pids(&broker).first().copied());
        broker.wait_for_log("sidecar: args sidecar --spool-dir");
        let pid = i32::try_from(first).expect("a pid");
        // SAFETY: the process that the script named; Mosquitto has not reaped it, as it lives.
        let killed = unsafe { libc::kill(pid, libc::SIGKILL) };
        assert_eq!(killed, 0);
        let second = until("another sidecar", || pids(&broker).get(1).copied());
        until("no zombie", || {
            (!std::path::Path::new(&format!("/proc/{first}")).exists()).then_some(())
        });
        broker.wait_for_counter(count::SIDECAR_STARTS, 2);
        assert!(broker.stop().success());
        assert!(!is_alive(second), "{version:?}");
    }
}

#[test]
fn no_sidecar_outlives_a_killed_mosquitto() {
    let setup = Setup::bare(&oldest());
    let note = setup.path("pids").display().to_string();
    let script = format!(
        "trap 'echo term >> {note}.said; exit 0' TERM; echo $$ >> {note}; read -r line; echo eof >> {note}.said"
    );
    let mut broker = with_sidecar(setup, &script).start();
    let pid = until("a sidecar", || pids(&broker).first().copied());
    broker.signal(libc::SIGKILL);
    until("Mosquitto is dead", || broker.ended());
    until("the sidecar ends too", || (!is_alive(pid)).then_some(()));
    let said = fs::read_to_string(format!("{note}.said")).unwrap_or_default();
    assert!(!said.is_empty(), "it was asked, not killed");
}

#[test]
fn a_restart_goes_on_with_the_same_spool() {
    let mut broker = Setup::new(&oldest()).start();
    let mut client = Client::connect(&broker, "device", Login::default());
    client.publish("up/a", b"1", 1).expect("an acknowledgement");
    broker.signal(libc::SIGKILL);
    until("Mosquitto is dead", || broker.ended());
    let next = Setup::new(&oldest());
    fs::rename(broker.spool(), next.path("spool")).expect("moved");
    let next = next.start();
    let mut client = Client::connect(&next, "device", Login::default());
    client.publish("up/a", b"2", 1).expect("an acknowledgement");
    let mut uplink = next.uplink();
    assert_eq!([uplink.next(), uplink.next()], ["up/a 1", "up/a 2"]);
}
