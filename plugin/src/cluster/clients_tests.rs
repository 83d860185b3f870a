use std::path::Path;

use handoff::{Reader, ReaderOptions};
use protocol::message::Event;

use super::*;
use crate::cluster::Groups;

struct Setup {
    dir: tempfile::TempDir,
    log: EventLog,
    clients: Clients,
}

/// What the log has, each event in a line of its own, without times.
fn told(dir: &Path) -> Vec<String> {
    let mut reader = Reader::open(dir, &ReaderOptions::default()).expect("a log");
    let mut lines = Vec::new();
    while let Some(frame) = reader.poll().expect("good") {
        let event = Event::decode(frame.payload).expect("an event");
        lines.push(match event.what {
            What::Online {
                client_id,
                login,
                clean,
                ..
            } => format!("online {client_id} {login} {clean}"),
            What::Offline {
                client_id,
                login,
                cause,
                session_stays,
            } => format!("offline {client_id} {login} {cause:#x} {session_stays}"),
            other => format!("{other:?}"),
        });
    }
    lines
}

impl Setup {
    fn new() -> Setup {
        let dir = tempfile::tempdir().expect("a directory");
        let log = EventLog::open(&dir.path().join("events"), 0, Groups::default()).expect("a log");
        Setup {
            dir,
            log,
            clients: Clients::default(),
        }
    }

    fn told(&self) -> Vec<String> {
        told(&self.dir.path().join("events"))
    }

    fn attempt(&mut self, arrival: Arrival<'_>, now_ms: u64) {
        self.clients.attempt(&arrival, now_ms, &mut self.log);
    }

    fn arrive(&mut self, arrival: Arrival<'_>, now_ms: u64) {
        self.clients.arrived(&arrival, now_ms, &mut self.log);
    }

    fn gone(&mut self, client: usize, departure: Departure) {
        self.clients.gone(client, departure, 9, &mut self.log);
    }

    fn tick(&mut self) {
        self.clients.on_tick(&mut self.log);
    }
}

fn arrival(key: usize, id: &str) -> Arrival<'_> {
    Arrival {
        client: Client {
            key,
            id,
            username: None,
            mqtt_version: 4,
        },
        clean: false,
        connected: true,
    }
}

/// As 2.0 tells it.
const ENDS: Departure = Departure {
    reason: -1,
    session_stays: None,
};

#[test]
fn who_is_still_there_at_the_tick_is_online_and_who_failed_is_not() {
    let mut setup = Setup::new();
    setup.attempt(arrival(1, "a"), 50);
    setup.attempt(arrival(2, "b"), 50);
    setup.gone(2, ENDS);
    assert!(setup.told().is_empty());
    setup.tick();
    setup.gone(1, ENDS);
    assert_eq!(
        setup.told(),
        ["online a 50 false", "offline a 50 0x80 true"]
    );
}

#[test]
fn each_login_has_a_number_of_its_own_also_when_the_clock_goes_back() {
    let mut setup = Setup::new();
    setup.arrive(arrival(1, "a"), 50);
    setup.arrive(arrival(2, "b"), 50);
    setup.arrive(arrival(3, "c"), 7);
    let expected = [
        "online a 50 false",
        "online b 51 false",
        "online c 52 false",
    ];
    assert_eq!(setup.told(), expected);
}

#[test]
fn who_does_something_before_the_tick_is_online_at_once() {
    let mut setup = Setup::new();
    setup.attempt(arrival(1, "a"), 50);
    assert!(setup.clients.acts(&arrival(1, "a"), 51, &mut setup.log));
    setup.tick();
    // One whose login was not heard, and a session without a connection.
    assert!(setup.clients.acts(&arrival(2, "b"), 52, &mut setup.log));
    let away = Arrival {
        connected: false,
        ..arrival(3, "c")
    };
    assert!(!setup.clients.acts(&away, 53, &mut setup.log));
    assert_eq!(setup.told(), ["online a 50 false", "online b 52 false"]);
}

#[test]
fn who_takes_a_session_over_and_goes_between_two_ticks_is_told() {
    let mut setup = Setup::new();
    let clean = Arrival {
        clean: true,
        ..arrival(1, "a")
    };
    setup.attempt(arrival(2, "a"), 40);
    setup.tick();
    setup.attempt(clean, 50);
    setup.gone(2, ENDS);
    setup.gone(1, ENDS);
    setup.tick();
    let expected = [
        "online a 40 false",
        "offline a 40 0x8e true",
        "online a 50 true",
        "offline a 50 0x80 false",
    ];
    assert_eq!(setup.told(), expected);
}

