//! Processes that end: the sidecar, Mosquitto, both; in order or not. What was acknowledged arrives.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use harness::ledger::{self, Load, Number};
use harness::probe::{Reader, unique};
use harness::wait::comes_true;
use harness::{
    Broker, BrokerSpec, ClientOptions, Mosquitto, Produced, Publication, Topic, Version,
    eventually, proc,
};

use crate::downlink::from_earliest;

const PAUSE: Duration = Duration::from_millis(2);
/// SIGTERM to the end. The sidecar's own limit for its drain is 5 s.
const END_LIMIT: Duration = Duration::from_secs(20);

fn broker(topic: &Topic) -> Broker {
    BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("load/+ {} key=%c", topic.name()))
        .start()
}

/// Nothing acknowledged is lost, first arrivals are in order, and a repetition can be told by its identity.
#[track_caller]
fn assert_kept(acknowledged: &BTreeSet<Number>, reader: &mut Reader) {
    let counted = ledger::settle(acknowledged, reader);
    assert_eq!(counted.lost, Vec::new());
    assert_eq!(counted.reordered, 0, "{counted:?}");
    let mut identities: HashMap<&[u8], BTreeSet<&str>> = HashMap::new();
    for stored in &reader.messages {
        let identity = stored
            .property("mqtt_id")
            .expect("each message has its identity");
        identities.entry(&stored.body).or_default().insert(identity);
    }
    assert!(
        identities.values().all(|identities| identities.len() == 1),
        "a repetition has another identity"
    );
}

#[test]
fn nothing_acknowledged_is_lost_when_the_sidecar_is_killed_under_load() {
    let topic = Topic::shared("KILL_SIDECAR", 4);
    let mut broker = broker(&topic);
    let load = Load::start(broker.port, Version::V311, "load", 4, PAUSE);
    for _ in 0..3 {
        load.wait_for_more(200);
        let old = broker.kill_sidecar();
        // The broker does not notice: acknowledgements go on while there is no sidecar.
        load.wait_for_more(100);
        eventually("another sidecar runs", || {
            let pids = proc::sidecars(&broker.spool_dir());
            (pids.len() == 1 && pids[0] != old).then_some(())
        });
    }
    load.wait_for_more(200);
    let acknowledged = load.stop();
    assert_kept(&acknowledged, &mut topic.reader());
    assert!(broker.is_running());
    assert_eq!(proc::zombies_of(broker.pid()), Vec::<u32>::new());
}

#[test]
fn what_comes_down_survives_the_death_of_the_sidecar() {
    const COUNT: usize = 3_000;
    let topic = Topic::shared("KILL_SIDECAR_DOWN", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} down/%k qos=1", topic.name()))
        .start();
    let client = broker.client(Version::V5, "watcher");
    client.subscribe("down/#", 1);
    let producer = {
        let topic = topic.clone();
        std::thread::spawn(move || {
            for number in 0..COUNT {
                topic.produce(&[Produced::new(number.to_string()).keys("k")]);
            }
            topic.produce(&[Produced::new("end").keys("k")]);
        })
    };
    let mut first_arrivals = Vec::new();
    let mut seen = BTreeSet::new();
    let mut doubled = 0;
    loop {
        let message = client.receive();
        let text = message.text();
        if text == "end" {
            break;
        }
        let number: usize = text.parse().expect("a number");
        if seen.insert(number) {
            first_arrivals.push(number);
        } else {
            doubled += 1;
        }
        if [500, 1_500, 2_500].contains(&first_arrivals.len())
            && seen.contains(&number)
            && number == first_arrivals.len() - 1
        {
            broker.kill_sidecar();
        }
    }
    producer.join().expect("the producer");
    assert_eq!(
        first_arrivals,
        (0..COUNT).collect::<Vec<_>>(),
        "all, in order"
    );
    // At least once is what is promised; but only what was on its way when it died may come again.
    assert!(doubled < 500, "{doubled} came again");
    assert_eq!(proc::zombies_of(broker.pid()), Vec::<u32>::new());
}

#[test]
fn nothing_acknowledged_is_lost_when_mosquitto_is_killed_under_load_and_no_sidecar_is_left_over() {
    let topic = Topic::shared("KILL_MOSQUITTO", 4);
    let mut broker = broker(&topic);
    let load = Load::start(broker.port, Version::V5, "load", 4, PAUSE);
    for _ in 0..3 {
        load.wait_for_more(300);
        let orphan = broker.sidecar_pid();
        broker.kill();
        let gone = comes_true(END_LIMIT, || !proc::is_alive(orphan));
        assert!(gone, "the sidecar {orphan} outlives its Mosquitto");
        broker.start();
    }
    load.wait_for_more(300);
    let acknowledged = load.stop();
    assert_kept(&acknowledged, &mut topic.reader());
}

