//! Several nodes at work on one RocketMQ.

use std::collections::BTreeMap;

use protocol::message::{Command, DownlinkFrame};

use super::*;
use crate::cluster::report::{State, Wanted};

struct Node {
    sidecar: Sidecar,
    plugin: Plugin,
    downlink: Reader,
    /// What its Mosquitto was told to close, and to publish.
    closed: Vec<(String, u64, u8)>,
    retained: BTreeMap<String, String>,
    dir: tempfile::TempDir,
}

impl Node {
    fn start(node: &str, fake: &Fake) -> Node {
        Node::start_in(tempfile::tempdir().unwrap(), node, fake)
    }

    fn start_in(dir: tempfile::TempDir, node: &str, fake: &Fake) -> Node {
        let sidecar = Sidecar::start(dir.path(), node, fake);
        Node {
            sidecar,
            plugin: Plugin::open(dir.path()),
            downlink: Reader::open(&dir.path().join("downlink"), &ReaderOptions::default())
                .unwrap(),
            closed: Vec::new(),
            retained: BTreeMap::new(),
            dir,
        }
    }

    /// As the plugin takes what is in the downlink log.
    fn tick(&mut self) {
        while let Some(frame) = self.downlink.poll().unwrap() {
            match DownlinkFrame::decode(frame.payload).unwrap() {
                DownlinkFrame::Command(Command::Close {
                    client_id,
                    login,
                    reason,
                    ..
                }) => self.closed.push((client_id.to_owned(), login, reason)),
                DownlinkFrame::Command(Command::Moved { .. } | Command::Carrier { .. }) => {}
                DownlinkFrame::Selected(_) => panic!("nobody has missed anything"),
                DownlinkFrame::Message(message) => {
                    let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                    self.retained.insert(message.topic.to_owned(), payload);
                }
            }
        }
        let read = self.downlink.position();
        self.downlink.release(read);
    }

    fn place(&self, client: &str) -> String {
        let wanted = Wanted {
            id: Some(client.to_owned()),
            ..Wanted::default()
        };
        match &self.sidecar.cluster.shared.clients(&wanted).clients[..] {
            [] => "unknown".to_owned(),
            [found, ..] => found.cause.clone().unwrap_or_else(|| found.node.clone()),
        }
    }

    fn state(&self, node: &str) -> Option<State> {
        let report = self.sidecar.cluster.shared.report();
        let found = report.nodes.into_iter().find(|known| known.node == node);
        found.map(|known| known.state)
    }

    fn is_at_work(&self) -> bool {
        self.sidecar.cluster.shared.report().is_at_work
    }

    async fn knows(&self, others: &[&str]) {
        eventually("all nodes are there", || {
            let is_alive = |node: &&str| self.state(node) == Some(State::Alive);
            self.is_at_work() && others.iter().all(is_alive)
        })
        .await;
    }

    /// As a killed process: without a word. Its spool stays.
    async fn kill(self, node: &str, fake: &Fake) -> tempfile::TempDir {
        fake.cut_off(node, true);
        self.sidecar.stop().await;
        fake.cut_off(node, false);
        self.dir
    }
}

