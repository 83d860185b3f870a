use protocol::message::{Identity, Message};
use rocketmq::{Outgoing, Queue};

use super::*;

fn letter(reason: &str, bytes: usize) -> Letter {
    let message = Outgoing {
        body: vec![7; bytes].into(),
        ..Outgoing::default()
    };
    Letter::refused("T", &message, "a T", reason)
}

fn write(dead: &DeadLetters, reasons: &[&str]) -> Vec<String> {
    let mut letters: Vec<_> = reasons.iter().map(|reason| letter(reason, 10)).collect();
    dead.append(&mut letters).unwrap();
    letters.into_iter().map(|letter| letter.id).collect()
}

fn read(dir: &Path) -> Vec<Letter> {
    let mut found = Vec::new();
    let damaged = each(dir, |letter| {
        found.push(letter);
        Ok(true)
    });
    assert_eq!(damaged.unwrap(), 0);
    found
}

fn reasons(dir: &Path) -> Vec<String> {
    read(dir).into_iter().map(|letter| letter.reason).collect()
}

fn open(dir: &Path) -> DeadLetters {
    DeadLetters::open(dir, 1 << 20).unwrap()
}

#[test]
fn a_letter_holds_all_of_the_message_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let dead = open(&dir.path().join(FOLDER));
    let message = Outgoing {
        body: vec![0, 255, 10].into(),
        tag: Some("t".to_owned()),
        keys: None,
        properties: [
            ("mqtt_topic", "a/ü"),
            ("mqtt_client_id", "c"),
            ("mqtt_id", "n:1f:16"),
        ]
        .into_iter()
        .collect(),
    };
    let incoming = Incoming {
        queue: Queue {
            topic: "D".into(),
            broker: "a/b".into(),
            id: 3,
        },
        offset: 77,
        message_id: "id".into(),
        body: vec![1].into(),
        tag: None,
        keys: Some("k".into()),
        properties: vec![("x".into(), "y".into())],
        born_at_ms: 5,
        stored_at_ms: 6,
        is_read_back: false,
        problem: None,
    };
    let known = Message {
        topic: "x",
        client_id: "c2",
        ..Message::default()
    };
    let identity = Identity {
        node: "n",
        epoch: 31,
        position: 48,
    };
    let mut letters = [
        Letter::refused("T", &message, "a T", "too large"),
        Letter::of_frame(
            Direction::Uplink,
            &identity,
            b"raw",
            Some(&known),
            "b B",
            "no topic",
        ),
        Letter::unmappable(&incoming, "D d/%k", "no key"),
        Letter::of_frame(Direction::Downlink, &identity, b"raw", None, "", "refused"),
    ];
    dead.append(&mut letters).unwrap();
    let found = read(dead.dir());
    assert_eq!(found, letters, "what is read is what was written");
    let ids: Vec<_> = found.iter().map(|letter| letter.id.as_str()).collect();
    assert_eq!(ids, ["1-1", "1-2", "1-3", "1-4"]);
    assert_eq!(found[0].topic.as_deref(), Some("a/ü"));
    assert_eq!(found[0].client_id.as_deref(), Some("c"));
    assert_eq!(found[0].position, "n:1f:16");
    assert_eq!(found[1].position, "n:1f:48");
    let Ok(Content::Refused(topic, again)) = found[0].content() else {
        panic!("{:?}", found[0]);
    };
    assert_eq!((topic.as_str(), again), ("T", message));
    assert!(matches!(found[1].content(), Ok(Content::Unmapped(frame)) if frame == b"raw"));
    let Ok(Content::Unmappable(again)) = found[2].content() else {
        panic!("{:?}", found[2]);
    };
    assert_eq!(*again, incoming);
    assert!(matches!(found[3].content(), Ok(Content::NotInjected(frame)) if frame == b"raw"));
    assert_eq!(
        found[1].payload().unwrap(),
        b"raw",
        "a frame that is no message, as it is"
    );
}

#[test]
fn the_payload_is_that_of_the_mqtt_message() {
    let empty = Outgoing {
        body: vec![0].into(),
        properties: [("mqtt_empty", "1")].into_iter().collect(),
        ..Outgoing::default()
    };
    let refused = Letter::refused("T", &empty, "", "");
    assert_eq!(refused.payload().unwrap(), b"");
    let message = Message {
        topic: "x",
        payload: b"inside",
        ..Message::default()
    };
    let mut frame = vec![0; message.encoded_len()];
    message.encode_into(&mut frame);
    let identity = Identity {
        node: "n",
        epoch: 1,
        position: 0,
    };
    let framed = Letter::of_frame(
        Direction::Downlink,
        &identity,
        &frame,
        Some(&message),
        "",
        "",
    );
    assert_eq!(framed.payload().unwrap(), b"inside");
}

#[test]
fn the_oldest_go_when_the_bound_is_reached_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let dead = DeadLetters::open(dir.path(), 40_000).unwrap();
    for index in 0..200 {
        dead.append(&mut [letter(&index.to_string(), 300)]).unwrap();
    }
    let left = read(dir.path());
    let summary = dead.summary();
    assert!(summary.bytes <= 40_000, "{summary:?}");
    assert_eq!(summary.bytes_max, 40_000);
    assert_eq!(summary.count, left.len() as u64);
    assert_eq!(summary.count + summary.removed, 200);
    assert!(left.len() >= 40, "only {} are left", left.len());
    let first = 200 - left.len();
    let wanted: Vec<_> = (first..200).map(|index| index.to_string()).collect();
    assert_eq!(reasons(dir.path()), wanted, "the newest, in order");
    // The count outlives the process.
    assert_eq!(open(dir.path()).summary().removed, summary.removed);
}

