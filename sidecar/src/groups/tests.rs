use super::*;

const KEY: &str = "g/jobs/+";
const SINCE: Since = Since {
    at_ms: 100_000,
    downlink_position: 500,
    uplink_position: 50,
};

fn queue(id: i32) -> Queue {
    Queue {
        topic: "T".into(),
        broker: "b".into(),
        id,
    }
}

fn message<'a>(queue: &'a Queue, offset: i64, stored_ms: i64) -> Message<'a> {
    Message {
        topic: "jobs/1",
        at: At {
            queue,
            offset,
            stored_ms,
        },
        passed_on: None,
        is_read_back: false,
    }
}

/// What a node says: the group or not, and up to where it has done all queues.
fn says(groups: &Groups, node: &str, takes_part: bool, done: i64, stored_ms: i64) -> Vec<Reread> {
    let named = [(group_id(KEY), 0)];
    let all = (0..8).map(|id| (("b".to_owned(), id), done));
    groups.heard(&Word {
        node,
        life: ("i", 1),
        groups: if takes_part { &named[..] } else { &[] },
        done: Arc::new(all.collect()),
        stored_ms,
    })
}

#[test]
fn the_first_node_reads_once_more_what_came_since_its_member_subscribed() {
    let groups = Groups::new("a");
    let queue = queue(0);
    for offset in 0..10 {
        assert!(
            groups
                .share_out(&message(&queue, offset, 100_000))
                .is_empty()
        );
    }
    groups.joined(KEY, SINCE);
    assert_eq!(groups.own_word().0, [(group_id(KEY), 0)]);
    // It has not yet heard itself.
    assert!(groups.share_out(&message(&queue, 10, 100_100)).is_empty());
    let rereads = says(&groups, "a", true, 0, 100_200);
    let [reread] = &rereads[..] else {
        panic!("{rereads:?}")
    };
    assert_eq!(groups.own_word().0, [(group_id(KEY), 100_200)]);
    let due =
        |offset, handed, own| groups.is_due(reread, &message(&queue, offset, 100_100), handed, own);
    assert!(due(10, Some(500), None) && due(10, None, Some(50)) && due(10, None, None));
    assert!(due(9, Some(500), None) && due(9, None, Some(50)));
    assert!(!due(9, Some(499), None) && !due(9, None, Some(49)));
    assert!(!due(11, Some(900), None), "it comes in its turn");
    assert_eq!(
        groups.share_out(&message(&queue, 11, 100_300)),
        [Share::Give(KEY.into())]
    );
    let other = Message {
        topic: "other",
        ..message(&queue, 12, 100_300)
    };
    assert!(groups.share_out(&other).is_empty());
    // Of what is read back only what was not judged before there was a member.
    for (offset, count) in [(9, 0), (11, 1)] {
        let read_back = Message {
            is_read_back: true,
            ..message(&queue, offset, 100_300)
        };
        assert_eq!(groups.share_out(&read_back).len(), count, "{offset}");
    }
}

