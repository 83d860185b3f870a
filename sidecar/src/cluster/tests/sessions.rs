use super::*;
use crate::cluster::interest::LINGER_MS;

pub(super) fn online(client_id: &str, login: u64, clean: bool) -> What<'_> {
    What::Online {
        client_id,
        username: None,
        login,
        mqtt_version: 4,
        clean,
    }
}

fn offline(client_id: &str, login: u64, session_stays: bool) -> What<'_> {
    What::Offline {
        client_id,
        login,
        cause: 0,
        session_stays,
    }
}

fn subscribed<'a>(client_id: &'a str, filter: &'a str) -> What<'a> {
    What::Subscribed {
        client_id,
        filter,
        qos: 1,
        downlink_position: 0,
        uplink_position: 0,
    }
}

fn restored<'a>(client_id: &'a str, filter: &'a str) -> What<'a> {
    What::Restored {
        client_id,
        filter,
        qos: 1,
    }
}

fn told(sessions: &mut Sessions, events: &[(u64, What<'_>)]) {
    for (at_ms, what) in events {
        let event = Event {
            at_ms: *at_ms,
            what: *what,
        };
        sessions.apply(&event, *at_ms);
    }
}

fn since(sessions: &Sessions, topic: &str) -> Option<i64> {
    let tag = protocol::cluster::bucket_of(topic);
    sessions.wanted.interest().tags.get(&tag).copied()
}

fn filters(sessions: &Sessions, client_id: &str) -> Vec<String> {
    let session = &sessions.clients[client_id];
    sessions.filters_of(session).map(str::to_owned).collect()
}

#[test]
fn the_filters_of_a_clean_session_go_with_it_and_those_of_a_kept_one_stay() {
    let mut sessions = Sessions::default();
    told(
        &mut sessions,
        &[
            (1_000, online("a", 1_000, true)),
            (1_100, subscribed("a", "one/x")),
            (1_200, online("b", 1_200, false)),
            (1_300, subscribed("b", "two/x")),
            (1_300, subscribed("b", "two/x")),
            (2_000, offline("a", 1_000, false)),
            (2_000, offline("b", 1_200, true)),
        ],
    );
    sessions.sweep(2_001 + LINGER_MS);
    assert_eq!(since(&sessions, "one/x"), None);
    assert_eq!(since(&sessions, "two/x"), Some(1_300));
    assert_eq!(filters(&sessions, "b"), ["two/x"]);
    told(&mut sessions, &[(3_000, online("b", 3_000, true))]);
    assert!(filters(&sessions, "b").is_empty());
    assert_eq!(sessions.size().1, 0);
}

#[test]
fn the_filter_of_a_group_is_wanted_until_its_messages_need_not_be_passed_on() {
    let mut sessions = Sessions::default();
    told(
        &mut sessions,
        &[
            (1_000, online("a", 1_000, true)),
            (1_100, subscribed("a", "$share/g/one/x")),
            (2_000, offline("a", 1_000, false)),
        ],
    );
    let news: Vec<bool> = sessions
        .take_group_news()
        .into_iter()
        .map(|of| of.1)
        .collect();
    assert_eq!(news, [true, false]);
    sessions.let_go(|key| key == "g/one/x", 90_000);
    sessions.sweep(90_000 + 2 * LINGER_MS);
    assert_eq!(since(&sessions, "one/x"), Some(1_100));
    // A member that comes back, and goes again.
    told(
        &mut sessions,
        &[(120_000, subscribed("b", "$share/g/one/x"))],
    );
    sessions.let_go(|_| false, 121_000);
    sessions.sweep(122_000 + LINGER_MS);
    assert_eq!(since(&sessions, "one/x"), Some(1_100));
    let what = What::Unsubscribed {
        client_id: "b",
        filter: "$share/g/one/x",
    };
    told(&mut sessions, &[(140_000, what)]);
    sessions.let_go(|_| false, 141_000);
    sessions.sweep(141_000 + LINGER_MS);
    assert_eq!(since(&sessions, "one/x"), Some(1_100));
    sessions.sweep(141_001 + LINGER_MS);
    assert_eq!(since(&sessions, "one/x"), None);
}

#[test]
fn the_end_of_an_older_login_does_not_end_the_newer_one() {
    let mut sessions = Sessions::default();
    told(
        &mut sessions,
        &[
            (1_000, online("a", 1_000, true)),
            (2_000, online("a", 2_000, true)),
            (2_000, subscribed("a", "x/y")),
            (2_001, offline("a", 1_000, false)),
        ],
    );
    assert!(sessions.clients["a"].is_online());
    assert_eq!(filters(&sessions, "a"), ["x/y"]);
    told(&mut sessions, &[(2_002, offline("a", 2_000, false))]);
    assert!(sessions.clients.is_empty());
}

#[test]
fn after_a_start_only_what_was_saved_is_subscribed_to_and_has_its_old_time() {
    let mut sessions = Sessions::default();
    told(
        &mut sessions,
        &[
            (1_000, online("clean", 1_000, true)),
            (1_100, subscribed("clean", "one/x")),
            (1_200, online("kept", 1_200, false)),
            (1_300, subscribed("kept", "two/x")),
            (1_400, subscribed("kept", "three/x")),
            (
                5_000,
                What::Started {
                    saved_at_ms: 1_350,
                    ran_until_ms: 0,
                },
            ),
            (5_001, restored("kept", "two/x")),
            (5_001, restored("unheard", "four/x")),
        ],
    );
    assert!(!sessions.clients.contains_key("clean"));
    assert!(!sessions.clients["kept"].is_online());
    assert!(!sessions.clients["unheard"].is_online());
    assert_eq!(since(&sessions, "two/x"), Some(1_300));
    assert_eq!(since(&sessions, "four/x"), Some(1_350));
    sessions.sweep(5_001 + LINGER_MS);
    assert_eq!(since(&sessions, "one/x"), None);
    assert_eq!(since(&sessions, "three/x"), None);
    told(
        &mut sessions,
        &[(
            90_000,
            What::Started {
                saved_at_ms: 0,
                ran_until_ms: 0,
            },
        )],
    );
    sessions.sweep(90_001 + LINGER_MS);
    assert_eq!(sessions.size(), (0, 0, sessions.size().2));
    assert_eq!(
        sessions.wanted.interest().tags.len(),
        1,
        "retained ones alone"
    );
}

#[test]
fn what_was_missed_was_missed_since_the_event_before() {
    let mut sessions = Sessions::default();
    told(
        &mut sessions,
        &[
            (1_000, online("a", 1_000, true)),
            (9_000, What::Deaf { why: "full" }),
        ],
    );
    assert_eq!(sessions.wanted.interest().all_since_ms, Some(1_000));
}

#[test]
fn a_session_that_nobody_comes_back_to_is_forgotten() {
    let mut sessions = Sessions::default();
    told(
        &mut sessions,
        &[
            (1_000, online("a", 1_000, false)),
            (1_000, subscribed("a", "x/y")),
            (2_000, offline("a", 1_000, true)),
            (2_000, online("b", 2_000, false)),
        ],
    );
    sessions.sweep(2_000 + FORGET_AFTER_MS);
    assert_eq!(sessions.size().0, 2);
    sessions.sweep(2_001 + FORGET_AFTER_MS);
    assert_eq!((sessions.size().0, sessions.size().1), (1, 0));
}

#[test]
fn unsubscribing_gives_up_the_filter_alone() {
    let mut sessions = Sessions::default();
    told(
        &mut sessions,
        &[
            (1_000, subscribed("a", "x/y")),
            (1_000, subscribed("a", "x/z")),
            (1_000, subscribed("b", "x/z")),
            (
                2_000,
                What::Unsubscribed {
                    client_id: "a",
                    filter: "x/z",
                },
            ),
        ],
    );
    assert_eq!(filters(&sessions, "a"), ["x/y"]);
    sessions.sweep(2_001 + LINGER_MS);
    assert_eq!(since(&sessions, "x/z"), Some(1_000), "b has it still");
}

#[test]
fn a_hundred_thousand_sessions_with_three_filters_each_stay_below_40_mib() {
    let mut sessions = Sessions::default();
    for number in 0..100_000_u64 {
        let client = format!("sensor-{number:06}");
        let filters = [
            format!("devices/{number:06}/set"),
            format!("devices/{number:06}/fw/#"),
            format!("alarms/{number:06}"),
        ];
        told(&mut sessions, &[(1_000, online(&client, 1_000, false))]);
        for filter in &filters {
            told(&mut sessions, &[(1_000, subscribed(&client, filter))]);
        }
    }
    let (clients, filters, bytes) = sessions.size();
    assert_eq!((clients, filters), (100_000, 300_000));
    assert!(bytes < 40 << 20, "{bytes}");
}
