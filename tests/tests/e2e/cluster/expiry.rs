//! Message expiry between the nodes: counted from the publishing, wherever the time passes.

use std::time::{Duration, Instant};

use harness::mqtt::{PublishProperties, Received};
use harness::{Broker, Client, ClientOptions, ClusterSpec, Mosquitto, Publication, Version, proc};

use super::{SETTLE, all_of, texts};

const ALL_QOS: [u8; 3] = [0, 1, 2];
const SHORT_S: u32 = 2;
const LONG_S: u32 = 1_000;
/// In it the short-lived messages expire.
const PAUSE: Duration = Duration::from_secs(4);

fn expiring(payload: &str, expiry_s: u32) -> Publication {
    Publication::new("m/x", payload).properties(PublishProperties {
        message_expiry_interval: Some(expiry_s),
        ..PublishProperties::default()
    })
}

/// One that expires, one that does not yet, and two that never do.
fn publish_all(node: &Broker, qos: &[u8]) {
    let device = node.client(Version::V5, "device");
    for &qos in qos {
        device.publish(expiring("short", SHORT_S).qos(qos));
        device.publish(expiring("long", LONG_S).qos(qos));
        device.publish(expiring("zero", 0).qos(qos));
        device.publish(Publication::new("m/x", "forever").qos(qos));
    }
}

/// What is left of it, or that there is none.
fn assert_is_left(message: &Received, most: u32, what: &str) {
    let expiry = message.properties.message_expiry_interval;
    if message.text() == "long" {
        let expiry = expiry.expect("an expiry");
        assert!((LONG_S / 2..=most).contains(&expiry), "{what}: {expiry}");
    } else {
        assert_eq!(expiry, None, "{what}: {}", message.text());
    }
}

/// All but those that have expired, with what time is left of it.
fn assert_got_what_lives(client: &Client, qos: &[u8]) {
    let expected = ["long", "zero", "forever"].repeat(qos.len());
    let got = all_of(client, expected.len());
    assert_eq!(texts(&got), expected, "{client:?}");
    let gone = u32::try_from(PAUSE.as_secs()).expect("short");
    for message in &got {
        assert_is_left(message, LONG_S - gone + 1, &format!("{client:?}"));
    }
}

/// One on each node.
fn listeners(nodes: &[Broker]) -> Vec<Client> {
    let listener = |(number, node): (usize, &Broker)| {
        let client = node.client(Version::V5, &format!("listener-{number}"));
        client.subscribe("m/#", 2);
        client
    };
    nodes.iter().enumerate().map(listener).collect()
}

fn wait_from(published: Instant) {
    std::thread::sleep(PAUSE.saturating_sub(published.elapsed()));
}

/// Stops the sidecars of these nodes, and lets them go on when dropped.
struct Paused(Vec<u32>);

impl Paused {
    fn new<'a>(nodes: impl Iterator<Item = &'a Broker>) -> Paused {
        let sidecars: Vec<u32> = nodes.map(Broker::sidecar_pid).collect();
        for pid in &sidecars {
            assert!(proc::signal(*pid, libc::SIGSTOP), "no sidecar {pid}");
        }
        Paused(sidecars)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for pid in &self.0 {
            proc::signal(*pid, libc::SIGCONT);
        }
    }
}

#[test]
fn what_expires_on_its_way_to_another_node_is_not_delivered_there() {
    let cluster = ClusterSpec::new("EXPIRY").share("m/#").start();
    let nodes = &cluster.nodes;
    let listeners = listeners(nodes);
    for (number, node) in nodes.iter().enumerate() {
        let others = || (0..nodes.len()).filter(move |other| *other != number);
        let paused = Paused::new(others().map(|other| &nodes[other]));
        publish_all(node, &ALL_QOS);
        let published = Instant::now();
        // Where it was published it comes at once.
        let expected = ["short", "long", "zero", "forever"].repeat(ALL_QOS.len());
        let near = all_of(&listeners[number], expected.len());
        assert_eq!(texts(&near), expected, "node {number}");
        wait_from(published);
        drop(paused);
        for other in others() {
            assert_got_what_lives(&listeners[other], &ALL_QOS);
        }
    }
}

#[test]
fn what_expires_while_a_node_is_down_is_not_delivered_there() {
    let spec = ClusterSpec::new("EXPIRY_DOWN").share("m/#");
    let here = spec.node(Mosquitto::V2_0_21).start();
    let mut nodes = Mosquitto::ALL.map(|version| spec.node(version).start());
    let options =
        |number: usize| ClientOptions::new(Version::V5, &format!("reader-{number}")).persistent();
    for (number, node) in nodes.iter().enumerate() {
        let reader = node.connect(&options(number));
        reader.subscribe("m/#", 2);
        reader.disconnect();
    }
    for node in &mut nodes {
        node.terminate();
    }
    publish_all(&here, &[1, 2]);
    wait_from(Instant::now());
    for node in &mut nodes {
        node.start();
    }
    std::thread::scope(|scope| {
        for (number, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                let reader = node.connect(&options(number));
                assert!(reader.session_present);
                assert_got_what_lives(&reader, &[1, 2]);
            });
        }
    });
}

/// What is retained on `m/x`, by a client that has not been there before.
fn retained(node: &Broker, id: &str) -> Vec<String> {
    let client = node.client(Version::V5, id);
    client.subscribe("m/x", 1);
    let got = std::iter::from_fn(|| client.receive_within(SETTLE));
    got.map(|message| message.text()).collect()
}

#[test]
fn a_retained_message_that_expires_on_its_way_replaces_the_one_before_it() {
    let cluster = ClusterSpec::new("EXPIRY_RETAINED").share("m/#").start();
    let nodes = &cluster.nodes;
    let listeners = listeners(nodes);
    let device = nodes[0].client(Version::V5, "device");
    device.publish(Publication::new("m/x", "old").retain());
    for listener in &listeners {
        assert_eq!(texts(&all_of(listener, 1)), ["old"], "{listener:?}");
    }
    let paused = Paused::new(nodes[1..].iter());
    device.publish(expiring("short", SHORT_S).retain());
    wait_from(Instant::now());
    drop(paused);
    device.publish(Publication::new("m/y", "behind"));
    // Subscribers are not told of it: they get no empty message.
    for listener in &listeners[1..] {
        assert_eq!(texts(&all_of(listener, 1)), ["behind"], "{listener:?}");
    }
    for (number, node) in nodes.iter().enumerate() {
        let got = retained(node, &format!("late-{number}"));
        assert!(got.is_empty(), "node {number} retains {got:?}");
    }
}