/// Two nodes' judgements of the same messages.
#[test]
fn each_message_is_given_by_one_of_two_nodes_while_they_come_and_go() {
    let (a, b) = (Groups::new("a"), Groups::new("b"));
    a.joined(KEY, SINCE);
    let both = |node: &str, takes_part, ms| {
        says(&a, node, takes_part, 0, ms).len() + says(&b, node, takes_part, 0, ms).len()
    };
    assert_eq!(both("a", true, 100_000), 1);
    b.joined(KEY, SINCE);
    assert_eq!(both("b", true, 110_000), 0);
    b.left(KEY);
    let mut offset = 0;
    let mut counts = (0, 0, 0);
    for ms in (100_100..130_000).step_by(50) {
        if ms == 120_000 {
            assert_eq!(both("b", false, ms), 0);
        }
        offset += 1;
        for id in 0..8 {
            let queue = queue(id);
            let message = message(&queue, offset, ms);
            let (mut one, two) = (a.share_out(&message), b.share_out(&message));
            one.extend(two);
            match &one[..] {
                [Share::Give(_)] if !(113_000..123_000).contains(&ms) => counts.0 += 1,
                [Share::Give(_)] => counts.1 += 1,
                [Share::PassOn(_)] if (113_000..123_000).contains(&ms) => counts.2 += 1,
                other => panic!("{other:?} at {ms} in {id}"),
            }
            if one == [Share::PassOn(KEY.into())] {
                let passed_on = Some(PassedOn {
                    group: group_id(KEY),
                    from: "b",
                });
                let again = Message {
                    passed_on,
                    topic: "whatever",
                    ..message
                };
                assert_eq!(a.share_out(&again), [Share::Give(KEY.into())]);
                assert!(b.share_out(&again).is_empty());
            }
        }
    }
    assert!(counts.1 > 100 && counts.2 > 100, "{counts:?}");
    assert!(says(&b, "b", false, 0, 140_000).is_empty());
    assert!(b.own_word().0.is_empty());
    // What is read late is as much its own; also when the next member has come, and the node has not begun again.
    let late = |groups: &Groups| -> Vec<Share> {
        let shares = |id| groups.share_out(&message(&queue(id), 9_999, 122_950));
        (0..8).flat_map(shares).collect()
    };
    assert_eq!(late(&b), vec![Share::PassOn(KEY.into()); 4]);
    b.joined(KEY, SINCE);
    assert_eq!(late(&b), vec![Share::Give(KEY.into()); 4]);
}

#[test]
fn a_node_without_members_passes_on_what_it_has_a_share_of_however_late_it_reads_it() {
    let b = Groups::new("b");
    b.joined(KEY, SINCE);
    says(&b, "a", true, 0, 100_000);
    says(&b, "b", true, 0, 100_000);
    assert!(!b.passes_on(KEY));
    b.left(KEY);
    assert!(b.passes_on(KEY), "the others don't know yet");
    says(&b, "b", false, 0, 120_000);
    let late = || -> usize {
        let shares = |id| b.share_out(&message(&queue(id), 1, 122_950));
        (0..8).flat_map(shares).count()
    };
    // Its share ends at 123 s.
    for (judged_until_ms, is_held) in [(0, true), (127_999, true), (128_001, false)] {
        if judged_until_ms > 0 {
            b.judged_until(judged_until_ms);
        }
        says(&b, "b", false, 0, 900_000 + judged_until_ms);
        assert_eq!(b.passes_on(KEY), is_held, "{judged_until_ms}");
        assert_eq!(late(), if is_held { 4 } else { 0 }, "{judged_until_ms}");
    }
}

#[test]
fn what_a_node_left_undone_is_read_once_more_by_the_one_that_has_it_now() {
    let a = Groups::new("a");
    a.joined(KEY, SINCE);
    says(&a, "a", true, 0, 100_000);
    says(&a, "b", true, 0, 100_000);
    for second in 1..20 {
        says(&a, "b", true, second * 10, 100_000 + second * 1000);
    }
    let mut given = Vec::new();
    for offset in 0..200 {
        for id in 0..8 {
            let queue = queue(id);
            let stored_ms = 103_000 + offset * 100;
            let is_given = !a.share_out(&message(&queue, offset, stored_ms)).is_empty();
            given.push((id, offset, stored_ms, is_given));
        }
    }
    let rereads = a.gone("b");
    let [reread] = &rereads[..] else {
        panic!("{rereads:?}")
    };
    // Until it has read that, it has not done it either.
    let done = |groups: &Groups| -> Vec<i64> {
        let (_, done) = groups.own_word();
        done.iter().map(|(_, _, next)| *next).collect()
    };
    a.done(&queue(0), 500);
    a.done(&queue(1), 170);
    assert_eq!(done(&a), [180, 170]);
    for (id, offset, stored_ms, is_given) in given {
        let queue = queue(id);
        let is_due = a.is_due(reread, &message(&queue, offset, stored_ms), None, None);
        // Up to its last word but one it had done 180.
        assert_eq!(is_due, !is_given && offset >= 180, "{id} {offset}");
    }
    drop(rereads);
    assert_eq!(done(&a), [500, 170]);
    for id in 0..8 {
        assert_eq!(a.share_out(&message(&queue(id), 200, 140_000)).len(), 1);
    }
}