#[test]
fn nothing_acknowledged_is_lost_when_mosquitto_and_the_sidecar_are_killed_at_once() {
    let topic = Topic::shared("KILL_BOTH", 4);
    let mut broker = broker(&topic);
    let load = Load::start(broker.port, Version::V311, "load", 4, PAUSE);
    for _ in 0..3 {
        load.wait_for_more(300);
        let sidecar = broker.sidecar_pid();
        proc::signal(broker.pid(), libc::SIGKILL);
        proc::signal(sidecar, libc::SIGKILL);
        broker.kill();
        // Started again at once, as a service manager would.
        broker.start();
    }
    load.wait_for_more(300);
    let acknowledged = load.stop();
    assert_kept(&acknowledged, &mut topic.reader());
}

#[test]
fn a_restart_in_order_loses_nothing_and_takes_seconds() {
    let topic = Topic::shared("RESTART", 4);
    let mut broker = broker(&topic);
    let load = Load::start(broker.port, Version::V311, "load", 4, PAUSE);
    for _ in 0..2 {
        load.wait_for_more(300);
        let sidecar = broker.sidecar_pid();
        let (status, took) = broker.terminate();
        assert!(status.success(), "{status}");
        assert!(took < END_LIMIT, "SIGTERM took {took:?}");
        assert!(
            !proc::is_alive(sidecar),
            "Mosquitto has ended and its sidecar has not"
        );
        broker.start();
    }
    load.wait_for_more(300);
    let acknowledged = load.stop();
    assert_kept(&acknowledged, &mut topic.reader());
}

#[test]
fn sigterm_ends_it_in_seconds_while_rocketmq_is_away_and_the_spool_is_kept() {
    let topic = Topic::shared("TERM_AWAY", 1);
    let nowhere = format!("127.0.0.1:{}", harness::broker::free_port());
    let dir = tempfile::tempdir().expect("a folder");
    let spool = dir.path().join("spool").display().to_string();
    let node = unique("term").to_lowercase().replace('_', "-");
    let spec = |namesrv: &str| {
        BrokerSpec::new(Mosquitto::V2_0_11)
            .option("namesrv", namesrv)
            .option("spool_dir", &spool)
            .option("node_id", &node)
            .uplink(format!("t/# {}", topic.name()))
    };
    let mut away = spec(&nowhere).without_waiting_for_rocketmq().start();
    let client = away.client(Version::V5, "term");
    for number in 0..200 {
        client.publish(Publication::new("t/x", number.to_string()));
    }
    let sidecar = away.sidecar_pid();
    let (status, took) = away.terminate();
    assert!(status.success(), "{status}");
    assert!(took < END_LIMIT, "SIGTERM took {took:?}");
    assert!(
        !proc::is_alive(sidecar),
        "Mosquitto has ended and its sidecar has not"
    );
    drop(away);
    // The same spool on a broker that reaches RocketMQ.
    let _broker = spec(&harness::environment::shared_namesrv()).start();
    let mut reader = topic.reader();
    reader.wait_for(200);
    assert_eq!(
        reader.texts(),
        (0..200)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_sidecar_that_is_told_to_end_is_started_again() {
    let topic = Topic::shared("TERM_SIDECAR", 1);
    let broker = broker(&topic);
    let old = broker.sidecar_pid();
    proc::signal(old, libc::SIGTERM);
    eventually("another sidecar runs", || {
        proc::sidecars(&broker.spool_dir())
            .into_iter()
            .find(|pid| *pid != old)
    });
    broker
        .client(Version::V311, "x")
        .publish(Publication::new("load/x", "after"));
    topic.reader().wait_for_body(b"after");
    assert_eq!(proc::zombies_of(broker.pid()), Vec::<u32>::new());
}

#[test]
fn the_broker_serves_while_the_sidecar_hangs_and_nothing_is_lost() {
    let topic = Topic::shared("HANG", 1);
    let broker = broker(&topic);
    let sidecar = broker.sidecar_pid();
    proc::signal(sidecar, libc::SIGSTOP);
    let client = broker.connect(&ClientOptions::new(Version::V5, "hang"));
    client.subscribe("load/#", 0);
    for number in 0..2_000 {
        client.publish(Publication::new("load/x", number.to_string()));
    }
    proc::signal(sidecar, libc::SIGCONT);
    let mut reader = topic.reader();
    reader.wait_for(2_000);
    assert_eq!(
        reader.texts(),
        (0..2_000)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    );
}