async fn three(fake: &Fake) -> [Node; 3] {
    let nodes = ["a", "b", "c"].map(|node| Node::start(node, fake));
    for node in &nodes {
        node.knows(&["a", "b", "c"]).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logins_in_the_same_millisecond_leave_one() {
    let fake = Fake::default();
    let mut nodes = three(&fake).await;
    let login = unix_ms();
    for node in &mut nodes[..2] {
        node.plugin.tell(online("dev", login));
    }
    // The lower one; or the one that was read first by then, which makes the other the later login.
    eventually("one is told to close", || {
        nodes.iter_mut().for_each(Node::tick);
        nodes.iter().any(|node| !node.closed.is_empty())
    })
    .await;
    let loser = usize::from(nodes[0].closed.is_empty());
    let winner = ["b", "a"][loser];
    assert_eq!(nodes[loser].closed, [("dev".to_owned(), login, 0x8E)]);
    nodes[loser].plugin.tell(What::Offline {
        client_id: "dev",
        login,
        cause: 0x8E,
        session_stays: false,
    });
    let published = format!(r#""node":"{winner}","online":true"#);
    eventually("all know where it is", || {
        nodes.iter_mut().for_each(Node::tick);
        let is_told = |node: &Node| {
            let retained = node.retained.get("$presence/dev");
            retained.is_some_and(|json| json.contains(&published))
        };
        let is_known = |node: &Node| node.place("dev") == winner && is_told(node);
        nodes.iter().all(is_known)
    })
    .await;
    assert!(nodes[1 - loser].closed.is_empty() && nodes[2].closed.is_empty());
    for node in nodes {
        node.sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_and_a_dead_node() {
    let fake = Fake::default();
    let [mut a, b, mut c] = three(&fake).await;
    c.plugin.tell(online("dev", unix_ms()));
    a.plugin.tell(online("other", unix_ms()));
    let late = Node::start("late", &fake);
    eventually("the late one knows all clients", || {
        late.place("dev") == "c" && late.place("other") == "a"
    })
    .await;
    let dir = c.kill("c", &fake).await;
    let others = [&a, &b, &late];
    eventually("all know that it is dead", || {
        let is_known =
            |node: &&Node| node.state("c") == Some(State::Dead) && node.place("dev") == "node lost";
        others.iter().all(is_known)
    })
    .await;
    // Only its sidecar was away: it has the client still.
    let c = Node::start_in(dir, "c", &fake);
    eventually("it is back with its client", || {
        let is_known =
            |node: &&Node| node.state("c") == Some(State::Alive) && node.place("dev") == "c";
        others.iter().all(is_known)
    })
    .await;
    let offline = fake.bodies("MQTT_CLUSTER_factory_PRESENCE", "offline");
    let is_told = |body: &String| body.contains("node lost") && !body.contains(r#""by":"c""#);
    assert!(
        !offline.is_empty() && offline.iter().all(is_told),
        "{offline:?}"
    );
    // Who leaves in order is not missed.
    c.sidecar.stop().await;
    eventually("it has left", || a.state("c") == Some(State::Left)).await;
    for node in [a, b, late] {
        node.sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_id_that_is_used_twice_is_refused() {
    let fake = Fake::default();
    let elder = Node::start("a", &fake);
    elder.knows(&[]).await;
    let younger = Node::start("a", &fake);
    eventually("the younger one gives way", || {
        let shared = &younger.sidecar.cluster.shared;
        let problem = shared.problem().map(|reason| reason.what);
        problem.as_deref() == Some(crate::health::what::NODE_ID_TWICE) && shared.report().is_refused
    })
    .await;
    assert_eq!(**younger.sidecar.interest.borrow(), Interest::default());
    assert!(elder.is_at_work() && elder.sidecar.cluster.shared.problem().is_none());
    elder.sidecar.stop().await;
    eventually("the younger one works", || younger.is_at_work()).await;
    assert!(younger.sidecar.interest.borrow().tags.contains_key("R"));
    younger.sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_says_nothing_of_the_others_and_tells_what_it_has_when_it_is_back() {
    let fake = Fake::default();
    let [a, b, mut c] = three(&fake).await;
    fake.cut_off("c", true);
    eventually("it knows nothing of the others", || {
        c.state("a") == Some(State::Unknown) && c.state("b") == Some(State::Unknown)
    })
    .await;
    c.plugin.tell(online("dev", unix_ms()));
    eventually("its health says so", || {
        let problem = c.sidecar.cluster.shared.problem().map(|reason| reason.what);
        problem.as_deref() == Some(crate::health::what::CLUSTER_AWAY)
    })
    .await;
    let report = c.sidecar.cluster.shared.report();
    assert!(report.counters.heartbeats_failed > 0 && report.stale_since_ms.is_some());
    assert_eq!(a.place("dev"), "unknown");
    fake.cut_off("c", false);
    eventually("all is well", || {
        let is_well = |node: &&Node| {
            let is_alive = |other: &&str| node.state(other) == Some(State::Alive);
            node.place("dev") == "c" && ["a", "b", "c"].iter().all(is_alive)
        };
        [&a, &b, &c].iter().all(is_well)
    })
    .await;
    for node in [a, b, c] {
        node.sidecar.stop().await;
    }
    assert!(
        fake.commits("GID_MQTT_c_CLUSTER") > 0,
        "a restart reads on from there"
    );
}
