//! What counts as a repetition.

use bytes::Bytes;
use proptest::prelude::*;
use rocketmq::Incoming;

use super::*;
use crate::mapping::seal::Seal;

fn queue(id: i32) -> Queue {
    Queue {
        topic: "T".into(),
        broker: "b".into(),
        id,
    }
}

fn message(queue_id: i32, offset: i64, properties: &[(&str, &str)]) -> Incoming {
    Incoming {
        queue: queue(queue_id),
        offset,
        properties: properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Incoming::default()
    }
}

/// The layout's name, and the seal of a message without a body.
fn sealed(queue_id: i32, layout: &str) -> String {
    format!("{layout}{}", Seal::of(&queue(queue_id)).text(b""))
}

fn place(offset: i64, id: &str) -> Place {
    in_lane(0, offset, id, "aa")
}

fn in_lane(queue_id: i32, offset: i64, id: &str, lane: &str) -> Place {
    let lane = sealed(queue_id, lane);
    let properties = [("mqtt_id", id), ("mqtt_lane", &lane)];
    Place::of(&message(queue_id, offset, &properties)).expect("a place")
}

fn copy(offset: i64, id: &str, copy: &str) -> Place {
    let lane = sealed(0, "aa");
    let properties = [("mqtt_id", id), ("mqtt_lane", &lane), ("mqtt_copy", copy)];
    Place::of(&message(0, offset, &properties)).expect("a place")
}

fn replayed(queue_id: i32, offset: i64, id: &str) -> Place {
    let properties = [("mqtt_id", id), ("mqtt_replayed", "1")];
    Place::of(&message(queue_id, offset, &properties)).expect("a place")
}

fn open(dir: &tempfile::TempDir) -> Seen {
    Seen::open(dir.path(), 7, "boot").unwrap()
}

/// Reads them in turn, and says which are handed over.
fn read(seen: &mut Seen, places: &[Place]) -> Vec<bool> {
    let take = |place: &Place| {
        let is_new = !seen.contains(place);
        if is_new {
            seen.note(place);
        }
        is_new
    };
    let found = places.iter().map(take).collect();
    seen.flush().unwrap();
    found
}

#[test]
fn what_was_stored_twice_is_handed_over_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = [place(0, "n:1:16"), place(1, "n:1:32"), place(2, "n:1:16")];
    assert_eq!(read(&mut open(&dir), &first), [true, true, false]);
    let then = [place(3, "n:1:32"), place(4, "n:1:48"), place(5, "n:1:48")];
    assert_eq!(read(&mut open(&dir), &then), [false, true, false]);
}

#[test]
fn other_nodes_epochs_queues_and_lanes_have_marks_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let places = [
        place(0, "n:1:160"),
        place(1, "m:1:16"),
        place(2, "n:2:16"),
        in_lane(1, 0, "n:1:16", "aa"),
        // The topic has other queues now, and what waited for a slow lane goes by this one.
        in_lane(0, 3, "n:1:32", "bb"),
    ];
    assert_eq!(read(&mut open(&dir), &places), [true; 5]);
}

#[test]
fn two_rules_may_send_one_message_to_one_topic() {
    let dir = tempfile::tempdir().unwrap();
    let places = [
        place(0, "n:1:16"),
        copy(1, "n:1:16", "2"),
        place(2, "n:1:32"),
        place(3, "n:1:16"),
        copy(4, "n:1:16", "2"),
        place(5, "n:1:32"),
        copy(6, "n:1:32", "2"),
    ];
    assert_eq!(
        read(&mut open(&dir), &places),
        [true, true, true, false, false, false, true]
    );
}

#[test]
fn an_operator_who_sets_the_offset_back_gets_the_old_messages_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = open(&dir);
    let all: Vec<_> = [16, 32, 48, 32, 48, 64]
        .iter()
        .zip(0..)
        .map(|(position, offset)| place(offset, &format!("n:1:{position}")))
        .collect();
    let expected = [true, true, true, false, false, true];
    assert_eq!(read(&mut seen, &all), expected);
    assert_eq!(read(&mut seen, &all), expected, "from the beginning");
    assert_eq!(
        read(&mut seen, &all[2..]),
        [true, false, false, true],
        "from the middle"
    );
}

#[test]
fn a_topic_that_was_made_anew_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = open(&dir);
    assert_eq!(read(&mut seen, &[place(900, "n:1:16")]), [true]);
    assert_eq!(
        read(&mut seen, &[place(0, "n:1:32"), place(1, "n:1:48")]),
        [true; 2]
    );
}

#[test]
fn a_replayed_dead_letter_is_new_once_whatever_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = open(&dir);
    let places = [
        place(0, "n:1:160"),
        replayed(0, 1, "n:1:16"),
        replayed(0, 2, "n:1:32"),
        replayed(0, 3, "n:1:16"),
        replayed(1, 0, "n:1:16"),
        place(4, "n:1:176"),
    ];
    assert_eq!(
        read(&mut seen, &places),
        [true, true, true, false, false, true]
    );
    drop(seen);
    let again = [replayed(0, 9, "n:1:32"), replayed(0, 10, "n:1:48")];
    assert_eq!(read(&mut open(&dir), &again), [false, true]);
}

