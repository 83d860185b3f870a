//! A node that is far behind in reading what it has a share of.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use harness::probe::Produced;
use harness::{Broker, Client, Mosquitto, Publication, Topic, Version};

use super::share::{FILTER, collect, devices, leave, missing, spec, together, wait_for_shares};

/// More than a node reads ahead (8 MiB) and has in its downlink log.
const MESSAGES: usize = 60;
const PADDING: usize = 16 * 1024;
/// Longer than tags are wanted after their last filter is gone (10 s).
const LINGER: Duration = Duration::from_secs(15);

/// A client that takes what it has subscribed to, and acknowledges nothing.
fn takes_nothing(broker: &Broker, filter: &str) -> TcpStream {
    let mut stream =
        TcpStream::connect((broker.address(), broker.port)).expect("the broker listens");
    let id = b"takes-nothing";
    let mut connect = b"\x00\x04MQTT\x04\x02\x00\x00\x00".to_vec();
    connect.push(u8::try_from(id.len()).expect("short"));
    connect.extend(id);
    let mut subscribe = b"\x00\x01\x00".to_vec();
    subscribe.push(u8::try_from(filter.len()).expect("short"));
    subscribe.extend(filter.as_bytes());
    subscribe.push(1);
    for (kind, body, answer) in [(0x10, connect, 4), (0x82, subscribe, 5)] {
        stream
            .write_all(&[kind, u8::try_from(body.len()).expect("short")])
            .expect("written");
        stream.write_all(&body).expect("written");
        let mut answered = vec![0; answer];
        stream.read_exact(&mut answered).expect("an answer");
        assert!(
            answered.last().is_some_and(|code| *code < 0x80),
            "{answered:?}"
        );
    }
    stream
}

fn publish(devices: &[Client], round: &str) -> Vec<String> {
    let mut all = Vec::new();
    for number in 0..MESSAGES {
        for (device, client) in devices.iter().enumerate() {
            let mut text = format!("{round} {device} {number} ");
            text.extend(std::iter::repeat_n('x', PADDING));
            client.publish(Publication::new(&format!("jobs/{device}"), text.clone()));
            all.push(text);
        }
    }
    all.sort();
    all
}

#[test]
fn what_a_node_reads_long_after_its_last_member_has_left_is_passed_on() {
    let spec = spec("SHAREDLATE");
    let holding = Topic::shared("HOLDING", 1);
    let a = spec.node(Mosquitto::V2_0_21).start();
    let b = spec
        .node(Mosquitto::V2_1_2)
        .downlink(format!("{} holding/x qos=1", holding.name()))
        .option("downlink_hold", "10min")
        .option("downlink_bytes_max", "1MiB")
        .conf("max_queued_messages 50")
        .start();
    let stays = a.client(Version::V5, "stays");
    let leaves = b.client(Version::V5, "leaves");
    stays.subscribe(FILTER, 1);
    leaves.subscribe(FILTER, 1);
    let devices = devices(&[&a]);
    wait_for_shares(&devices, &[&stays, &leaves]);

    let held_up = takes_nothing(&b, "holding/#");
    let held: Vec<Produced> = (0..300)
        .map(|number| Produced::new(number.to_string()))
        .collect();
    holding.produce(&held);
    let sent = publish(&devices, "late");
    let mut got = collect(&[&stays, &leaves], 1);
    let first: usize = got.iter().map(Vec::len).sum();
    assert!(first < sent.len(), "nothing is held up");
    got.push(leave(leaves));
    std::thread::sleep(LINGER);
    drop(held_up);
    let so_far: usize = got.iter().map(Vec::len).sum();
    got.extend(collect(&[&stays], sent.len() - so_far));
    let got = together(&got);
    let (lost, count) = (missing(&sent, &got), got.len());
    assert_eq!(lost.len(), 0, "none is missing of {}", sent.len());
    assert_eq!(count, sent.len(), "none twice");
}
