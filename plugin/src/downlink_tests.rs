//! The log is real, the broker is a list.

use std::cell::RefCell;

use handoff::{LogOptions, Writer};
use protocol::message::QoS;

use super::*;

#[derive(Default)]
struct Broker {
    taken: RefCell<Vec<(String, Option<u32>)>>,
    refuse: bool,
}

impl Injector for Broker {
    fn inject(&self, message: &Message<'_>, expiry_s: Option<u32>) -> Result<(), InjectError> {
        if self.refuse {
            return Err(InjectError::Refused(1));
        }
        self.taken
            .borrow_mut()
            .push((message.topic.to_owned(), expiry_s));
        Ok(())
    }
}

struct Setup {
    dir: tempfile::TempDir,
    writer: Writer,
    downlink: Downlink,
    counters: Rc<Counters>,
}

fn counters(dir: &tempfile::TempDir) -> Rc<Counters> {
    Rc::new(Counters::create(&dir.path().join("counters"), count::COUNT).expect("counters"))
}

fn setup(per_tick: u32) -> Setup {
    let dir = tempfile::tempdir().expect("a directory");
    let options = LogOptions {
        segment_bytes: 64 << 10,
        bytes_max: 1 << 20,
        ..LogOptions::default()
    };
    let writer = Writer::open(&dir.path().join("downlink"), &options).expect("a log");
    let counters = counters(&dir);
    let downlink = Downlink::new(dir.path().join("downlink"), per_tick, Rc::clone(&counters));
    Setup {
        dir,
        writer,
        downlink,
        counters,
    }
}

fn append(writer: &mut Writer, message: &Message<'_>) {
    writer
        .append_with(message.encoded_len(), |frame| message.encode_into(frame))
        .expect("room");
}

fn message(topic: &str) -> Message<'_> {
    Message {
        topic,
        qos: QoS::AtLeastOnce,
        received_at_ms: now_ms(),
        ..Message::default()
    }
}

#[test]
fn a_tick_injects_a_bounded_number_in_order() {
    let mut setup = setup(2);
    for topic in ["a", "b", "c"] {
        append(&mut setup.writer, &message(topic));
    }
    let broker = Broker::default();
    let first = setup.downlink.tick(&broker);
    assert_eq!(
        first,
        Drained {
            again: true,
            opened: true
        }
    );
    assert_eq!(broker.taken.borrow().len(), 2);
    assert!(setup.downlink.has_more());
    assert!(setup.downlink.tick(&broker).again);
    assert!(!setup.downlink.tick(&broker).again);
    let topics: Vec<String> = broker
        .taken
        .borrow()
        .iter()
        .map(|(topic, _)| topic.clone())
        .collect();
    assert_eq!(topics, ["a", "b", "c"]);
    assert_eq!(setup.counters.get(count::DOWNLINK_INJECTED), 3);
}

#[test]
fn what_a_tick_injected_is_given_back_in_the_next_one() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("a"));
    let start = setup.writer.released();
    let broker = Broker::default();
    setup.downlink.tick(&broker);
    assert_eq!(
        setup.writer.released(),
        start,
        "the broker has only queued it"
    );
    setup.downlink.tick(&broker);
    assert_eq!(setup.writer.released(), setup.writer.end());
}

#[test]
fn a_broker_killed_after_a_tick_gets_the_messages_again() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("a"));
    let broker = Broker::default();
    setup.downlink.tick(&broker);
    let dir = setup.dir.path().join("downlink");
    drop(setup.downlink);
    let mut next = Downlink::new(dir, 10, Rc::clone(&setup.counters));
    next.tick(&broker);
    assert_eq!(broker.taken.borrow().len(), 2);
}

#[test]
fn what_cannot_be_injected_is_counted_and_does_not_stop_the_rest() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("with/+/wildcard"));
    append(
        &mut setup.writer,
        &Message {
            expiry_s: Some(5),
            received_at_ms: now_ms() - 6_000,
            ..message("late")
        },
    );
    append(
        &mut setup.writer,
        &Message {
            expiry_s: Some(60),
            received_at_ms: now_ms() - 10_500,
            ..message("alive")
        },
    );
    setup.writer.append(b"not a message").expect("room");
    append(&mut setup.writer, &message("last"));
    let broker = Broker::default();
    setup.downlink.tick(&broker);
    let taken = broker.taken.borrow().clone();
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert_eq!(taken[0].0, "alive");
    assert!(
        taken[0].1.is_some_and(|left| (45..=50).contains(&left)),
        "{taken:?}"
    );
    assert_eq!(taken[1], ("last".to_owned(), None));
    assert_eq!(setup.counters.get(count::DOWNLINK_FAILED), 2);
    assert_eq!(setup.counters.get(count::DOWNLINK_CORRUPT), 1);
    assert_eq!(setup.counters.get(count::DOWNLINK_INJECTED), 2);
}

#[test]
fn a_refusal_of_the_broker_is_final() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("a"));
    let broker = Broker {
        refuse: true,
        ..Broker::default()
    };
    assert!(setup.downlink.tick(&broker).again);
    assert!(!setup.downlink.tick(&broker).again);
    assert_eq!(setup.counters.get(count::DOWNLINK_FAILED), 1);
    assert_eq!(setup.writer.released(), setup.writer.end());
}

#[test]
fn without_a_log_there_is_nothing_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut downlink = Downlink::new(dir.path().join("downlink"), 10, counters(&dir));
    assert_eq!(downlink.tick(&Broker::default()), Drained::default());
    assert!(downlink.waiter().is_none());
}