#[test]
fn what_no_lane_of_ours_sent_has_no_place() {
    let (lane, broken) = (sealed(0, "aa"), sealed(0, "a\nb"));
    let (lane, seal) = (lane.as_str(), &lane[2..]);
    for properties in [
        &[][..],
        &[("mqtt_id", "n:1:16")],
        &[("mqtt_id", "n:1:16"), ("mqtt_lane", "")],
        &[("mqtt_id", "n:1:16"), ("mqtt_lane", "ü2345678")],
        &[("mqtt_id", "n:1:16"), ("mqtt_lane", seal)],
        &[("mqtt_id", "nonsense"), ("mqtt_lane", lane)],
        &[("mqtt_id", "a node:1:16"), ("mqtt_lane", lane)],
        &[("mqtt_id", "n:1:16"), ("mqtt_lane", &broken)],
        &[
            ("mqtt_id", "n:1:16"),
            ("mqtt_lane", lane),
            ("mqtt_copy", "x"),
        ],
    ] {
        assert_eq!(
            Place::of(&message(0, 0, properties)),
            None,
            "{properties:?}"
        );
    }
}

#[test]
fn a_message_with_copied_properties_is_not_ours() {
    let lane = sealed(0, "aa");
    let properties = [("mqtt_id", "n:1:16"), ("mqtt_lane", lane.as_str())];
    assert!(Place::of(&message(0, 0, &properties)).is_some());
    assert_eq!(
        Place::of(&message(1, 0, &properties)),
        None,
        "another queue"
    );
    let mut other = message(0, 0, &properties);
    other.body = Bytes::from_static(b"enriched");
    assert_eq!(Place::of(&other), None, "another body");
    let mut other = message(0, 0, &properties);
    other.queue.topic = "U".into();
    assert_eq!(Place::of(&other), None, "another topic");
}

#[test]
fn nothing_is_believed_after_a_restart_of_the_machine_or_for_another_log() {
    let dir = tempfile::tempdir().unwrap();
    for (epoch, boot) in [(7, "boot"), (7, "other boot"), (8, "other boot")] {
        let mut seen = Seen::open(dir.path(), epoch, boot).unwrap();
        assert!(!seen.contains(&place(5, "n:1:16")), "{epoch} {boot}");
        seen.note(&place(4, "n:1:16"));
        seen.flush().unwrap();
    }
}

#[test]
fn a_damaged_file_is_no_error_and_its_good_lines_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = open(&dir);
    seen.note(&place(4, "n:1:16"));
    seen.flush().unwrap();
    drop(seen);
    let path = dir.path().join("downlink.seen");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"\xff\n12 x\nreplayed 1\n\0\0");
    std::fs::write(&path, bytes).unwrap();
    assert!(open(&dir).contains(&place(5, "n:1:16")));
    std::fs::write(&path, b"\0\0\0").unwrap();
    assert!(!open(&dir).contains(&place(5, "n:1:16")));
}

#[test]
fn a_message_of_a_run_that_died_before_its_note_is_noted_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = open(&dir);
    seen.note_older(&place(3, "n:1:32"));
    assert!(seen.contains(&place(4, "n:1:32")));
    seen.note_older(&place(2, "n:1:16"));
    assert!(seen.contains(&place(4, "n:1:32")), "marks don't fall by it");
}

#[test]
fn memory_and_file_are_bounded_and_the_newest_marks_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = open(&dir);
    seen.marks_max = 100;
    for node in 0..1000 {
        seen.note(&place(node, &format!("n{node}:1:16")));
        seen.flush().unwrap();
        // As if the clock had gone on.
        for mark in seen.marks.values_mut() {
            mark.used_s = mark.used_s.saturating_sub(1);
        }
    }
    assert!(seen.marks.len() <= 100);
    assert!(seen.contains(&place(2000, "n999:1:16")));
    for number in 0..3 * REPLAYS_MAX {
        seen.note(&replayed(0, number as i64, &format!("n:1:{number}")));
        seen.flush().unwrap();
    }
    assert_eq!(seen.replays.len(), REPLAYS_MAX);
    let len = std::fs::metadata(dir.path().join("downlink.seen"))
        .unwrap()
        .len();
    assert!(len < 1_000_000, "{len} bytes");
    let again = open(&dir);
    assert!(again.contains(&place(2000, "n999:1:16")));
    let newest = format!("n:1:{}", 3 * REPLAYS_MAX - 1);
    assert!(again.contains(&replayed(1, 0, &newest)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// A sender with one lane that dies at any moment and begins again at any message that it has not given back, and a
    /// reader that is restarted at any moment: every message once, in order.
    #[test]
    fn however_often_a_sender_begins_again_each_message_is_new_once(
        runs in proptest::collection::vec((1_usize..20, 0_usize..20), 1..20),
        restarts in proptest::collection::vec(0_u8..20, 400),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = open(&dir);
        let (mut next, mut offset, mut handed_over) = (0_usize, 0, Vec::new());
        for (count, back) in runs {
            let from = next.saturating_sub(back);
            for number in from..from + count {
                if restarts[offset as usize % restarts.len()] == 0 {
                    seen.flush().unwrap();
                    seen = open(&dir);
                }
                let place = place(offset, &format!("n:1:{}", 16 * number));
                offset += 1;
                if !seen.contains(&place) {
                    seen.note(&place);
                    handed_over.push(number);
                }
            }
            next = next.max(from + count);
        }
        prop_assert_eq!(handed_over, (0..next).collect::<Vec<_>>());
    }
}
