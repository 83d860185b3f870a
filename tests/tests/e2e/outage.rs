//! RocketMQ away: at start, or under load. These tests have a RocketMQ of their own, and take turns with it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use harness::ledger::{self, Load, payload};
use harness::probe::unique;
use harness::rocketmq::OwnRocketMq;
use harness::{BrokerSpec, Mosquitto, Produced, Publication, Topic, Version};

/// The RocketMQ that may be taken away. It ends when the last test that wants it has.
pub(crate) fn own() -> Arc<Mutex<OwnRocketMq>> {
    static OWN: Mutex<Weak<Mutex<OwnRocketMq>>> = Mutex::new(Weak::new());
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    own.upgrade().unwrap_or_else(|| {
        let made = Arc::new(Mutex::new(OwnRocketMq::stopped()));
        *own = Arc::downgrade(&made);
        made
    })
}

/// This test's turn. RocketMQ runs.
pub(crate) fn turn(own: &Mutex<OwnRocketMq>) -> MutexGuard<'_, OwnRocketMq> {
    // A test that failed leaves it in any state, which is no reason for the next one to fail.
    let mut rocketmq = own.lock().unwrap_or_else(PoisonError::into_inner);
    rocketmq.ensure_started();
    rocketmq
}

#[test]
fn what_was_acknowledged_before_rocketmq_was_there_arrives_when_it_is() {
    let own = own();
    let mut rocketmq = turn(&own);
    let namesrv = rocketmq.namesrv();
    let topic = Topic::create(&namesrv, &unique("AWAY_FIRST"), 4);
    let down = Topic::create(&namesrv, &unique("AWAY_DOWN"), 1);
    down.produce(&[Produced::new("waiting in RocketMQ").keys("k")]);
    rocketmq.kill();
    let mut broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("namesrv", &namesrv)
        .option("downlink_from", "earliest")
        .uplink(format!("away/+ {} key=%c", topic.name()))
        .downlink(format!("{} down/%k qos=1", down.name()))
        .without_waiting_for_rocketmq()
        .start();
    let mut sent = BTreeSet::new();
    let client = broker.client(Version::V311, "away-0");
    client.subscribe("down/#", 1);
    for sequence in 0..1_000 {
        let qos = if sequence % 2 == 0 { 1 } else { 2 };
        client.publish(Publication::new("away/0", payload((0, sequence))).qos(qos));
        sent.insert((0, sequence));
    }
    assert!(!broker.is_connected());
    rocketmq.start();
    let counted = ledger::settle(&sent, &mut topic.reader());
    assert_eq!((counted.lost, counted.reordered), (Vec::new(), 0));
    assert_eq!(client.receive().text(), "waiting in RocketMQ");
    broker.wait_until_connected();
    assert!(broker.is_running());
}

#[test]
fn nothing_acknowledged_is_lost_when_rocketmq_is_killed_under_load_and_comes_back() {
    let own = own();
    let mut rocketmq = turn(&own);
    let namesrv = rocketmq.namesrv();
    let topic = Topic::create(&namesrv, &unique("AWAY_LOAD"), 4);
    let down = Topic::create(&namesrv, &unique("AWAY_BACK"), 1);
    let mut broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("namesrv", &namesrv)
        .option("downlink_from", "earliest")
        .uplink(format!("away/+ {} key=%c", topic.name()))
        .downlink(format!("{} down/%k qos=1", down.name()))
        .start();
    let client = broker.client(Version::V5, "watcher");
    client.subscribe("down/#", 1);
    down.produce(&[Produced::new("before").keys("k")]);
    assert_eq!(client.receive().text(), "before");
    let load = Load::start(
        broker.port,
        Version::V5,
        "away",
        4,
        Duration::from_millis(2),
    );
    load.wait_for_more(500);
    rocketmq.kill();
    // The devices don't notice.
    load.wait_for_more(2_000);
    harness::eventually("status says that RocketMQ is away", || {
        (!broker.is_connected()).then_some(())
    });
    rocketmq.start();
    load.wait_for_more(500);
    let acknowledged = load.stop();
    let mut reader = topic.reader();
    let counted = ledger::settle(&acknowledged, &mut reader);
    assert_eq!((counted.lost, counted.reordered), (Vec::new(), 0));
    // And what comes down goes on too.
    down.produce(&[Produced::new("after").keys("k")]);
    assert_eq!(client.receive().text(), "after");
    broker.wait_until_connected();
    assert!(broker.is_running());
}
