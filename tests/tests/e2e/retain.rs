//! Retained messages, both ways.

use harness::{BrokerSpec, Mosquitto, Produced, Publication, Topic, Version};

use crate::downlink::from_earliest;

#[test]
fn a_retained_message_goes_up_as_one_and_only_once() {
    let topic = Topic::shared("RETAIN_UP", 1);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("r/# {}", topic.name()))
        .start();
    let client = broker.client(Version::V311, "retain");
    client.publish(Publication::new("r/state", "on").retain());
    // Those who come later get it from the broker, and that is no new message.
    for version in Version::ALL {
        let later = broker.client(version, &format!("later-{}", version.number()));
        later.subscribe("r/#", 1);
        let message = later.receive();
        assert_eq!((message.text().as_str(), message.retain), ("on", true));
    }
    client.publish(Publication::new("r/state", "").retain());
    client.publish(Publication::new("r/end", "end"));
    let mut reader = topic.reader();
    reader.wait_for_body(b"end");
    let seen: Vec<_> = reader
        .messages
        .iter()
        .map(|stored| {
            (
                stored.property("mqtt_retain"),
                stored.property("mqtt_empty"),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [(Some("1"), None), (Some("1"), Some("1")), (Some("0"), None)]
    );
}

#[test]
fn what_comes_down_retained_is_there_for_a_later_subscriber_until_it_is_cleared() {
    let topic = Topic::shared("RETAIN_DOWN", 1);
    let broker = from_earliest(Mosquitto::V2_0_11)
        .downlink(format!("{} r/%k qos=1", topic.name()))
        .start();
    let live = broker.client(Version::V5, "live");
    live.subscribe("r/#", 1);
    topic.produce(&[
        Produced::new("on")
            .keys("state")
            .property("mqtt_retain", "1"),
        Produced::new("gone").keys("gone"),
    ]);
    assert!(
        !live.receive_until(b"gone")[0].retain,
        "to whom had subscribed before it is a message like any other"
    );
    for version in Version::ALL {
        let later = broker.client(version, &format!("later-{}", version.number()));
        later.subscribe("r/#", 1);
        let message = later.receive();
        assert_eq!(
            (
                message.topic.as_str(),
                message.text().as_str(),
                message.retain
            ),
            ("r/state", "on", true)
        );
    }
    // An empty retained message clears it.
    topic.produce(&[
        Produced::new([0])
            .keys("state")
            .property("mqtt_retain", "1")
            .property("mqtt_empty", "1"),
        Produced::new("cleared").keys("x"),
    ]);
    live.receive_until(b"cleared");
    let last = broker.client(Version::V311, "last");
    last.subscribe("r/#", 1);
    last.publish(Publication::new("r/end", "end"));
    assert_eq!(
        last.receive_until(b"end").len(),
        1,
        "nothing is retained any more"
    );
}
