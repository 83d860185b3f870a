//! The health tells the truth: RocketMQ, the sidecar or Mosquitto hangs; and every message ends in exactly one counter.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::ledger::{self, Load};
use harness::probe::unique;
use harness::rocketmq::Part;
use harness::{
    Broker, BrokerSpec, Mosquitto, Produced, Publication, Topic, Version, environment, eventually,
    proc, sums,
};
use serde_json::Value;

use crate::outage::{own, turn};

/// The exit code of `status` and what it printed.
fn status(broker: &Broker, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(environment::sidecar())
        .arg("status")
        .args(arguments)
        .arg("--spool-dir")
        .arg(broker.spool_dir())
        .output()
        .expect("the command");
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), text)
}

/// `status --json`, whoever answers.
fn report(broker: &Broker) -> Value {
    serde_json::from_str(&status(broker, &["--json"]).1).expect("JSON")
}

fn reasons(report: &Value) -> BTreeSet<String> {
    let reasons = report["health"]["reasons"].as_array();
    reasons
        .into_iter()
        .flatten()
        .filter_map(|reason| reason["what"].as_str().map(str::to_owned))
        .collect()
}

/// Waits until `what` is among the reasons; returns the status.
#[track_caller]
fn wait_for_reason(broker: &Broker, what: &str) -> Value {
    eventually(&format!("degraded for {what}"), || {
        let report = report(broker);
        reasons(&report).contains(what).then_some(report)
    })
}

#[track_caller]
fn wait_until_well(broker: &Broker) {
    eventually("all is well", || {
        (report(broker)["health"]["state"] == "ok").then_some(())
    });
}

#[test]
fn a_rocketmq_that_hangs_is_told_with_its_reason_and_what_waits_and_is_over_when_it_goes_on() {
    let own = own();
    let rocketmq = turn(&own);
    let namesrv = rocketmq.namesrv();
    let topic = Topic::create(&namesrv, &unique("HEALTH_HANG"), 4);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("namesrv", &namesrv)
        .uplink(format!("t/+ {} key=%c", topic.name()))
        .start();
    wait_until_well(&broker);
    assert_eq!(status(&broker, &["--check"]).0, Some(0));
    rocketmq.signal(Part::Broker, libc::SIGSTOP);
    // Nothing is on its way: it is told all the same.
    let idle = wait_for_reason(&broker, "rocketmq_away");
    assert!(idle["health"]["since_ms"].as_u64() > Some(0));
    let client = broker.client(Version::V311, "device");
    for number in 0..50 {
        client.publish(Publication::new("t/x", number.to_string()).qos(number % 3));
    }
    let stalled = wait_for_reason(&broker, "uplink_stalled");
    assert_eq!(stalled["uplink"]["waiting_messages"], 50);
    assert!(stalled["uplink"]["log"]["waiting_bytes"].as_u64() > Some(50 * 16));
    assert_eq!(sums::unequal(&stalled), Vec::<String>::new());
    assert_eq!(status(&broker, &["--check"]).0, Some(1));
    rocketmq.signal(Part::Broker, libc::SIGCONT);
    wait_until_well(&broker);
    let settled = sums::settle(&broker);
    assert_eq!(settled["uplink"]["done"], 50);
}

#[test]
fn a_sidecar_that_hangs_is_told_by_the_command_with_what_waits() {
    let topic = Topic::shared("HEALTH_SIDECAR", 1);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("t/+ {}", topic.name()))
        .start();
    wait_until_well(&broker);
    let sidecar = broker.sidecar_pid();
    proc::signal(sidecar, libc::SIGSTOP);
    let client = broker.client(Version::V5, "device");
    for number in 0..20 {
        client.publish(Publication::new("t/x", number.to_string()));
    }
    let (code, text) = status(&broker, &["--json"]);
    let (check, _) = status(&broker, &["--check"]);
    proc::signal(sidecar, libc::SIGCONT);
    assert_eq!((code, check), (Some(1), Some(2)));
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["health"]["state"], "degraded");
    let reason = &report["health"]["reasons"][0];
    assert_eq!(reason["what"], "sidecar_hangs");
    assert!(reason["since_ms"].as_u64() > Some(0));
    let detail = reason["detail"].as_str().expect("a text");
    assert!(detail.contains(&sidecar.to_string()), "{detail}");
    assert_eq!(report["uplink"]["waiting_messages"], 20);
    wait_until_well(&broker);
    sums::settle(&broker);
}

