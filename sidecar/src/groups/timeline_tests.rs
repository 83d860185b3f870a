use super::*;

const GROUP: GroupId = 7;
/// Of `g/jobs/+`.
const GROUP_ID: GroupId = 0xB520C9C7F6B1B230;

/// Queues and offsets with the times of their storing.
fn owner(timeline: &Timeline, queue: i32, offset: i64, stored_ms: i64) -> Option<&str> {
    let queue = Queue {
        topic: "T".into(),
        broker: "b".into(),
        id: queue,
    };
    let at = At {
        queue: &queue,
        offset,
        stored_ms,
    };
    timeline.owner(GROUP, &at, None)
}

fn done(next: i64) -> Done {
    let queues = (0..8).map(|id| (("b".to_owned(), id), next));
    Arc::new(queues.collect())
}

fn say(
    timeline: &mut Timeline,
    node: &str,
    life: u64,
    groups: &[(GroupId, i64)],
    next: i64,
    ms: i64,
) -> (Vec<GroupId>, Option<Left>) {
    timeline.heard(&Word {
        node,
        life: ("i", life),
        groups,
        done: done(next),
        stored_ms: ms,
    })
}

/// Who has the messages with this offset and time, queue by queue.
fn owners(timeline: &Timeline, offset: i64, stored_ms: i64) -> Vec<&str> {
    (0..8)
        .map(|queue| owner(timeline, queue, offset, stored_ms).unwrap_or("nobody"))
        .collect()
}

#[test]
fn the_first_node_has_all_and_a_second_one_its_share_a_while_later() {
    let mut timeline = Timeline::default();
    assert_eq!(owner(&timeline, 0, 5, 100_000), None);
    assert_eq!(
        say(&mut timeline, "a", 1, &[(GROUP, 0)], 0, 100_000).0,
        [GROUP]
    );
    assert_eq!(
        owners(&timeline, 5, 95_000),
        ["a"; 8],
        "what it subscribed for"
    );
    assert_eq!(owners(&timeline, 5, 35_000), ["nobody"; 8]);
    assert_eq!(
        say(&mut timeline, "b", 1, &[(GROUP, 0)], 0, 200_000).0,
        [GROUP]
    );
    assert!(
        say(&mut timeline, "b", 1, &[(GROUP, 200_000)], 0, 201_000)
            .0
            .is_empty()
    );
    assert_eq!(owners(&timeline, 5, 202_999), ["a"; 8]);
    let shared = owners(&timeline, 5, 203_000);
    assert!(shared.contains(&"a") && shared.contains(&"b"), "{shared:?}");
    assert_eq!(
        (
            timeline.joined_ms("b", GROUP),
            timeline.joined_ms("c", GROUP)
        ),
        (200_000, 0)
    );
}

#[test]
fn of_two_that_come_at_once_the_first_has_all_until_both_have_settled() {
    let mut one = Timeline::default();
    let mut two = Timeline::default();
    say(&mut one, "a", 1, &[(GROUP, 0)], 0, 1_000);
    say(&mut one, "b", 1, &[(GROUP, 0)], 0, 1_001);
    say(&mut two, "b", 1, &[(GROUP, 0)], 0, 1_001);
    say(&mut two, "a", 1, &[(GROUP, 0)], 0, 1_000);
    for stored_ms in [500, 2_000, 4_000, 4_001, 9_000] {
        assert_eq!(owners(&one, 1, stored_ms), owners(&two, 1, stored_ms));
    }
    assert_eq!(owners(&one, 1, 3_000), ["a"; 8]);
}

#[test]
fn who_has_left_has_its_share_a_while_longer() {
    let mut timeline = Timeline::default();
    say(&mut timeline, "a", 1, &[(GROUP, 0)], 0, 1_000);
    say(&mut timeline, "b", 1, &[(GROUP, 0)], 0, 1_000);
    let shared: Vec<_> = owners(&timeline, 1, 60_000)
        .into_iter()
        .map(str::to_owned)
        .collect();
    say(&mut timeline, "b", 1, &[], 0, 60_000);
    assert_eq!(owners(&timeline, 1, 62_999), shared);
    assert_eq!(owners(&timeline, 1, 63_000), ["a"; 8]);
    assert!(timeline.takes_part("b", GROUP, 62_000));
    assert!(!timeline.takes_part("b", GROUP, 63_001));
    assert!(!timeline.has_others("a", GROUP) && timeline.has_others("b", GROUP));
}