#[test]
fn a_second_run_goes_on_in_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..3 {
        assert_eq!(
            write(&open(dir.path()), &["x"]),
            [format!("1-{}", index + 1)]
        );
    }
    assert_eq!(open(dir.path()).summary().count, 3);
}

#[test]
fn half_a_line_of_a_killed_writer_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(&open(dir.path()), &["one", "two"]);
    let path = files::path(dir.path(), 1);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert_eq!(write(&open(dir.path()), &["three"]), ["2-1"]);
    assert_eq!(reasons(dir.path()), ["one", "three"]);
    assert_eq!(open(dir.path()).summary().count, 2);
}

#[test]
fn letters_are_found_and_taken_out_by_their_ids_which_are_never_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let dead = open(dir.path());
    let ids = write(&dead, &["a", "b", "c"]);
    assert_eq!(find(dir.path(), &ids[1..2]).unwrap()[0].reason, "b");
    assert!(
        find(dir.path(), &["1-9".into(), "7-1".into()])
            .unwrap()
            .is_empty()
    );
    // The newest two, so that a line's number alone would be given again.
    assert_eq!(remove(dir.path(), &ids[1..]).unwrap(), 2);
    assert_eq!(remove(dir.path(), &ids[1..]).unwrap(), 0);
    let more = write(&dead, &["d", "e"]);
    assert!(more.iter().all(|id| !ids.contains(id)), "{more:?}");
    assert_eq!(reasons(dir.path()), ["a", "d", "e"]);
    assert_eq!(read(dir.path())[0].id, ids[0], "the others keep theirs");
    assert_eq!(dead.summary().count, 3);
}

#[test]
fn all_letters_can_go_and_new_ones_get_new_ids() {
    let dir = tempfile::tempdir().unwrap();
    let dead = open(dir.path());
    let ids = write(&dead, &["a", "b"]);
    assert_eq!(remove_all(dir.path(), &Filter::default()).unwrap(), 2);
    assert_eq!((dead.summary().count, dead.summary().bytes), (0, 0));
    // By the same process and by the next one.
    let more = [write(&dead, &["c"]), write(&open(dir.path()), &["d"])].concat();
    assert!(more.iter().all(|id| !ids.contains(id)), "{more:?}");
    assert_eq!(remove_all(dir.path(), &Filter::default()).unwrap(), 2);
    assert_eq!(remove_all(dir.path(), &Filter::default()).unwrap(), 0);
    assert!(!more.contains(&write(&open(dir.path()), &["e"])[0]));
}

#[test]
fn a_filter_takes_out_what_it_wants_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dead = open(dir.path());
    let mut letters = [letter("old", 1), letter("new", 1), letter("down", 1)];
    letters[0].time_ms = 1_000;
    letters[2].direction = Direction::Downlink;
    letters[2].rule = "other".into();
    dead.append(&mut letters).unwrap();
    // Text that is no letter stays until everything goes.
    let path = files::path(dir.path(), 1);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("no letter\n");
    std::fs::write(&path, text).unwrap();
    let before = Filter {
        before_ms: Some(2_000),
        ..Filter::default()
    };
    assert_eq!(remove_all(dir.path(), &before).unwrap(), 1);
    let rule = Filter {
        rule: Some("other".into()),
        direction: Some(Direction::Downlink),
        ..Filter::default()
    };
    assert_eq!(remove_all(dir.path(), &rule).unwrap(), 1);
    let mut left = Vec::new();
    let damaged = each(dir.path(), |letter| {
        left.push(letter.reason);
        Ok(true)
    });
    assert_eq!((damaged.unwrap(), left), (1, vec!["new".to_owned()]));
    assert_eq!(remove_all(dir.path(), &Filter::default()).unwrap(), 2);
    assert_eq!(dead.summary().bytes, 0);
}

#[test]
fn taking_out_while_letters_are_written_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let dead = DeadLetters::open(dir.path(), 1 << 24).unwrap();
    let writer = std::thread::spawn({
        let dead = dead.clone();
        move || {
            for index in 0..200 {
                let reason = if index % 2 == 0 { "even" } else { "odd" };
                // Whoever takes letters out may have the lock for longer than that waits: then it is tried again.
                while dead.append(&mut [letter(reason, 10)]).is_err() {}
            }
        }
    });
    let even = Filter::default();
    let mut gone = 0;
    while !writer.is_finished() {
        gone += files::take_out(dir.path(), None, |letter| {
            even.is_empty() && letter.is_some_and(|letter| letter.reason == "even")
        })
        .unwrap();
        // Longer than a writer rests between two looks at the lock.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    writer.join().unwrap();
    let left = reasons(dir.path());
    assert_eq!(left.len() as u64 + gone, 200);
    assert_eq!(left.iter().filter(|reason| *reason == "odd").count(), 100);
}

#[test]
fn letters_of_a_version_without_ids_can_be_named_too() {
    let dir = tempfile::tempdir().unwrap();
    let line = r#"{"time_ms":1,"direction":"uplink","rule":"","reason":"r","frame":"AA==","position":"16"}"#;
    std::fs::write(
        dir.path().join("letters-3.jsonl"),
        format!("{line}\n{line}\n"),
    )
    .unwrap();
    let ids: Vec<_> = read(dir.path())
        .into_iter()
        .map(|letter| letter.id)
        .collect();
    assert_eq!(ids, ["3-1", "3-2"]);
    assert_eq!(remove(dir.path(), &ids[..1]).unwrap(), 1);
    assert_eq!(read(dir.path())[0].id, "3-2");
}

#[test]
fn ids_are_two_numbers() {
    assert_eq!(parse_id("12-3"), Some((12, 3)));
    for wrong in ["", "1", "-1", "1-", "+1-2", "1-2-3", "a-b"] {
        assert_eq!(parse_id(wrong), None, "{wrong}");
    }
}