#[test]
fn a_mosquitto_that_hangs_is_told() {
    let topic = Topic::shared("HEALTH_MOSQUITTO", 1);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("downlink_from", "earliest")
        .downlink(format!("{} down/%k", topic.name()))
        .start();
    wait_until_well(&broker);
    proc::signal(broker.pid(), libc::SIGSTOP);
    let away = wait_for_reason(&broker, "mosquitto_away");
    assert!(away["health"]["since_ms"].as_u64() > Some(0));
    for number in 0..30 {
        topic.produce(&[Produced::new(number.to_string()).keys("k")]);
    }
    eventually("what waits for Mosquitto is counted", || {
        let report = report(&broker);
        let waits = report["downlink"]["waiting_messages"] == 30;
        (waits && reasons(&report).contains("downlink_stalled")).then_some(())
    });
    proc::signal(broker.pid(), libc::SIGCONT);
    wait_until_well(&broker);
    let settled = sums::settle(&broker);
    assert_eq!(settled["plugin"]["downlink_injected"], 30);
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("a clock").as_millis()).expect("this millennium")
}

/// Promised are 3 s. The rest is for a machine that runs other tests too.
const DEGRADED_WITHIN: Duration = Duration::from_secs(10);

/// Stops something under load, and waits until the status says so, in time, with one of these reasons, and since when.
#[track_caller]
fn is_told_in_time(broker: &Broker, expected: &[&str], stop: impl FnOnce()) {
    wait_until_well(broker);
    let (before, before_ms) = (Instant::now(), unix_ms());
    stop();
    let report = eventually("degraded", || {
        let report = report(broker);
        (report["health"]["state"] == "degraded").then_some(report)
    });
    let took = before.elapsed();
    println!("degraded for {:?} after {took:?}", reasons(&report));
    assert!(took < DEGRADED_WITHIN, "{took:?}: {:#}", report["health"]);
    // Not before anything was wrong, but for the beat that it is told from.
    let times = before_ms - 2_000..=unix_ms();
    let mut since_ms = vec![report["health"]["since_ms"].as_u64().expect("a time")];
    for reason in report["health"]["reasons"].as_array().expect("reasons") {
        let what = reason["what"].as_str().expect("a name");
        assert!(expected.contains(&what), "{reason:#}");
        assert_ne!(
            reason["detail"].as_str().unwrap_or_default(),
            "",
            "{reason:#}"
        );
        since_ms.push(reason["since_ms"].as_u64().expect("a time"));
    }
    assert!(since_ms.len() > 1, "degraded without a reason: {report:#}");
    let in_time = since_ms.iter().all(|since| times.contains(since));
    assert!(in_time, "{times:?}: {:#}", report["health"]);
}

/// Three devices that publish some hundred messages a second.
fn load(broker: &Broker) -> Load {
    let pause = Duration::from_millis(5);
    let load = Load::start(broker.port, Version::V311, "load", 3, pause);
    load.wait_for_more(100);
    load
}

#[test]
fn a_rocketmq_that_hangs_under_load_is_told_within_seconds() {
    let own = own();
    let rocketmq = turn(&own);
    let namesrv = rocketmq.namesrv();
    let topic = Topic::create(&namesrv, &unique("HEALTH_LOAD"), 4);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("namesrv", &namesrv)
        .uplink(format!("load/+ {} key=%c", topic.name()))
        .start();
    let load = load(&broker);
    let expected = ["rocketmq_away", "uplink_stalled"];
    is_told_in_time(&broker, &expected, || {
        rocketmq.signal(Part::Broker, libc::SIGSTOP)
    });
    rocketmq.signal(Part::Broker, libc::SIGCONT);
    wait_until_well(&broker);
    let acknowledged = load.stop();
    let counted = ledger::settle(&acknowledged, &mut topic.reader());
    assert_eq!((counted.lost, counted.reordered), (Vec::new(), 0));
    sums::settle(&broker);
}

