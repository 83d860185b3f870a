//! The log is real, the broker is a list.

use std::cell::RefCell;

use handoff::{AppendError, LogOptions, Writer};
use protocol::message::{Command, Message, QoS, Returned};

#[path = "downlink_selected_tests.rs"]
mod selected;

use super::*;
use crate::cluster::Close;
use crate::inject::InjectError;
use crate::uplink::now_ms;

const ALL: Allowance = Allowance {
    messages: u32::MAX,
    bytes: u64::MAX,
};

#[derive(Default)]
struct Broker {
    taken: RefCell<Vec<(String, Option<u32>)>>,
    refuse: bool,
}

/// The way back.
#[derive(Default)]
struct Back {
    returned: Vec<(String, Vec<u8>)>,
    full: bool,
}

impl GiveBack for Back {
    fn give_back(&mut self, returned: &Returned<'_>) -> Result<(), AppendError> {
        if self.full {
            return Err(AppendError::Full);
        }
        self.returned
            .push((returned.reason.to_owned(), returned.payload.to_vec()));
        Ok(())
    }
}

impl Injector for Broker {
    fn inject(&self, message: &Message<'_>, expiry_s: Option<u32>) -> Result<(), InjectError> {
        if self.refuse {
            return Err(InjectError::Refused(1));
        }
        let to = match message.client_id {
            "" => message.topic.to_owned(),
            client => format!("{} for {client} {}", message.topic, message.qos.as_u8()),
        };
        self.taken.borrow_mut().push((to, expiry_s));
        Ok(())
    }
}

struct Setup {
    dir: tempfile::TempDir,
    writer: Writer,
    downlink: Downlink,
    counters: Rc<Counters>,
    allowed: Allowance,
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
    let downlink = Downlink::new(
        dir.path().join("downlink"),
        Duration::ZERO,
        Rc::clone(&counters),
    );
    Setup {
        dir,
        writer,
        downlink,
        counters,
        allowed: Allowance {
            messages: per_tick,
            bytes: u64::MAX,
        },
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
    let first = setup
        .downlink
        .tick(&broker, &mut Back::default(), setup.allowed, None);
    assert_eq!(
        first,
        Drained {
            again: true,
            opened: true
        }
    );
    assert_eq!(broker.taken.borrow().len(), 2);
    assert!(setup.downlink.has_more());
    assert!(
        setup
            .downlink
            .tick(&broker, &mut Back::default(), setup.allowed, None)
            .again
    );
    assert!(
        !setup
            .downlink
            .tick(&broker, &mut Back::default(), setup.allowed, None)
            .again
    );
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
fn a_tick_injects_a_bounded_number_of_bytes() {
    let mut setup = setup(10);
    for payload in [&[0; 3000][..], &[0; 3000], &[0; 10]] {
        append(
            &mut setup.writer,
            &Message {
                payload,
                ..message("a")
            },
        );
    }
    let broker = Broker::default();
    let small = |bytes| Allowance { bytes, ..ALL };
    setup
        .downlink
        .tick(&broker, &mut Back::default(), small(1000), None);
    assert_eq!(broker.taken.borrow().len(), 1, "one at least");
    setup
        .downlink
        .tick(&broker, &mut Back::default(), small(0), None);
    assert_eq!(broker.taken.borrow().len(), 1, "but none when none may be");
    setup
        .downlink
        .tick(&broker, &mut Back::default(), small(3500), None);
    assert_eq!(broker.taken.borrow().len(), 3);
}

#[test]
fn what_a_tick_injected_is_given_back_in_the_next_one() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("a"));
    let start = setup.writer.released();
    let broker = Broker::default();
    setup
        .downlink
        .tick(&broker, &mut Back::default(), setup.allowed, None);
    assert_eq!(
        setup.writer.released(),
        start,
        "the broker has only queued it"
    );
    setup
        .downlink
        .tick(&broker, &mut Back::default(), setup.allowed, None);
    assert_eq!(setup.writer.released(), setup.writer.end());
}

