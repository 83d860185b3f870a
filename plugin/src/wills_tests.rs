//! Each test is a sequence of callbacks as one of the brokers makes them.

use super::*;
use crate::events::NO_EXPIRY;
use crate::ffi::properties::BorrowedProperties;

const YES: Verdict<'static> = &|_| true;
const NO: Verdict<'static> = &|_| false;

struct Trace {
    tracker: WillTracker,
    wills: Vec<String>,
}

/// The id of each client is its address, unless a test says otherwise.
fn id_of(key: usize) -> &'static str {
    ["zero", "one", "two", "three", "four"][key]
}

fn publish(key: usize, topic: &'static str) -> Publish<'static> {
    publish_as(key, id_of(key), topic)
}

fn publish_as(key: usize, id: &'static str, topic: &'static str) -> Publish<'static> {
    Publish {
        client: Client {
            key,
            id,
            username: None,
            mqtt_version: 4,
        },
        topic,
        payload: b"last words",
        qos: 1,
        retain: false,
        properties: BorrowedProperties::NONE,
        expiry: NO_EXPIRY,
    }
}

impl Trace {
    fn new() -> Trace {
        Trace {
            tracker: WillTracker::new(),
            wills: Vec::new(),
        }
    }

    fn check_as(&mut self, key: usize, topic: &'static str, verdict: Verdict<'_>) -> &mut Self {
        let wills = &mut self.wills;
        let publish = publish(key, topic);
        let allowed = verdict(&Will::default());
        self.tracker
            .on_write_check(&publish, || allowed, verdict, &mut |w| {
                wills.push(w.topic().to_owned())
            });
        self
    }

    fn check_of(&mut self, key: usize, id: &'static str, topic: &'static str) -> &mut Self {
        let wills = &mut self.wills;
        let publish = publish_as(key, id, topic);
        self.tracker
            .on_write_check(&publish, || true, YES, &mut |w| {
                wills.push(w.topic().to_owned())
            });
        self
    }

    fn gone_of(&mut self, key: usize, id: &str) -> &mut Self {
        let wills = &mut self.wills;
        self.tracker
            .on_gone(key, id, YES, &mut |w| wills.push(w.topic().to_owned()));
        self
    }

    fn check(&mut self, key: usize, topic: &'static str) -> &mut Self {
        self.check_as(key, topic, YES)
    }

    fn message(&mut self, key: usize, topic: &'static str) -> &mut Self {
        let wills = &mut self.wills;
        self.tracker
            .on_message(&publish(key, topic), YES, &mut |w| {
                wills.push(w.topic().to_owned())
            });
        self
    }

    fn gone_as(&mut self, key: usize, verdict: Verdict<'_>) -> &mut Self {
        let wills = &mut self.wills;
        self.tracker.on_gone(key, id_of(key), verdict, &mut |w| {
            wills.push(w.topic().to_owned())
        });
        self
    }

    fn gone(&mut self, key: usize) -> &mut Self {
        self.gone_as(key, YES)
    }

    fn tick(&mut self) -> &mut Self {
        let wills = &mut self.wills;
        self.tracker
            .on_tick(YES, &mut |w| wills.push(w.topic().to_owned()));
        self
    }

    fn cleanup(&mut self) -> &[String] {
        let wills = &mut self.wills;
        self.tracker
            .on_cleanup(YES, &mut |w| wills.push(w.topic().to_owned()));
        &self.wills
    }
}

#[test]
fn a_lost_connection_sends_its_will() {
    let mut trace = Trace::new();
    trace
        .check(1, "t")
        .message(1, "t")
        .tick()
        .gone(1)
        .check(1, "will")
        .tick();
    assert_eq!(trace.wills, ["will"]);
}

#[test]
fn a_clean_disconnect_sends_none() {
    let mut trace = Trace::new();
    trace.check(1, "t").message(1, "t").tick().gone(1).tick();
    assert!(trace.cleanup().is_empty());
}

#[test]
fn a_delayed_will_is_found_ticks_later() {
    let mut trace = Trace::new();
    trace
        .gone(1)
        .tick()
        .tick()
        .check(2, "t")
        .message(2, "t")
        .tick()
        .check(1, "will")
        .check(2, "t");
    assert_eq!(trace.wills, ["will"]);
}

#[test]
fn two_wills_in_a_row_are_both_found() {
    let mut trace = Trace::new();
    trace.gone(1).gone(2).check(1, "a").check(2, "b").tick();
    assert_eq!(trace.wills, ["a", "b"]);
}

