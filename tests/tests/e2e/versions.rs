//! One plugin for three Mosquittos.

use std::fs;
use std::time::{Duration, Instant};

use harness::mqtt::Will;
use harness::{
    Broker, Client, ClientOptions, Mosquitto, Produced, Publication, Topic, Version, eventually,
    proc,
};

use crate::downlink::from_earliest;

/// Up, down, will, SIGHUP, SIGTERM.
fn smoke(version: Mosquitto, number: &str) {
    let (up, down) = (Topic::shared("SMOKE_UP", 2), Topic::shared("SMOKE_DOWN", 2));
    let dir = tempfile::tempdir().expect("a folder");
    let rules = dir.path().join("rules");
    fs::write(&rules, "# none yet\n").expect("a file");
    let mut broker = from_earliest(version)
        .uplink(format!("up/# {} key=%c", up.name()))
        .downlink(format!("{} down/%k qos=1", down.name()))
        .option("rules_file", rules.display().to_string())
        .start_in(dir);
    for mqtt in Version::ALL {
        let id = format!("smoke-{}", mqtt.number());
        let client = broker.client(mqtt, &id);
        client.subscribe(&format!("down/{id}"), 2);
        for qos in 0..=2 {
            let body = format!("{id} {qos}");
            client.publish(Publication::new(&format!("up/{id}"), body.clone()).qos(qos));
            up.reader().wait_for_body(body.as_bytes());
        }
        down.produce(&[Produced::new("hello").keys(&id)]);
        assert_eq!(client.receive().text(), "hello");
        let will = Will::new("up/will", &format!("{id} is gone"));
        broker
            .connect(&ClientOptions::new(mqtt, &format!("{id}-will")).will(will))
            .kill();
        let stored = up
            .reader()
            .wait_for_body(format!("{id} is gone").as_bytes());
        assert_eq!(stored.property("mqtt_will"), Some("1"));
        down.produce(&[Produced::new("direct")
            .keys("none")
            .property("client_id", &id)]);
        assert_eq!(client.receive().text(), "direct");
    }
    let client = broker.client(Version::V5, "smoke-hup");
    fs::write(&rules, format!("uplink hup/# {}\n", up.name())).expect("a file");
    broker.hup();
    let mut reader = up.reader();
    eventually("the reloaded rule is at work", || {
        client.publish(Publication::new("hup/x", "reloaded"));
        reader.poll();
        reader
            .texts()
            .contains(&"reloaded".to_owned())
            .then_some(())
    });
    let status = broker.status().expect("a status");
    assert_eq!(status["broker_version"], number);
    assert_eq!(status["plugin"]["plugin_panics"], 0);
    assert_eq!(status["plugin"]["reloads_ok"], 1);
    assert_eq!(status["wake"], "eventfd");
    let sidecar = broker.sidecar_pid();
    assert_eq!(proc::zombies_of(broker.pid()), Vec::<u32>::new());
    let (status, took) = broker.terminate();
    assert!(status.success(), "{status}:\n{}", broker.log());
    assert!(took < Duration::from_secs(20), "SIGTERM took {took:?}");
    assert!(
        !proc::is_alive(sidecar),
        "Mosquitto has ended and its sidecar has not"
    );
}

#[test]
fn mosquitto_2_0_11_carries_messages_both_ways() {
    smoke(Mosquitto::V2_0_11, "2.0.11");
}

#[test]
fn mosquitto_2_0_21_carries_messages_both_ways() {
    smoke(Mosquitto::V2_0_21, "2.0.21");
}

#[test]
fn mosquitto_2_1_2_carries_messages_both_ways() {
    smoke(Mosquitto::V2_1_2, "2.1.2");
}

/// The time that three of four messages stay below, from before RocketMQ's producer sends to the subscriber, on a broker that
/// has nothing else to do. Without a wake-up it would be the broker's own tick of 100 ms that decides, and three of four would
/// take up to 75 ms and more, on 2.1.2 even one tick longer.
fn idle_delivery(topic: &Topic, client: &Client) -> Duration {
    let mut times: Vec<Duration> = (0..40)
        .map(|number: u64| {
            // Falls anywhere between two ticks.
            std::thread::sleep(Duration::from_millis(20 + number * 37 % 100));
            let start = Instant::now();
            topic.produce(&[Produced::new(number.to_string()).keys("k")]);
            let at = client.receive().at;
            at.saturating_duration_since(start)
        })
        .collect();
    times.sort();
    times[times.len() * 3 / 4]
}

fn assert_woken(version: Mosquitto, wake: &str) -> Broker {
    let topic = Topic::shared("IDLE", 1);
    let broker = from_earliest(version)
        .option("wake", wake)
        .uplink("# NOTHING_COMES_HERE")
        .downlink(format!("{} idle/%k qos=0", topic.name()))
        .start();
    let client = broker.client(Version::V311, "idle");
    client.subscribe("idle/#", 0);
    topic.produce(&[Produced::new("first").keys("k")]);
    client.receive_until(b"first");
    // The machine may be busy with other tests: one quiet stretch is enough to show that nothing waits for a tick.
    let mut rounds = Vec::new();
    while rounds.len() < 6 {
        let time = idle_delivery(&topic, &client);
        if time < Duration::from_millis(45) {
            return broker;
        }
        rounds.push(time);
    }
    panic!("with {wake} on {version:?} idle deliveries took {rounds:?} (upper quartiles)");
}

#[test]
fn an_idle_mosquitto_2_1_2_is_woken_at_once() {
    let broker = assert_woken(Mosquitto::V2_1_2, "auto");
    assert_eq!(broker.status().expect("a status")["wake"], "eventfd");
}

#[test]
fn an_idle_mosquitto_2_0_11_is_woken_at_once() {
    let broker = assert_woken(Mosquitto::V2_0_11, "auto");
    assert_eq!(broker.status().expect("a status")["wake"], "eventfd");
}

#[test]
fn the_pingreq_connection_wakes_too_and_is_not_bridged() {
    let broker = assert_woken(Mosquitto::V2_0_11, "pingreq");
    let status = broker.status().expect("a status");
    assert_eq!(status["wake"], "pingreq");
    assert_eq!(
        status["plugin"]["uplink_matched"], 0,
        "there is a rule for everything, and nobody publishes"
    );
}
