//! What only some of its subscribers are to get, or none.

use protocol::message::{Audience, ClientIdBuffer, ClientIds, Selected};

use super::*;
use crate::selecting::Look;

fn append_selected(writer: &mut Writer, audience: Audience<'_>, message: Message<'_>) {
    let selected = Selected { audience, message };
    writer
        .append_with(selected.encoded_len(), |frame| selected.encode_into(frame))
        .expect("room");
}

fn topics(broker: &Broker) -> Vec<String> {
    let taken = broker.taken.borrow();
    taken.iter().map(|(topic, _)| topic.clone()).collect()
}

#[test]
fn what_is_for_some_is_not_injected_beside_what_is_for_all() {
    let mut setup = setup(10);
    setup.downlink.set_selects(true);
    let mut ids = ClientIdBuffer::default();
    ids.push("a").expect("short");
    let some = Audience::Clients(ids.as_ids());
    append(&mut setup.writer, &message("all"));
    append_selected(&mut setup.writer, some, message("some"));
    append_selected(&mut setup.writer, some, message("some more"));
    append(&mut setup.writer, &message("all again"));
    let broker = Broker::default();
    let back = &mut Back::default();
    for taken in [1, 3, 4] {
        let drained = setup.downlink.tick(&broker, back, setup.allowed, None);
        assert!(drained.again);
        assert_eq!(broker.taken.borrow().len(), taken);
    }
    assert_eq!(topics(&broker), ["all", "some", "some more", "all again"]);
    assert!(back.returned.is_empty());
}

#[test]
fn where_nothing_can_be_kept_from_others_it_is_given_back() {
    let mut setup = setup(10);
    let mut ids = ClientIdBuffer::default();
    ids.push("a").expect("short");
    append_selected(
        &mut setup.writer,
        Audience::Clients(ids.as_ids()),
        message("some"),
    );
    let broker = Broker::default();
    let mut back = Back::default();
    setup.downlink.tick(&broker, &mut back, setup.allowed, None);
    assert!(topics(&broker).is_empty());
    assert!(back.returned[0].0.contains("before all others"));
}

/// Two members, as long as there are any.
struct Two(u32);

impl Members for Two {
    fn next(&mut self, key: &str, message: &Message<'_>) -> Option<(Box<str>, QoS)> {
        assert_eq!((key, message.topic), ("g/jobs/+", "jobs/1"));
        self.0 = self.0.checked_sub(1)?;
        Some((format!("m{}", self.0).into(), QoS::AtMostOnce))
    }
}

#[test]
fn what_is_for_a_group_is_for_the_member_whose_turn_it_is_or_comes_back() {
    let mut setup = setup(10);
    setup.downlink.set_selects(true);
    append(&mut setup.writer, &message("for all"));
    for _ in 0..3 {
        append_selected(
            &mut setup.writer,
            Audience::Group("g/jobs/+"),
            message("jobs/1"),
        );
    }
    append(&mut setup.writer, &message("behind"));
    let broker = Broker::default();
    let mut back = Back::default();
    let mut members = Two(2);
    setup
        .downlink
        .tick(&broker, &mut back, setup.allowed, Some(&mut members));
    let expected = ["for all", "jobs/1 for m1 0", "jobs/1 for m0 0", "behind"];
    assert_eq!(topics(&broker), expected);
    assert_eq!(back.returned.len(), 1);
    assert!(back.returned[0].0.contains("no member"));
}

/// How often each topic was injected, and in which of three ticks; and in which ticks a subscriber may not have what clears `late`.
fn three_ticks(setup: &mut Setup) -> (Vec<(i32, String)>, Vec<i32>) {
    let broker = Broker::default();
    let (mut injected, mut silent) = (Vec::new(), Vec::new());
    for tick in 0..3 {
        let (mut back, mut members) = (Back::default(), Two(0));
        setup
            .downlink
            .tick(&broker, &mut back, setup.allowed, Some(&mut members));
        assert!(back.returned.is_empty());
        let taken = std::mem::take(&mut *broker.taken.borrow_mut());
        injected.extend(taken.into_iter().map(|(topic, _)| (tick, topic)));
        let look = Look {
            topic: "late",
            payload: b"",
            qos: 0,
        };
        let selecting = &mut setup.downlink.selecting;
        if !selecting.may_read(&look, "subscriber", None) {
            silent.push(tick);
        }
    }
    (injected, silent)
}

fn in_ticks(expected: &[(i32, &str)]) -> Vec<(i32, String)> {
    let owned = expected
        .iter()
        .map(|(tick, topic)| (*tick, (*topic).to_owned()));
    owned.collect()
}

#[test]
fn a_retained_message_that_has_expired_takes_away_what_was_retained_before_it() {
    let expired = Message {
        retain: true,
        expiry_s: Some(5),
        received_at_ms: now_ms() - 6_000,
        ..message("late")
    };
    for selects in [true, false] {
        let mut setup = setup(10);
        setup.downlink.set_selects(selects);
        append(&mut setup.writer, &message("before"));
        append(&mut setup.writer, &expired);
        append(&mut setup.writer, &message("behind"));
        let (injected, silent) = three_ticks(&mut setup);
        match selects {
            true => {
                let expected = in_ticks(&[(0, "before"), (1, "late"), (2, "behind")]);
                assert_eq!((injected, silent), (expected, vec![1]));
            }
            // Everybody would be told.
            false => assert_eq!(injected, in_ticks(&[(0, "before"), (0, "behind")])),
        }
        assert_eq!(setup.counters.get(count::DOWNLINK_EXPIRED), 1);
        assert_eq!(setup.counters.get(count::DOWNLINK_INJECTED), 2);
    }
}

#[test]
fn what_is_for_nobody_is_injected_where_everybody_can_be_kept_from_it() {
    for selects in [true, false] {
        let mut setup = setup(10);
        setup.downlink.set_selects(selects);
        let nobody = Audience::Clients(ClientIds::NOBODY);
        append_selected(&mut setup.writer, nobody, message("late"));
        let (injected, silent) = three_ticks(&mut setup);
        match selects {
            true => assert_eq!((injected, silent), (in_ticks(&[(0, "late")]), vec![0])),
            false => assert!(injected.is_empty()),
        }
        assert_eq!(setup.counters.get(count::DOWNLINK_INJECTED), 1);
    }
}
