//! Rules files, SIGHUP, and rules that meet.

use std::fs;

use harness::{BrokerSpec, Mosquitto, Produced, Publication, Topic, Version, eventually};

use crate::downlink::from_earliest;

#[test]
fn sighup_takes_a_good_rules_file() {
    let (old, new) = (Topic::shared("HUP_OLD", 1), Topic::shared("HUP_NEW", 1));
    let down = Topic::shared("HUP_DOWN", 1);
    let dir = tempfile::tempdir().expect("a folder");
    let rules = dir.path().join("rules");
    fs::write(
        &rules,
        format!("# one rule\nuplink h/# {} tag=old\n", old.name()),
    )
    .expect("a file");
    let broker = from_earliest(Mosquitto::V2_0_11)
        .option("rules_file", rules.display().to_string())
        .start_in(dir);
    let client = broker.client(Version::V311, "hup");
    client.subscribe("from/above/#", 1);
    client.publish(Publication::new("h/1", "before"));
    old.reader().wait_for_body(b"before");
    fs::write(
        &rules,
        format!(
            "uplink h/# {} tag=new\ndownlink {} from/above/%k qos=1\n",
            new.name(),
            down.name()
        ),
    )
    .expect("a file");
    broker.hup();
    // The same client, still connected: a reload takes no connection down.
    let mut reader = new.reader();
    eventually("the new uplink rule is at work", || {
        client.publish(Publication::new("h/2", "after"));
        reader.poll();
        (!reader.messages.is_empty()).then_some(())
    });
    assert_eq!(reader.messages[0].tag.as_deref(), Some("new"));
    down.produce(&[Produced::new("new downlink").keys("k")]);
    assert_eq!(client.receive().topic, "from/above/k");
    // And the old rule is gone.
    client.publish(Publication::new("h/3", "end"));
    reader.wait_for_body(b"end");
    let mut reader = old.reader();
    reader.poll();
    assert!(
        !reader.texts().contains(&"end".to_owned()),
        "{:?}",
        reader.texts()
    );
}

#[test]
fn sighup_with_a_bad_rules_file_leaves_the_old_rules_at_work_and_says_why() {
    let topic = Topic::shared("HUP_BAD", 1);
    let dir = tempfile::tempdir().expect("a folder");
    let rules = dir.path().join("rules");
    let good = format!("uplink h/# {}\n", topic.name());
    fs::write(&rules, &good).expect("a file");
    for version in [Mosquitto::V2_0_11, Mosquitto::V2_1_2] {
        fs::write(&rules, &good).expect("a file");
        let mut broker = BrokerSpec::new(version)
            .option("rules_file", rules.display().to_string())
            .start();
        let client = broker.client(Version::V5, "hup");
        for (bad, words) in [
            (
                format!("{good}uplink h/#/x {}\n", topic.name()),
                vec!["uplink", "h/#/x"],
            ),
            (
                format!("{good}uplink h/+ SPACES!IN?IT\n"),
                vec!["uplink", "SPACES!IN?IT"],
            ),
            (
                format!("{good}downlink {} d/%k qos=7\n", topic.name()),
                vec!["downlink", "qos", "7"],
            ),
            (format!("{good}upwards h/# T\n"), vec!["upwards"]),
        ] {
            fs::write(&rules, bad).expect("a file");
            broker.hup();
            let mut words = words;
            let file = rules.display().to_string();
            words.push(&file);
            broker.wait_for_log(&words);
            let body = format!("still {words:?} on {version:?}");
            client.publish(Publication::new("h/x", body.clone()));
            topic.reader().wait_for_body(body.as_bytes());
        }
        fs::remove_file(&rules).expect("it is there");
        broker.hup();
        let body = format!("with no rules file on {version:?}");
        client.publish(Publication::new("h/x", body.clone()));
        topic.reader().wait_for_body(body.as_bytes());
        assert!(broker.is_running());
    }
}

#[test]
fn a_topic_that_goes_up_and_comes_down_reaches_each_subscriber_once() {
    let topic = Topic::shared("LOOP", 1);
    let spec = || {
        from_earliest(Mosquitto::V2_0_11)
            .uplink(format!("chat/# {} key=%c", topic.name()))
            .downlink(format!("{} %{{mqtt_topic}} qos=1", topic.name()))
    };
    let (here, there) = (spec().start(), spec().start());
    let (ann, bob) = (
        here.client(Version::V311, "ann"),
        there.client(Version::V5, "bob"),
    );
    ann.subscribe("chat/#", 1);
    bob.subscribe("chat/#", 1);
    for number in 0..30 {
        ann.publish(Publication::new("chat/room", format!("ann {number}")));
        bob.publish(Publication::new("chat/room", format!("bob {number}")));
    }
    let mut reader = topic.reader();
    reader.wait_for(60);
    // Behind everything else in the topic's one queue, and from RocketMQ itself, so both nodes get it from there.
    topic.produce(&[Produced::new("end").property("mqtt_topic", "chat/room")]);
    for client in [&ann, &bob] {
        let mut got: Vec<String> = client
            .receive_until(b"end")
            .iter()
            .map(harness::mqtt::Received::text)
            .collect();
        // What was published locally is there at once, so what comes last from RocketMQ is behind it all.
        got.pop();
        let of = |name: &str| {
            got.iter()
                .filter(|text| text.starts_with(name))
                .cloned()
                .collect::<Vec<_>>()
        };
        let expected = |name: &str| {
            (0..30)
                .map(|number| format!("{name} {number}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("ann"), expected("ann"), "{client:?}");
        assert_eq!(of("bob"), expected("bob"), "{client:?}");
        assert_eq!(got.len(), 60, "{client:?}");
    }
    // And no copy circles: RocketMQ has each message once.
    reader.wait_for(61);
    assert_eq!(reader.messages.len(), 61);
}
