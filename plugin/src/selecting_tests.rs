use protocol::message::{ClientIdBuffer, QoS};

use super::*;

fn look<'a>(topic: &'a str, payload: &'a [u8]) -> Look<'a> {
    Look {
        topic,
        payload,
        qos: 1,
    }
}

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message {
        topic,
        payload,
        qos: QoS::AtLeastOnce,
        ..Message::default()
    }
}

fn takes(selecting: &mut Selecting, message: &Message<'_>, clients: &[&str]) -> bool {
    let mut ids = ClientIdBuffer::default();
    clients.iter().for_each(|id| ids.push(id).expect("short"));
    selecting.takes(message, ids.as_ids())
}

#[test]
fn those_who_are_meant_get_it_and_nobody_else() {
    let mut selecting = Selecting::new();
    assert!(takes(&mut selecting, &message("t", b"1"), &["a", "b"]));
    assert!(takes(&mut selecting, &message("t", b"2"), &["c"]));
    let mut may =
        |payload: &[u8], client: &str| selecting.may_read(&look("t", payload), client, None);
    assert!(may(b"1", "a") && may(b"1", "b") && !may(b"1", "c"));
    assert!(may(b"2", "c") && !may(b"2", "a"));
    assert!(may(b"3", "a"), "it is of somebody else");
    selecting.begin_tick();
    assert!(selecting.may_read(&look("t", b"1"), "c", None));
}

#[test]
fn a_tick_has_either_selected_messages_or_others_and_none_that_look_alike() {
    let mut selecting = Selecting::new();
    assert!(takes(&mut selecting, &message("t", b"1"), &["a"]));
    assert!(!takes(&mut selecting, &message("t", b"1"), &["b"]));
    assert!(!selecting.takes_others());
    selecting.begin_tick();
    assert!(selecting.takes_others() && selecting.takes_others());
    assert!(!takes(&mut selecting, &message("t", b"1"), &["b"]));
}

#[test]
fn what_a_client_publishes_is_not_taken_for_what_looks_like_it() {
    let mut selecting = Selecting::new();
    assert!(takes(&mut selecting, &message("t", b"1"), &["a"]));
    selecting.publishes(&look("t", b"1"));
    assert!(selecting.may_read(&look("t", b"1"), "c", None));
    selecting.is_interrupted();
    assert!(!selecting.may_read(&look("t", b"1"), "c", None));
    // Not injected after all.
    selecting.take_back();
    assert!(!selecting.is_waiting());
}

#[test]
fn a_tick_has_so_many_that_comparing_them_takes_no_time() {
    let mut selecting = Selecting::new();
    let numbers: Vec<String> = (0..=MESSAGES_MAX)
        .map(|number| number.to_string())
        .collect();
    let mut taken = numbers
        .iter()
        .map(|number| takes(&mut selecting, &message("t", number.as_bytes()), &["a"]));
    assert!(taken.by_ref().take(MESSAGES_MAX).all(|taken| taken));
    assert_eq!(taken.next(), Some(false));
}
