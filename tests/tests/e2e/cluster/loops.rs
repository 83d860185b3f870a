//! Nothing goes round in circles, and nothing comes twice.

use harness::probe::unique;
use harness::{Broker, Client, ClusterSpec, Mosquitto, Produced, Publication, Topic, Version};

use super::{all_of, texts};
use crate::downlink::from_earliest;

fn sorted(client: &Client, count: usize) -> Vec<String> {
    let mut texts = texts(&all_of(client, count));
    texts.sort();
    texts
}

#[test]
fn two_rules_that_feed_each_other_pass_a_message_on_once() {
    let (first, second) = (Topic::shared("ROUND_1", 1), Topic::shared("ROUND_2", 1));
    let here = from_earliest(Mosquitto::V2_0_11)
        .uplink(format!("round/# {}", first.name()))
        .downlink(format!("{} round/back", second.name()))
        .start();
    let there = from_earliest(Mosquitto::V2_1_2)
        .uplink(format!("round/# {}", second.name()))
        .downlink(format!("{} round/there", first.name()))
        .start();
    let (near, far) = (
        here.client(Version::V5, "near"),
        there.client(Version::V5, "far"),
    );
    near.subscribe("round/#", 1);
    far.subscribe("round/#", 1);
    here.client(Version::V311, "a")
        .publish(Publication::new("round/x", "from here"));
    there
        .client(Version::V311, "b")
        .publish(Publication::new("round/x", "from there"));
    assert_eq!(sorted(&near, 2), ["from here", "from there"]);
    assert_eq!(sorted(&far, 2), ["from here", "from there"]);
    for (topic, text) in [(&first, "from here"), (&second, "from there")] {
        let mut reader = topic.reader();
        reader.wait_for(1);
        assert_eq!(reader.texts(), [text]);
    }
}

#[test]
fn an_uplink_and_a_downlink_beside_a_share_of_the_same_topic_do_not_double_what_comes_from_rocketmq()
 {
    let commands = Topic::shared("BESIDE", 1);
    let archive = Topic::shared("BESIDE_UP", 1);
    let spec = ClusterSpec::new("BESIDE").share("room/#");
    let node = |version| {
        spec.node(version)
            .option("downlink_from", "earliest")
            .uplink(format!("room/# {}", archive.name()))
            .downlink(format!("{} room/%k", commands.name()))
            .start()
    };
    let nodes = Mosquitto::ALL.map(node);
    let listeners: Vec<Client> = nodes
        .iter()
        .map(|broker| {
            let client = broker.client(Version::V5, &unique("listener"));
            client.subscribe("room/#", 1);
            client
        })
        .collect();
    commands.produce(&[Produced::new("from an application").keys("x")]);
    nodes[0]
        .client(Version::V311, "device")
        .publish(Publication::new("room/x", "from a device"));
    for listener in &listeners {
        assert_eq!(
            sorted(listener, 2),
            ["from a device", "from an application"],
            "{listener:?}"
        );
    }
    // What was injected went neither up nor to the other nodes.
    for topic in [archive, spec.messages()] {
        let mut reader = topic.reader();
        reader.wait_for(1);
        assert_eq!(reader.texts(), ["from a device"]);
    }
}

#[test]
fn a_message_that_several_shared_filters_match_goes_once() {
    let cluster = ClusterSpec::new("SEVERAL")
        .share("s/#")
        .share("s/+/x")
        .share("+/a/x")
        .share("s/a/x")
        .start();
    let listeners: Vec<Client> = cluster
        .nodes
        .iter()
        .map(|broker| {
            let client = broker.client(Version::V5, &unique("listener"));
            client.subscribe("s/#", 2);
            client
        })
        .collect();
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let speaker = cluster.nodes[1].client(Version::V5, "speaker");
    for text in &expected {
        speaker.publish(Publication::new("s/a/x", text.as_str()).qos(2));
    }
    for listener in &listeners {
        assert_eq!(texts(&all_of(listener, 10)), expected, "{listener:?}");
    }
    let mut reader = cluster.spec.messages().reader();
    reader.wait_for(10);
    assert_eq!(reader.texts(), expected);
}

/// Two nodes and a native bridge between them, which takes what they share both ways.
struct Bridged {
    /// Has the bridge.
    here: Broker,
    there: Broker,
    /// Of the bridge, at the broker that it connects to.
    id: String,
}

impl Bridged {
    /// `is_named`: the configuration says which client is the bridge.
    fn start(version: Mosquitto, is_named: bool) -> Bridged {
        let spec = ClusterSpec::new("NATIVE").share("room/#");
        let id = unique("native");
        let node = || match is_named {
            true => spec.node(version).option("cluster_bridge", &id),
            false => spec.node(version),
        };
        let there = node().start();
        let here = node()
            .conf("connection native")
            .conf(format!("remote_clientid {id}"))
            .conf(format!("address 127.0.0.1:{}", there.port))
            // The second filter is not shared: by it is seen that the bridge is up.
            .conf("topic room/# both 1")
            .conf("topic probe/# out 1")
            .start();
        Bridged { here, there, id }
    }

    /// What listeners on both sides get of what devices on both sides publish.
    fn exchange(&self, round: &str) -> Vec<Vec<String>> {
        let Bridged { here, there, .. } = self;
        let (near, far) = (
            here.client(Version::V5, &unique("near")),
            there.client(Version::V5, &unique("far")),
        );
        near.subscribe("room/#", 1);
        far.subscribe("room/#", 1);
        far.subscribe("probe/#", 1);
        let device = here.client(Version::V311, &unique("device"));
        harness::eventually("the native bridge is up", || {
            device.publish(Publication::new("probe/x", "probe"));
            far.receive_within(std::time::Duration::from_millis(500))
        });
        let is_ours = |message: &harness::mqtt::Received| message.topic == "room/x";
        device.publish(Publication::new("room/x", format!("{round} from here")));
        there
            .client(Version::V311, &unique("device"))
            .publish(Publication::new("room/x", format!("{round} from there")));
        // Not to the end, which a loop does not have.
        std::thread::sleep(super::SETTLE * 2);
        let got = |listener: &Client| {
            let got = std::iter::from_fn(|| listener.try_receive()).filter(is_ours);
            let mut got: Vec<String> = got.take(10).map(|message| message.text()).collect();
            got.sort();
            got
        };
        vec![got(&near), got(&far)]
    }

    #[track_caller]
    fn check(&self, round: &str) {
        let expected = vec![format!("{round} from here"), format!("{round} from there")];
        assert_eq!(self.exchange(round), [expected.clone(), expected]);
    }
}

#[test]
fn a_native_bridge_between_two_nodes_that_is_named_makes_no_loop_and_no_copies() {
    for version in [Mosquitto::V2_0_11, Mosquitto::V2_1_2] {
        Bridged::start(version, true).check("named");
    }
}

#[test]
fn a_native_bridge_between_two_nodes_is_found_and_makes_no_loop_and_no_copies() {
    for version in [Mosquitto::V2_0_21, Mosquitto::V2_1_2] {
        let mut bridged = Bridged::start(version, false);
        let found = ["is a native bridge between nodes", &bridged.id];
        bridged.there.wait_for_log(&found);
        let local = format!("local.{}", bridged.id);
        bridged.here.wait_for_log(&["is a native bridge", &local]);
        bridged.check("found");
        // From then on it is known on both sides, from their starts on.
        bridged.there.terminate();
        bridged.there.start();
        bridged.there.wait_until_connected();
        bridged.check("there again");
        bridged.here.terminate();
        bridged.here.start();
        bridged.here.wait_until_connected();
        bridged.check("here again");
    }
}