#[test]
fn a_reload_makes_no_new_logins_but_a_client_that_comes_meanwhile() {
    let mut setup = Setup::new();
    setup.attempt(arrival(1, "a"), 50);
    setup.tick();
    setup.clients.on_reload();
    setup.attempt(arrival(1, "a"), 60);
    let away = Arrival {
        connected: false,
        ..arrival(2, "b")
    };
    setup.attempt(away, 60);
    setup.attempt(arrival(3, "c"), 60);
    setup.tick();
    assert_eq!(setup.told(), ["online a 50 false", "online c 60 false"]);
}

#[test]
fn a_takeover_is_the_end_of_the_old_login_and_then_the_new_one() {
    let mut setup = Setup::new();
    setup.attempt(arrival(1, "a"), 50);
    setup.tick();
    // 2.0: the new one has passed, and the old one is closed.
    setup.attempt(arrival(2, "a"), 60);
    setup.gone(1, ENDS);
    setup.tick();
    // 2.1 says so, and that the session is over, though the next one goes on with it.
    let taken_over = Departure {
        reason: 142,
        session_stays: Some(false),
    };
    setup.gone(2, taken_over);
    setup.arrive(arrival(3, "a"), 70);
    let expected = [
        "online a 50 false",
        "offline a 50 0x8e true",
        "online a 60 false",
        "offline a 60 0x8e true",
        "online a 70 false",
    ];
    assert_eq!(setup.told(), expected);
}

#[test]
fn only_the_login_that_is_meant_is_closed_and_with_its_reason() {
    let mut setup = Setup::new();
    setup.arrive(arrival(1, "a"), 50);
    let close = |login| Close {
        client_id: "a".to_owned(),
        login,
        reason: 0x8E,
    };
    assert_eq!(setup.clients.begin_close(&close(49)), None);
    assert_eq!(setup.clients.begin_close(&close(50)), Some(1));
    let administrative = Departure {
        reason: 152,
        session_stays: Some(true),
    };
    setup.gone(1, administrative);
    setup.clients.end_close();
    setup.arrive(arrival(2, "a"), 60);
    assert_eq!(setup.clients.begin_close(&close(50)), None);
    let expected = [
        "online a 50 false",
        "offline a 50 0x8e true",
        "online a 60 false",
    ];
    assert_eq!(setup.told(), expected);
}

#[test]
fn another_client_at_an_old_address_ends_the_old_one() {
    let mut setup = Setup::new();
    setup.arrive(arrival(1, "a"), 50);
    setup.arrive(arrival(1, "b"), 60);
    let expected = [
        "online a 50 false",
        "offline a 50 0x80 true",
        "online b 60 false",
    ];
    assert_eq!(setup.told(), expected);
}

#[test]
fn reasons_become_those_of_mqtt_5() {
    let pairs = [
        (-1, 0x80),
        (0, 0),
        (7, 0x80),
        (19, 0x8D),
        (142, 0x8E),
        (152, 0x98),
        (999, 0x80),
    ];
    for (reason, code) in pairs {
        assert_eq!(cause(reason), code, "{reason}");
    }
}

#[test]
fn after_a_full_log_all_is_told_anew() {
    let mut setup = Setup::new();
    for key in 0..400 {
        setup.arrive(arrival(key, &format!("c{key}")), 50);
    }
    let filter = "x".repeat(60_000);
    let event = What::Unsubscribed {
        client_id: "c1",
        filter: &filter,
    };
    // Until it is really full, and not only waiting for a segment.
    for _ in 0..400 {
        setup.log.tell(1, event);
    }
    assert!(!setup.log.settle());
    setup.gone(7, ENDS);
    setup.arrive(arrival(1000, "late"), 60);
    {
        let mut reader = Reader::open(&setup.dir.path().join("events"), &ReaderOptions::default())
            .expect("a log");
        while reader.poll().expect("good").is_some() {}
        let position = reader.position();
        reader.release(position);
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut lines = Vec::new();
    while !lines
        .iter()
        .any(|line: &String| line.starts_with("online c399 "))
    {
        assert!(std::time::Instant::now() < end, "{lines:?}");
        setup.tick();
        setup.tick();
        lines = setup.told();
    }
    assert!(lines[0].starts_with("Started"), "{}", lines[0]);
    assert!(lines[1].starts_with("Deaf"), "{}", lines[1]);
    assert_eq!(lines.len(), 2 + 400, "each once");
    let is_told = |id: &str| lines.iter().any(|line| line.starts_with(id));
    assert!(is_told("online late ") && !is_told("online c7 "));
}
