//! Shared subscriptions over all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::mqtt::Received;
use harness::{
    Broker, Client, ClientOptions, ClusterSpec, DEADLINE, Mosquitto, Publication, Topic, Version,
};

use super::{SETTLE, all_of, texts};

pub(super) const FILTER: &str = "$share/workers/jobs/#";
/// Devices that publish: their messages are in different queues.
const DEVICES: usize = 16;
const QUEUES: u32 = 8;

pub(super) fn devices(nodes: &[&Broker]) -> Vec<Client> {
    (0..DEVICES)
        .map(|number| nodes[number % nodes.len()].client(Version::V5, &format!("device-{number}")))
        .collect()
}

/// A cluster whose messages have many queues.
pub(super) fn spec(label: &str) -> ClusterSpec {
    let spec = ClusterSpec::new(label).share("jobs/#");
    Topic::create(
        &harness::environment::shared_namesrv(),
        spec.messages().name(),
        QUEUES,
    );
    spec
}

/// Each device publishes so many messages, with different texts.
fn publish(devices: &[Client], round: &str, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for number in 0..count {
        for (device, client) in devices.iter().enumerate() {
            let text = format!("{round} {device} {number}");
            client.publish(Publication::new(&format!("jobs/{device}"), text.clone()));
            all.push(text);
        }
    }
    all.sort();
    all
}

/// All that these clients get together, until they have `count` messages and nothing more has come for a while: client by client.
#[track_caller]
pub(super) fn collect(clients: &[&Client], count: usize) -> Vec<Vec<Received>> {
    let mut all: Vec<Vec<Received>> = clients.iter().map(|_| Vec::new()).collect();
    let mut last = Instant::now();
    loop {
        let mut is_news = false;
        for (client, got) in clients.iter().zip(&mut all) {
            while let Some(message) = client.receive_within(Duration::from_millis(20)) {
                got.push(message);
                is_news = true;
            }
        }
        let sum: usize = all.iter().map(Vec::len).sum();
        if is_news {
            last = Instant::now();
        } else if sum >= count && last.elapsed() > SETTLE {
            return all;
        }
        assert!(last.elapsed() < DEADLINE, "{sum} of {count} messages came");
    }
}

pub(super) fn together(all: &[Vec<Received>]) -> Vec<String> {
    let mut texts: Vec<String> = all.iter().flat_map(|got| texts(got)).collect();
    texts.sort();
    texts
}

/// Waits until all nodes share the queues out among them: every node's member gets something.
#[track_caller]
pub(super) fn wait_for_shares(devices: &[Client], members: &[&Client]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let sent = publish(devices, "warm", 1);
        let got = collect(members, sent.len());
        assert_eq!(together(&got), sent, "each once, also meanwhile");
        if got.iter().all(|got| !got.is_empty()) {
            return;
        }
        assert!(Instant::now() < deadline, "some get nothing");
    }
}

#[test]
fn each_message_goes_to_one_member_of_all_nodes_and_to_everybody_else() {
    let cluster = spec("SHARED").start();
    let [a, b, c] = &cluster.nodes[..] else {
        unreachable!("three nodes")
    };
    let one = a.client(Version::V5, "one");
    one.subscribe(FILTER, 1);
    let devices = devices(&[a, b, c]);
    // Alone, it gets everything, from the first message on.
    let sent = publish(&devices, "alone", 3);
    assert_eq!(together(&collect(&[&one], sent.len())), sent);

    let two = a.client(Version::V311, "two");
    let three = b.client(Version::V311, "three");
    let other = c.client(Version::V5, "other");
    two.subscribe(FILTER, 1);
    three.subscribe(FILTER, 2);
    other.subscribe("jobs/#", 1);
    // It has a subscription of its own too, to something else.
    three.subscribe("jobs", 1);
    let members = [&one, &two, &three];
    wait_for_shares(&devices, &members);
    all_of(&other, DEVICES);
    let sent = publish(&devices, "shared", 20);
    let got = collect(&members, sent.len());
    assert_eq!(together(&got), sent);
    assert!(got.iter().all(|got| got.len() > DEVICES), "all have work");
    let mut heard = texts(&all_of(&other, sent.len()));
    heard.sort();
    assert_eq!(heard, sent);
    // Each member has what it got of a device in the order in which that published.
    for got in &got {
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for message in got {
            let text = message.text();
            let number: usize = text
                .rsplit(' ')
                .next()
                .expect("a number")
                .parse()
                .expect("a number");
            let before = last.insert(&message.topic, number);
            assert!(before.is_none_or(|before| before < number), "{text}");
        }
    }
}