#[test]
fn a_sidecar_that_hangs_under_load_is_told_within_seconds() {
    let topic = Topic::shared("HEALTH_SIDECAR_LOAD", 4);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("load/+ {} key=%c", topic.name()))
        .start();
    let load = load(&broker);
    let sidecar = broker.sidecar_pid();
    let expected = ["sidecar_hangs", "uplink_stalled"];
    is_told_in_time(&broker, &expected, || {
        assert!(proc::signal(sidecar, libc::SIGSTOP));
    });
    proc::signal(sidecar, libc::SIGCONT);
    wait_until_well(&broker);
    let acknowledged = load.stop();
    let counted = ledger::settle(&acknowledged, &mut topic.reader());
    assert_eq!((counted.lost, counted.reordered), (Vec::new(), 0));
    sums::settle(&broker);
}

#[test]
fn every_message_is_in_exactly_one_counter_after_kills_of_everything() {
    const DOWN: usize = 1_500;
    let own = own();
    let mut rocketmq = turn(&own);
    let namesrv = rocketmq.namesrv();
    let topic = Topic::create(&namesrv, &unique("SUMS_UP"), 4);
    let down = Topic::create(&namesrv, &unique("SUMS_DOWN"), 2);
    let mut broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("namesrv", &namesrv)
        .option("downlink_from", "earliest")
        .uplink(format!("load/+ {} key=%c", topic.name()))
        .uplink(format!("load/qos2 {} key=%c tag=twice", topic.name()))
        .downlink(format!("{} down/%k qos=1", down.name()))
        .start();
    let load = Load::start(
        broker.port,
        Version::V311,
        "load",
        3,
        Duration::from_millis(2),
    );
    let mut produced = 0;
    for round in 0..3 {
        let upto = DOWN * (round + 1) / 3;
        while produced < upto {
            let batch: Vec<_> = (produced..upto.min(produced + 50))
                .map(|number| Produced::new(number.to_string()).keys("k"))
                .collect();
            down.produce(&batch);
            produced += batch.len();
        }
        let client = broker.client(Version::V5, "others");
        for number in 0..60 {
            let topic = if number % 2 == 0 {
                "load/qos0"
            } else {
                "load/qos2"
            };
            let qos = if number % 2 == 0 { 0 } else { 2 };
            client.publish(Publication::new(topic, number.to_string()).qos(qos));
        }
        load.wait_for_more(150);
        broker.kill_sidecar();
        load.wait_for_more(100);
        broker.kill();
        broker.start();
        load.wait_for_more(100);
        if round == 1 {
            rocketmq.kill();
            load.wait_for_more(200);
            let old = broker.sidecar_pid();
            proc::signal(old, libc::SIGKILL);
            load.wait_for_more(100);
            rocketmq.start();
            broker.wait_until_connected();
        }
    }
    let acknowledged = load.stop();
    let mut reader = topic.reader();
    let counted = ledger::settle(&acknowledged, &mut reader);
    assert_eq!((counted.lost, counted.reordered), (Vec::new(), 0));
    let status = sums::settle(&broker);
    // RocketMQ's own client says the same: a message has one identity, however often it was sent, and is sent once a rule.
    let identities: BTreeSet<(&str, Option<&str>)> = reader
        .messages
        .iter()
        .map(|stored| {
            let identity = stored.property("mqtt_id").expect("an identity");
            (identity, stored.tag.as_deref())
        })
        .collect();
    let sent: u64 = status["uplink"]["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .filter_map(|rule| rule["sent"].as_u64())
        .sum();
    assert_eq!(identities.len() as u64, sent, "{status:#}");
    let handed_over = status["downlink"]["rules"][0]["handed_over"].as_u64();
    assert!(handed_over >= Some(DOWN as u64), "{status:#}");
}
