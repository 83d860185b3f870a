//! Three nodes' tables, and what their brokers keep.

use rocketmq::{Incoming, Queue};

use super::*;
use crate::mapping::names;

fn publish(retained: &Retained, topic: &str, at_ms: u64, position: u64, injected: u64) -> u64 {
    publish_text(retained, topic, "x", (at_ms, position, injected))
}

fn publish_text(
    retained: &Retained,
    topic: &str,
    payload: &str,
    (received_at_ms, position, injected): (u64, u64, u64),
) -> u64 {
    let message = Message {
        topic,
        payload: payload.as_bytes(),
        retain: true,
        received_at_ms,
        injected: Some(injected),
        ..Message::default()
    };
    let identity = Identity {
        node: "here",
        epoch: 1,
        position,
    };
    retained.publish(&message, &identity)
}

/// As RocketMQ gives it.
fn incoming(node: &str, topic: &str, at_ms: u64, position: u64) -> Incoming {
    let id = format!("{node}:1:{position}");
    let at_ms = at_ms.to_string();
    let properties = [
        (names::TOPIC, topic),
        (names::RETAIN, "1"),
        (names::ID, id.as_str()),
        (names::RETAINED_AT, at_ms.as_str()),
    ];
    Incoming {
        queue: Queue::default(),
        properties: properties
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Incoming::default()
    }
}

fn get(retained: &Retained, incoming: &Incoming, frame: u64) -> Verdict {
    let kept = Kept::of(incoming).unwrap();
    let verdict = retained.judge(&kept);
    if verdict == Verdict::Keep {
        retained.handed_over(&kept, frame);
    }
    verdict
}

#[test]
fn the_larger_version_stays_whatever_comes_first() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let dir = tempfile::tempdir().unwrap();
        let retained = Retained::open(dir.path()).unwrap();
        // The node decides between those of one time, then the place in its log.
        let messages = [
            incoming("a", "t", 100, 9),
            incoming("b", "t", 100, 3),
            incoming("b", "t", 100, 4),
        ];
        let verdicts = order.map(|i| get(&retained, &messages[i], i as u64));
        let newest = order.iter().position(|i| *i == 2).unwrap();
        assert_eq!(verdicts[newest], Verdict::Keep, "{order:?}");
        assert!(
            verdicts[newest + 1..]
                .iter()
                .all(|v| *v == Verdict::Deliver)
        );
        assert_eq!(get(&retained, &messages[2], 9), Verdict::Known);
        assert_eq!(retained.len(), 1);
    }
}

#[test]
fn what_a_device_publishes_here_is_newer_than_what_the_broker_had_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    assert_eq!(
        get(&retained, &incoming("a", "t", 5000, 1), 64),
        Verdict::Keep
    );
    // Our clock is behind; the frame at 64 was injected before the publish.
    assert_eq!(publish(&retained, "t", 1000, 7, 128), 5001);
    assert_eq!(publish(&retained, "t", 1000, 8, 128), 5002);
    assert_eq!(publish(&retained, "t", 9000, 9, 128), 9000);
    assert!(retained.take_corrections().is_empty());
    // And the log read again gives the same version.
    assert_eq!(publish(&retained, "t", 9000, 9, 128), 9000);
    assert_eq!(
        get(&retained, &incoming("here", "t", 9000, 9), 0),
        Verdict::Known
    );
    assert_eq!(
        get(&retained, &incoming("here", "t", 5002, 8), 0),
        Verdict::Deliver
    );
}

#[test]
fn a_publish_that_was_overtaken_in_the_broker_is_injected_again() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    assert_eq!(
        get(&retained, &incoming("a", "t", 1000, 1), 64),
        Verdict::Keep
    );
    // Published before the frame at 64 was injected, and later by the clock.
    assert_eq!(publish_text(&retained, "t", "mine", (2000, 7, 64)), 2000);
    let corrections = retained.take_corrections();
    let [frame] = corrections.as_slice() else {
        panic!("{} corrections", corrections.len());
    };
    let again = Message::decode(frame).unwrap();
    assert_eq!(
        (again.topic, again.payload, again.retain),
        ("t", &b"mine"[..], true)
    );
    assert!(again.injected.is_none() && again.rules.is_empty());
    // While it was being appended too.
    let other = incoming("a", "u", 1000, 2);
    let kept = Kept::of(&other).unwrap();
    assert_eq!(retained.judge(&kept), Verdict::Keep);
    assert_eq!(publish(&retained, "u", 2000, 8, 1 << 40), 2000);
    assert_eq!(retained.take_corrections().len(), 1);
    retained.handed_over(&kept, 128);
    assert_eq!(
        get(&retained, &incoming("here", "u", 2000, 8), 0),
        Verdict::Known
    );
}