#[test]
fn a_new_client_at_an_old_address_publishes_ordinarily() {
    let mut trace = Trace::new();
    trace
        .gone(1)
        .tick()
        .check(1, "t")
        .message(1, "t")
        .tick()
        .check(1, "t")
        .message(1, "t")
        .tick();
    assert!(trace.cleanup().is_empty());
}

#[test]
fn a_subscribe_shows_that_the_address_lives_again() {
    let mut trace = Trace::new();
    trace.gone(1).tick();
    trace.tracker.on_alive(1);
    trace.check(1, "refused").tick();
    assert!(trace.cleanup().is_empty());
}

#[test]
fn what_a_returning_session_had_half_sent_is_no_will_where_another_client_was() {
    let mut trace = Trace::new();
    // A connection that was only opened and closed, as health checks do.
    trace
        .gone_of(1, "")
        .check_of(1, "device", "half sent")
        .tick();
    // A client of another id.
    trace
        .gone_of(2, "other")
        .check_of(2, "device", "half sent")
        .tick();
    // The same device, whose session went on in another place since.
    trace
        .gone_of(3, "device")
        .tick()
        .gone_of(4, "device")
        .check_of(3, "device", "half sent")
        .tick();
    assert!(trace.cleanup().is_empty(), "{:?}", trace.wills);
}

#[test]
fn the_newest_record_of_a_client_still_sends_its_will() {
    let mut trace = Trace::new();
    trace
        .gone_of(1, "device")
        .gone_of(2, "device")
        .gone_of(3, "other")
        .check_of(2, "device", "will")
        .tick()
        .check_of(3, "other", "another will")
        .tick();
    assert_eq!(trace.wills, ["will", "another will"]);
}

#[test]
fn a_session_taken_over_sends_the_will_of_the_connected_client() {
    let mut trace = Trace::new();
    trace
        .check(1, "t")
        .message(1, "t")
        .tick()
        .check(1, "will")
        .gone(1)
        .tick();
    assert_eq!(trace.wills, ["will"]);
}

#[test]
fn deliveries_of_a_will_don_t_hide_that_its_session_was_taken_over() {
    let mut trace = Trace::new();
    trace.check(1, "will");
    assert!(trace.tracker.is_being_delivered("will"));
    assert!(!trace.tracker.is_being_delivered("another"));
    trace.gone(1).tick();
    assert_eq!(trace.wills, ["will"]);
    // A publish has its MESSAGE before it is delivered.
    trace.check(2, "t").message(2, "t");
    assert!(!trace.tracker.is_being_delivered("t"));
}

#[test]
fn a_will_that_others_deny_is_not_sent() {
    let mut trace = Trace::new();
    trace.gone(1).check_as(1, "denied", NO).tick();
    trace.check(2, "denied").gone_as(2, NO).tick();
    assert!(trace.cleanup().is_empty());
}

#[test]
fn a_refused_publish_is_no_will_when_the_client_leaves_later() {
    let mut trace = Trace::new();
    trace.check(1, "refused").tick().gone(1).tick();
    assert!(trace.cleanup().is_empty());
}

#[test]
fn the_end_of_the_broker_sends_the_wills_of_connected_clients() {
    let mut trace = Trace::new();
    trace
        .check(3, "refused before")
        .tick()
        .check(1, "a")
        .check(2, "b");
    assert_eq!(trace.cleanup(), ["a", "b"]);
}

#[test]
fn a_message_longer_than_any_will_is_not_copied() {
    let mut trace = Trace::new();
    let long = vec![0; WILL_BYTES_MAX + 1];
    let mut publish = publish(1, "t");
    publish.payload = Box::leak(long.into_boxed_slice());
    trace.gone(1);
    trace
        .tracker
        .on_write_check(&publish, || true, YES, &mut |_| {
            panic!("no will is that long")
        });
    assert!(trace.tick().cleanup().is_empty());
}

#[test]
fn looking_at_publishes_allocates_nothing() {
    use crate::test_alloc::allocations;
    let mut tracker = WillTracker::new();
    let mut run = |times: usize| {
        for _ in 0..times {
            let publish = publish(1, "sensors/temperature");
            tracker.on_write_check(&publish, || true, YES, &mut |_| panic!("no will"));
            tracker.on_message(&publish, YES, &mut |_| panic!("no will"));
        }
    };
    run(1);
    let before = allocations();
    run(10_000);
    assert_eq!(allocations() - before, 0);
}
