//! Order and completeness under load.

use std::collections::{BTreeSet, HashMap};

use harness::ledger::{self, payload};
use harness::mqtt::Outcome;
use harness::{BrokerSpec, ClientOptions, DEADLINE, Mosquitto, Publication, Topic, Version};

const DEVICES: usize = 8;
const EACH: u64 = 1_250;

#[test]
fn ten_thousand_messages_of_eight_devices_at_once_arrive_once_each_and_in_order_per_device() {
    let topic = Topic::shared("ORDER", 4);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("order/+ {} key=%c", topic.name()))
        .start();
    let port = broker.port;
    let threads: Vec<_> = (0..DEVICES)
        .map(|device| {
            std::thread::spawn(move || {
                let version = Version::ALL[device % 2];
                // One QoS per device, because rumqttc uses a packet id again before its PUBCOMP when they are mixed. QoS 0 may be
                // dropped by a broker, so it can't be counted here.
                let qos = if device < 6 { 1 } else { 2 };
                let client = harness::Client::connect(
                    port,
                    &ClientOptions::new(version, &format!("device-{device}")),
                );
                let outcomes: Vec<_> = (0..EACH)
                    .map(|sequence| {
                        let topic = format!("order/{device}");
                        client.start_publish(
                            Publication::new(&topic, payload((device, sequence))).qos(qos),
                        )
                    })
                    .collect();
                for outcome in outcomes {
                    let outcome = outcome
                        .recv_timeout(DEADLINE)
                        .unwrap_or(Outcome::Closed("no answer".to_owned()));
                    assert!(outcome.is_taken(), "{outcome:?}");
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("a device"));
    let sent: BTreeSet<_> = (0..DEVICES)
        .flat_map(|device| (0..EACH).map(move |sequence| (device, sequence)))
        .collect();
    let mut reader = topic.reader();
    let counted = ledger::settle(&sent, &mut reader);
    assert_eq!(
        counted,
        ledger::Count {
            arrived: sent.len(),
            ..ledger::Count::default()
        }
    );
    // A device's messages are all in one queue, which is what keeps their order, and the devices use more than one.
    let mut queues: HashMap<usize, BTreeSet<&str>> = HashMap::new();
    for stored in &reader.messages {
        let (device, _) = ledger::number(&stored.body).expect("a number");
        queues.entry(device).or_default().insert(&stored.queue);
    }
    assert!(
        queues.values().all(|queues| queues.len() == 1),
        "{queues:?}"
    );
    let used: BTreeSet<_> = queues.values().flatten().collect();
    assert!(used.len() > 1, "all devices share one queue: {queues:?}");
}