#[test]
fn what_a_node_had_not_done_goes_to_the_others_when_it_is_gone() {
    let mut timeline = Timeline::default();
    say(&mut timeline, "a", 1, &[(GROUP, 0)], 0, 1_000);
    say(&mut timeline, "b", 1, &[(GROUP, 0)], 0, 1_000);
    for second in 10..20 {
        say(
            &mut timeline,
            "b",
            1,
            &[(GROUP, 1_000)],
            second * 10,
            second * 1_000,
        );
    }
    let before: Vec<_> = owners(&timeline, 175, 18_500)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let left = timeline.gone("b").expect("it took part");
    assert_eq!(
        (left.groups.as_slice(), left.stored_ms),
        (&[GROUP][..], 18_000)
    );
    assert_eq!(owners(&timeline, 180, 18_500), ["a"; 8]);
    assert_eq!(owners(&timeline, 179, 17_500), before, "that it had done");
    let queue = |id| Queue {
        topic: "T".into(),
        broker: "b".into(),
        id,
    };
    for (id, before) in before.iter().enumerate() {
        let queue = queue(i32::try_from(id).unwrap());
        let at = At {
            queue: &queue,
            offset: 190,
            stored_ms: 19_000,
        };
        assert_eq!(timeline.was_of(&left, GROUP, &at), before == "b");
    }
    // It comes back: not by what it said before.
    assert_eq!(
        say(&mut timeline, "b", 2, &[(GROUP, 1_000)], 0, 60_000).0,
        [GROUP]
    );
    assert_eq!(owners(&timeline, 200, 62_999), ["a"; 8]);
    assert!(owners(&timeline, 200, 63_000).contains(&"b"));
}

#[test]
fn a_new_life_ends_the_one_before() {
    let mut timeline = Timeline::default();
    say(&mut timeline, "a", 1, &[(GROUP, 0)], 5, 1_000);
    let (joined, left) = say(&mut timeline, "a", 2, &[(GROUP, 0)], 0, 9_000);
    assert_eq!(left.map(|left| left.stored_ms), Some(1_000));
    // Nobody else was there: it goes on where it was.
    assert!(joined.is_empty());
    timeline.forget(10_000_000);
    assert_eq!(timeline.joined_ms("a", GROUP), 1_000);
    assert_eq!(owners(&timeline, 5, 8_000), ["a"; 8]);
    say(&mut timeline, "b", 1, &[(GROUP, 0)], 0, 20_000);
    let (joined, _) = say(&mut timeline, "a", 3, &[(GROUP, 0)], 5, 30_000);
    assert_eq!(joined, [GROUP]);
    assert_eq!(timeline.joined_ms("a", GROUP), 30_000);
}

#[test]
fn who_could_not_give_it_is_left_out() {
    let mut timeline = Timeline::default();
    say(&mut timeline, "a", 1, &[(GROUP, 0)], 0, 1_000);
    let queue = Queue::default();
    let at = At {
        queue: &queue,
        offset: 1,
        stored_ms: 9_000,
    };
    assert_eq!(timeline.owner(GROUP, &at, Some("a")), None);
    say(&mut timeline, "b", 1, &[(GROUP, 0)], 0, 1_000);
    assert_eq!(timeline.owner(GROUP, &at, Some("a")), Some("b"));
}

#[test]
fn the_hashes_are_a_format() {
    assert_eq!(group_id("g/jobs/+"), GROUP_ID);
}

#[test]
fn queues_are_shared_out_evenly() {
    let mut timeline = Timeline::default();
    for node in ["b", "c", "a"] {
        say(&mut timeline, node, 1, &[(GROUP, 0)], 0, 1_000);
    }
    let owners = owners(&timeline, 1, 9_000);
    for node in ["a", "b", "c"] {
        let count = owners.iter().filter(|owner| **owner == node).count();
        assert!((2..=3).contains(&count), "{owners:?}");
    }
}
