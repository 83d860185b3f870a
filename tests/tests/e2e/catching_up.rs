//! From RocketMQ to a device that was away, from a topic that was not there, to a node that is new.

use harness::probe::unique;
use harness::{
    BrokerSpec, ClientOptions, Mosquitto, Produced, Publication, Topic, Version, eventually,
};

use crate::downlink::from_earliest;

#[test]
fn a_persistent_session_gets_what_came_while_it_was_offline() {
    let topic = Topic::shared("DOWN_OFFLINE", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} o/%k qos=1", topic.name()))
        .start();
    let options = ClientOptions::new(Version::V311, "offline").persistent();
    let client = broker.connect(&options);
    client.subscribe("o/#", 1);
    client.disconnect();
    let watcher = broker.client(Version::V5, "watcher");
    watcher.subscribe("o/#", 1);
    let messages: Vec<Produced> = (0..20)
        .map(|number| Produced::new(number.to_string()).keys("k"))
        .collect();
    topic.produce(&messages);
    watcher.receive_until(b"19");
    let client = broker.connect(&options);
    assert!(client.session_present);
    for number in 0..20 {
        assert_eq!(client.receive().text(), number.to_string());
    }
}

#[test]
fn a_new_node_starts_at_the_end_and_goes_on_after_a_restart_where_it_was() {
    let topic = Topic::shared("DOWN_FROM", 2);
    let node = unique("from").to_lowercase().replace('_', "-");
    let group = unique("GID_FROM");
    topic.produce(&[
        Produced::new("before the node was").queue(0),
        Produced::new("likewise").queue(1),
    ]);
    let mut broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("node_id", &node)
        .option("group", &group)
        .downlink(format!("{} from/%k qos=1", topic.name()))
        .start();
    // It has found its place when it has committed it.
    eventually("the node commits where it starts", || {
        topic
            .committed(&group)
            .filter(|(committed, _)| *committed >= 2)
    });
    let options = ClientOptions::new(Version::V311, "keeper").persistent();
    let keeper = broker.connect(&options);
    keeper.subscribe("from/#", 1);
    topic.produce(&[Produced::new("first").keys("k").queue(0)]);
    assert_eq!(keeper.receive().text(), "first");
    keeper.disconnect();
    broker.terminate();
    topic.produce(&[Produced::new("while it was away").keys("k").queue(1)]);
    broker.start();
    let keeper = broker.connect(&options);
    assert_eq!(keeper.receive().text(), "while it was away");
    topic.produce(&[Produced::new("end").keys("k").queue(1)]);
    assert_eq!(keeper.receive_until(b"end").len(), 1, "nothing twice");
    eventually("all is committed", || {
        topic
            .committed(&group)
            .filter(|(committed, there)| committed == there)
    });
}

#[test]
fn a_topic_that_comes_to_be_later_is_read_from_its_beginning() {
    let namesrv = harness::environment::shared_namesrv();
    let name = unique("DOWN_LATER");
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .downlink(format!("{name} later qos=1"))
        .start();
    let client = broker.client(Version::V311, "later");
    client.subscribe("later", 1);
    let topic = Topic::create(&namesrv, &name, 2);
    topic.produce(&[Produced::new("the first of all")]);
    assert_eq!(client.receive().text(), "the first of all");
}

#[test]
fn a_backlog_comes_down_whole_once_and_in_order_to_a_session_that_was_there_before() {
    const COUNT: usize = 6_000;
    let topic = Topic::shared("DOWN_BACKLOG", 1);
    let mut broker = from_earliest(Mosquitto::V2_0_11)
        .option("downlink_per_tick", "64")
        .downlink(format!("{} flood/%k qos=1", topic.name()))
        .start();
    let options = ClientOptions::new(Version::V5, "flood").persistent();
    let client = broker.connect(&options);
    client.subscribe("flood/#", 1);
    client.disconnect();
    broker.terminate();
    let messages: Vec<Produced> = (0..COUNT)
        .map(|number| Produced::new(number.to_string()).keys("k"))
        .collect();
    for part in messages.chunks(2_000) {
        topic.produce(part);
    }
    broker.start();
    let client = broker.connect(&options);
    assert!(client.session_present);
    // A device is served meanwhile.
    let device = broker.client(Version::V311, "device");
    device.subscribe("local", 1);
    device.publish(Publication::new("local", "served"));
    assert_eq!(device.receive().text(), "served");
    for number in 0..COUNT {
        assert_eq!(client.receive().text(), number.to_string());
    }
    topic.produce(&[Produced::new("end").keys("k")]);
    assert_eq!(client.receive_until(b"end").len(), 1, "none twice");
}
