//! What a message costs on the broker's thread before it reaches the log: matching its topic against 1, 100 and 10,000
//! rules, and encoding it.
#![allow(missing_docs, reason = "criterion's macro makes public functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use protocol::message::{Message, Property, PropertyBuffer, QoS, RuleIds};
use protocol::trie::TopicTrie;

const TOPIC: &str = "sensors/device-0/telemetry";

/// `rules` filters of which one matches [`TOPIC`], in the shapes that rules have.
fn trie(rules: u32) -> TopicTrie<u32> {
    let mut trie = TopicTrie::new();
    for rule in 0..rules {
        let filter = match rule % 3 {
            0 => format!("sensors/device-{rule}/telemetry"),
            1 => format!("sensors/+/kind-{rule}"),
            _ => format!("site-{rule}/#"),
        };
        if let Err(error) = trie.insert(&filter, rule) {
            panic!("{filter} {error}");
        }
    }
    trie
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("trie");
    for rules in [1, 100, 10_000] {
        let trie = trie(rules);
        let mut ids: Vec<u32> = Vec::with_capacity(8);
        group.bench_with_input(
            BenchmarkId::new("one rule matches", rules),
            &trie,
            |b, trie| {
                b.iter(|| {
                    ids.clear();
                    trie.matches(black_box(TOPIC), |id| ids.push(*id));
                    ids.len()
                });
            },
        );
        group.bench_with_input(
            BenchmarkId::new("no rule matches", rules),
            &trie,
            |b, trie| {
                b.iter(|| {
                    let mut found = 0;
                    trie.matches(black_box("home/kitchen/temperature/now"), |_| found += 1);
                    found
                });
            },
        );
    }
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("message");
    let mut properties = PropertyBuffer::new();
    let pushed = properties.push(&Property::User("unit", "celsius"));
    assert!(pushed.is_ok());
    for size in [128usize, 1024] {
        let payload = vec![7u8; size];
        let message = Message {
            topic: TOPIC,
            payload: &payload,
            qos: QoS::AtLeastOnce,
            mqtt_version: 5,
            client_id: "device-0",
            username: Some("fleet"),
            received_at_ms: 1_700_000_000_000,
            properties: properties.as_properties(),
            injected: None,
            rules: RuleIds::from_slice(&[1]),
            ..Message::default()
        };
        let mut frame = vec![0u8; message.encoded_len()];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("encode", size), |b| {
            b.iter(|| black_box(&message).encode_into(black_box(&mut frame)));
        });
        group.bench_function(BenchmarkId::new("decode", size), |b| {
            b.iter(|| Message::decode(black_box(&frame)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, matching, encoding);
criterion_main!(benches);