#[test]
fn a_member_that_has_also_subscribed_by_itself_gets_both() {
    let cluster = spec("SHAREDBOTH").start_of(&[Mosquitto::V2_0_21, Mosquitto::V2_1_2]);
    let [a, b] = &cluster.nodes[..] else {
        unreachable!("two nodes")
    };
    let both = a.client(Version::V5, "both");
    both.subscribe("jobs/1", 1);
    both.subscribe("$share/workers/jobs/+", 1);
    let device = b.client(Version::V5, "device");
    device.publish(Publication::new("jobs/1", "own"));
    device.publish(Publication::new("jobs/2", "shared"));
    // By its own subscription, and as the only member. (Mosquitto gives it what matches both twice.)
    let mut got = BTreeSet::new();
    let deadline = Instant::now() + DEADLINE;
    while got.len() < 2 {
        assert!(Instant::now() < deadline, "{got:?}");
        got.extend(both.receive_within(SETTLE).map(|message| message.text()));
    }
    assert_eq!(got, ["own".to_owned(), "shared".to_owned()].into());
}

#[test]
fn members_come_and_go_and_each_message_is_got_once() {
    let cluster = spec("SHAREDFLUX").start();
    let [a, b, c] = &cluster.nodes[..] else {
        unreachable!("three nodes")
    };
    let stays = a.client(Version::V5, "stays");
    stays.subscribe(FILTER, 1);
    let devices = devices(&[a, b, c]);
    let is_over = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    let (sent, mut got) = std::thread::scope(|scope| {
        let (is_over, rounds) = (&is_over, &rounds);
        let publisher = scope.spawn(move || {
            let mut sent = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let round = rounds.fetch_add(1, Ordering::Relaxed);
                sent.extend(publish(&devices, &round.to_string(), 1));
                std::thread::sleep(Duration::from_millis(20));
            }
            sent
        });
        let mut got = Vec::new();
        for (turn, node) in [b, c, b, c].iter().enumerate() {
            let comes = node.client(Version::V5, &format!("comes-{turn}"));
            comes.subscribe(FILTER, 1);
            let until = Instant::now() + Duration::from_secs(6);
            while Instant::now() < until {
                got.extend(comes.receive_within(Duration::from_millis(100)));
            }
            // What it was sent and has not acknowledged when it goes is its own matter: it takes leave in a pause.
            let paused = rounds.load(Ordering::Relaxed);
            assert!(paused > 0);
            got.extend(leave(comes));
        }
        is_over.store(true, Ordering::Relaxed);
        (publisher.join().expect("published"), got)
    });
    let mut sent = sent;
    sent.sort();
    let rest = sent.len() - got.len().min(sent.len());
    got.extend(collect(&[&stays], rest).remove(0));
    let mut got = texts(&got);
    got.sort();
    assert_eq!(
        missing(&sent, &got),
        Vec::<String>::new(),
        "none is missing"
    );
    assert_eq!(got.len(), sent.len(), "none twice");
}

/// Unsubscribes, takes what is on its way, and goes.
pub(super) fn leave(client: Client) -> Vec<Received> {
    client.unsubscribe(FILTER);
    let mut got = Vec::new();
    while let Some(message) = client.receive_within(Duration::from_millis(500)) {
        got.push(message);
    }
    client.disconnect();
    got
}

pub(super) fn missing(sent: &[String], got: &[String]) -> Vec<String> {
    let got: BTreeSet<&String> = got.iter().collect();
    sent.iter()
        .filter(|text| !got.contains(text))
        .cloned()
        .collect()
}

#[test]
fn what_a_dead_node_had_not_given_goes_to_members_elsewhere() {
    let spec = spec("SHAREDDEAD");
    let a = spec.node(Mosquitto::V2_0_11).start();
    let mut b = spec.node(Mosquitto::V2_0_21).start();
    let stays = a.client(Version::V5, "stays");
    let dies = b.client(Version::V5, "dies");
    stays.subscribe(FILTER, 1);
    dies.subscribe(FILTER, 1);
    let devices = devices(&[&a]);
    wait_for_shares(&devices, &[&stays, &dies]);
    b.kill_sidecar();
    b.kill();
    let sent = publish(&devices, "after", 10);
    let mut got = BTreeSet::new();
    let deadline = Instant::now() + DEADLINE;
    while got.len() < sent.len() {
        assert!(
            Instant::now() < deadline,
            "{} of {} came",
            got.len(),
            sent.len()
        );
        let message = stays.receive_within(Duration::from_millis(200));
        // What the dead node may have given is given once more.
        got.extend(
            message
                .map(|message| message.text())
                .filter(|text| text.starts_with("after")),
        );
    }
    assert_eq!(got.into_iter().collect::<Vec<_>>(), sent);
}

#[test]
fn a_group_of_one_node_misses_nothing_while_its_sidecar_is_made_anew() {
    let spec = spec("SHAREDANEW");
    let node = spec.node(Mosquitto::V2_1_2).start();
    let member = node.connect(&ClientOptions::new(Version::V5, "member"));
    member.subscribe(FILTER, 1);
    let devices = devices(&[&node]);
    let mut sent = publish(&devices, "before", 2);
    assert_eq!(together(&collect(&[&member], sent.len())), sent);
    node.kill_sidecar();
    sent = publish(&devices, "after", 5);
    let got = collect(&[&member], sent.len());
    assert_eq!(missing(&sent, &together(&got)), Vec::<String>::new());
}