#[test]
fn a_publish_that_was_overtaken_by_a_newer_one_stays_overtaken() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    assert_eq!(
        get(&retained, &incoming("a", "t", 3000, 1), 64),
        Verdict::Keep
    );
    assert_eq!(publish(&retained, "t", 2000, 7, 64), 2000);
    assert!(retained.take_corrections().is_empty());
    assert_eq!(
        get(&retained, &incoming("a", "t", 3000, 1), 64),
        Verdict::Known
    );
}

#[test]
fn versions_are_known_after_a_restart_and_damaged_lines_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    assert_eq!(
        get(&retained, &incoming("a", "with blanks in it", 1000, 1), 64),
        Verdict::Keep
    );
    publish_text(&retained, "deleted", "", (7, 3, 0));
    publish(&retained, "mine", 7, 4, 0);
    drop(retained);
    let path = dir.path().join("cluster.retained");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"12 zz\n\xff\n1 1 1 1 - kept  \n");
    std::fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        let retained = Retained::open(dir.path()).unwrap();
        assert_eq!(retained.len(), 2);
        let other = incoming("a", "with blanks in it", 1000, 1);
        assert_eq!(get(&retained, &other, 64), Verdict::Known);
        assert_eq!(
            get(&retained, &incoming("here", "deleted", 7, 3), 0),
            Verdict::Known
        );
        assert_eq!(
            get(&retained, &incoming("here", "mine", 7, 4), 0),
            Verdict::Known
        );
    }
}

#[test]
fn what_mosquitto_had_not_saved_when_it_was_killed_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    let message = incoming("a", "t", 1000, 1);
    assert_eq!(get(&retained, &message, 64), Verdict::Keep);
    // Saved after it.
    assert_eq!(retained.started(unix_ms() + 10 * INJECTED_LATE_MS), None);
    assert_eq!(get(&retained, &message, 64), Verdict::Known);
    let late = incoming("a", "u", 500_000, 2);
    assert_eq!(get(&retained, &late, 64), Verdict::Keep);
    for saved_at_ms in [unix_ms(), 0] {
        assert_eq!(
            retained.started(saved_at_ms),
            Some(0),
            "as old as the oldest"
        );
        assert_eq!(get(&retained, &message, 64), Verdict::Keep);
    }
}

#[test]
fn a_message_that_was_not_handed_over_is_kept_when_it_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    let message = incoming("a", "t", 1000, 1);
    let kept = Kept::of(&message).unwrap();
    assert_eq!(retained.judge(&kept), Verdict::Keep);
    retained.not_handed_over(&kept);
    assert_eq!(get(&retained, &message, 64), Verdict::Keep);
}

#[test]
fn the_file_does_not_grow_with_the_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    for position in 0..20_000 {
        publish(&retained, "t", 1, position, 0);
    }
    let bytes = std::fs::metadata(dir.path().join("cluster.retained"))
        .unwrap()
        .len();
    assert!(bytes < 400_000, "{bytes}");
    drop(retained);
    let retained = Retained::open(dir.path()).unwrap();
    assert_eq!(publish(&retained, "t", 1, 19_999, 0), 20_000);
}

#[test]
fn messages_that_tell_no_version_are_not_judged() {
    let good = incoming("a", "t", 1, 1);
    assert!(Kept::of(&good).is_some());
    for name in [names::TOPIC, names::ID, names::RETAINED_AT] {
        let mut bad = good.clone();
        bad.properties.retain(|(given, _)| given != name);
        assert!(Kept::of(&bad).is_none(), "{name}");
    }
    let mut live = good;
    live.properties.iter_mut().for_each(|(name, value)| {
        if name == names::RETAIN {
            "0".clone_into(value);
        }
    });
    assert!(Kept::of(&live).is_none());
}

#[test]
fn the_newest_of_a_topic_is_stored_once_more_when_it_is_old_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let retained = Retained::open(dir.path()).unwrap();
    let at = |incoming: Incoming, stored_at_ms| Incoming {
        stored_at_ms,
        ..incoming
    };
    let old = at(incoming("a", "t", 100, 1), 1_000);
    assert_eq!(get(&retained, &old, 64), Verdict::Keep);
    let kept = Kept::of(&old).unwrap();
    assert!(retained.is_stored_before(&kept, 1_001) && !retained.is_stored_before(&kept, 1_000));
    retained.was_stored(&kept, 5_000);
    assert!(retained.is_stored_before(&kept, 5_001) && !retained.is_stored_before(&kept, 5_000));
    // By another node.
    assert_eq!(get(&retained, &at(old.clone(), 9_000), 0), Verdict::Known);
    assert!(!retained.is_stored_before(&kept, 9_000));
    let newer = at(incoming("a", "t", 200, 2), 10_000);
    assert_eq!(get(&retained, &newer, 128), Verdict::Keep);
    assert!(
        !retained.is_stored_before(&kept, u64::MAX),
        "it was replaced"
    );
}