#[test]
fn a_broker_killed_after_a_tick_gets_the_messages_again() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("a"));
    let broker = Broker::default();
    setup
        .downlink
        .tick(&broker, &mut Back::default(), setup.allowed, None);
    let dir = setup.dir.path().join("downlink");
    drop(setup.downlink);
    let mut next = Downlink::new(dir, Duration::ZERO, Rc::clone(&setup.counters));
    next.tick(&broker, &mut Back::default(), setup.allowed, None);
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
    let mut back = Back::default();
    setup.downlink.tick(&broker, &mut back, setup.allowed, None);
    let taken = broker.taken.borrow().clone();
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert_eq!(taken[0].0, "alive");
    assert!(
        taken[0].1.is_some_and(|left| (45..=50).contains(&left)),
        "{taken:?}"
    );
    assert_eq!(taken[1], ("last".to_owned(), None));
    assert_eq!(setup.counters.get(count::DOWNLINK_FAILED), 2);
    assert_eq!(setup.counters.get(count::DOWNLINK_EXPIRED), 1);
    assert_eq!(setup.counters.get(count::DOWNLINK_CORRUPT), 0);
    assert_eq!(setup.counters.get(count::DOWNLINK_INJECTED), 2);
    let [wildcard, unreadable] = &back.returned[..] else {
        panic!("{:?}", back.returned)
    };
    assert!(wildcard.0.contains("topic"), "{}", wildcard.0);
    let whole = Message::decode(&wildcard.1).expect("the message as it was");
    assert_eq!(whole.topic, "with/+/wildcard");
    assert!(unreadable.0.contains("can't be read"), "{}", unreadable.0);
    assert_eq!(unreadable.1, b"not a message");
}

#[test]
fn a_refusal_of_the_broker_is_final() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("a"));
    let broker = Broker {
        refuse: true,
        ..Broker::default()
    };
    assert!(
        setup
            .downlink
            .tick(&broker, &mut Back::default(), setup.allowed, None)
            .again
    );
    assert!(
        !setup
            .downlink
            .tick(&broker, &mut Back::default(), setup.allowed, None)
            .again
    );
    assert_eq!(setup.counters.get(count::DOWNLINK_FAILED), 1);
    assert_eq!(setup.writer.released(), setup.writer.end());
}

#[test]
fn what_can_neither_be_injected_nor_given_back_waits_and_everything_behind_it() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("before"));
    append(&mut setup.writer, &message("with/+/wildcard"));
    append(&mut setup.writer, &message("behind"));
    let broker = Broker::default();
    let mut back = Back {
        full: true,
        ..Back::default()
    };
    for _ in 0..3 {
        setup.downlink.tick(&broker, &mut back, setup.allowed, None);
    }
    assert!(
        !setup.downlink.has_more(),
        "or the broker would never sleep"
    );
    assert_eq!(setup.counters.get(count::DOWNLINK_INJECTED), 1);
    assert_eq!(setup.counters.get(count::DOWNLINK_FAILED), 0);
    assert!(setup.writer.released() < setup.writer.end());
    back.full = false;
    let deadline = Instant::now() + Duration::from_secs(60);
    while setup.writer.released() < setup.writer.end() {
        assert!(Instant::now() < deadline, "it goes on");
        setup.downlink.tick(&broker, &mut back, setup.allowed, None);
    }
    let topics: Vec<String> = broker
        .taken
        .borrow()
        .iter()
        .map(|(t, _)| t.clone())
        .collect();
    assert_eq!(topics, ["before", "behind"], "each once");
    assert_eq!(back.returned.len(), 1);
    assert_eq!(setup.counters.get(count::DOWNLINK_FAILED), 1);
}

#[test]
fn without_a_log_there_is_nothing_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut downlink = Downlink::new(dir.path().join("downlink"), Duration::ZERO, counters(&dir));
    assert_eq!(
        downlink.tick(&Broker::default(), &mut Back::default(), ALL, None),
        Drained::default()
    );
    assert!(downlink.waiter().is_none());
}

#[test]
fn a_command_is_noted_and_counted_once_in_its_place_among_the_messages() {
    let mut setup = setup(10);
    append(&mut setup.writer, &message("before"));
    let command = Command::Close {
        client_id: "device",
        login: 7,
        reason: 0x8E,
        at_ms: 1,
    };
    let mut frame = vec![0; command.encoded_len()];
    command.encode_into(&mut frame);
    setup.writer.append(&frame).expect("room");
    // One that this version does not know.
    frame[1] = 99;
    setup.writer.append(&frame).expect("room");
    append(&mut setup.writer, &message("behind"));
    let broker = Broker::default();
    let mut back = Back::default();
    assert_eq!(setup.downlink.position(), 0);
    setup.downlink.tick(&broker, &mut back, setup.allowed, None);
    let close = Close {
        client_id: "device".to_owned(),
        login: 7,
        reason: 0x8E,
    };
    assert_eq!(setup.downlink.commands.closes, [close]);
    assert_eq!(setup.downlink.position(), setup.writer.end());
    assert_eq!(broker.taken.borrow().len(), 2);
    assert_eq!(back.returned.len(), 1);
    let ends = count::DOWNLINK_ENDS.iter();
    let ended: u64 = ends.map(|end| setup.counters.get(*end)).sum();
    assert_eq!(ended, 4);
    assert_eq!(setup.counters.get(count::DOWNLINK_COMMANDS), 1);
}
