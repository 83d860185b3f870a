use super::*;
use crate::cluster::interest::LINGER_MS;

const NOW: u64 = 1_000_000;

fn event(at_ms: u64, what: What<'_>) -> Event<'_> {
    Event { at_ms, what }
}

fn online(client_id: &str, login: u64) -> What<'_> {
    What::Online {
        client_id,
        username: Some("user"),
        login,
        mqtt_version: 5,
        clean: false,
    }
}

fn subscribed<'a>(client_id: &'a str, filter: &'a str) -> What<'a> {
    What::Subscribed {
        client_id,
        filter,
        qos: 1,
        downlink_position: 7,
        uplink_position: 8,
    }
}

fn tell(journal: &mut Journal, sessions: &mut Sessions, event: &Event<'_>, version: u64) {
    journal.note(event, version);
    sessions.apply(event, version);
}

/// Everything that counts, in an order.
fn known(sessions: &Sessions) -> Vec<String> {
    let mut lines: Vec<String> = sessions
        .iter()
        .map(|(client_id, session)| {
            let mut filters: Vec<_> = sessions.filters_of(session).collect();
            filters.sort_unstable();
            let Session {
                login,
                version,
                away_since_ms,
                ..
            } = session;
            format!("{client_id:?} {login} {version} {away_since_ms} {filters:?}")
        })
        .collect();
    lines.sort();
    lines.push(format!("{:?}", sessions.wanted.interest()));
    lines
}

fn a_story(journal: &mut Journal, sessions: &mut Sessions) {
    let odd = "odd\tid\\n\n";
    for (event, version) in [
        (event(NOW, online("a", NOW)), NOW + 7),
        (event(NOW + 1, subscribed("a", "x/\t\\")), 0),
        (event(NOW + 1, subscribed("a", "#")), 0),
        (event(NOW + 2, online(odd, NOW + 2)), NOW + 2),
        (event(NOW + 3, subscribed(odd, "y/z")), 0),
        (
            event(
                NOW + 4,
                What::Offline {
                    client_id: odd,
                    login: NOW + 2,
                    cause: 0x8D,
                    session_stays: true,
                },
            ),
            0,
        ),
        (
            event(
                NOW + 5,
                What::Unsubscribed {
                    client_id: "a",
                    filter: "#",
                },
            ),
            0,
        ),
        (event(NOW + 6, What::Deaf { why: "it is\nfull" }), 0),
    ] {
        tell(journal, sessions, &event, version);
    }
}

#[test]
fn what_was_told_is_known_to_the_next_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, mut sessions) = Journal::open(dir.path(), NOW).unwrap();
    a_story(&mut journal, &mut sessions);
    journal.flush(&sessions).unwrap();
    let told = known(&sessions);
    assert!(
        told[0].contains(&format!("{NOW} {} 0", NOW + 7)),
        "{told:?}"
    );
    // Once from the events, and once from the file written anew.
    for _ in 0..2 {
        drop(journal);
        let next;
        (journal, next) = Journal::open(dir.path(), NOW).unwrap();
        assert_eq!(known(&next), told);
    }
}

#[test]
fn the_times_of_tags_outlive_the_sidecar_also_between_a_start_and_what_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, mut sessions) = Journal::open(dir.path(), NOW).unwrap();
    tell(
        &mut journal,
        &mut sessions,
        &event(NOW, online("a", NOW)),
        1,
    );
    tell(
        &mut journal,
        &mut sessions,
        &event(NOW + 1, subscribed("a", "x/y")),
        0,
    );
    let started = What::Started {
        saved_at_ms: NOW + 2,
        ran_until_ms: 0,
    };
    tell(&mut journal, &mut sessions, &event(NOW + 3, started), 0);
    journal.rewrite(&sessions).unwrap();
    let later = NOW + 3 + LINGER_MS - 1;
    let (mut journal, mut sessions) = Journal::open(dir.path(), later).unwrap();
    let restored = What::Restored {
        client_id: "a",
        filter: "x/y",
        qos: 1,
    };
    tell(&mut journal, &mut sessions, &event(NOW + 4, restored), 0);
    let tag = protocol::cluster::bucket_of("x/y");
    let since = i64::try_from(NOW + 1).unwrap();
    assert_eq!(sessions.wanted.interest().tags[&tag], since);
}

#[test]
fn a_line_that_was_cut_short_or_makes_no_sense_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, mut sessions) = Journal::open(dir.path(), NOW).unwrap();
    tell(
        &mut journal,
        &mut sessions,
        &event(NOW, online("a", NOW)),
        1,
    );
    journal.flush(&sessions).unwrap();
    let path = dir.path().join(FILE);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("nonsense\t1\nsub\tx\ta\tb\n\nonline\t1\t2\t3\t4\t1\tcut-sho");
    std::fs::write(&path, text).unwrap();
    let (_, next) = Journal::open(dir.path(), NOW).unwrap();
    assert_eq!(known(&next), known(&sessions));
    std::fs::write(&path, "of another version\n").unwrap();
    let (_, next) = Journal::open(dir.path(), NOW).unwrap();
    assert_eq!(next.size().0, 0);
}

#[test]
fn the_file_is_made_anew_before_it_has_grown_much() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, mut sessions) = Journal::open(dir.path(), NOW).unwrap();
    let mut longest = 0;
    for at_ms in NOW..NOW + 60_000 {
        tell(
            &mut journal,
            &mut sessions,
            &event(at_ms, online("a", at_ms)),
            at_ms,
        );
        if at_ms % 64 == 0 {
            journal.flush(&sessions).unwrap();
            longest = longest.max(journal.end);
        }
    }
    assert!(longest <= GROWTH_BYTES + 1_000, "{longest}");
    let (_, next) = Journal::open(dir.path(), NOW + 60_000).unwrap();
    assert_eq!(
        next.iter().next().unwrap().1.login,
        NOW + 59_999 - (NOW + 59_999) % 64
    );
}
