//! Several nodes on a RocketMQ and a clock that the tests play.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::message::{Command, DownlinkFrame};

#[path = "arrivals.rs"]
mod arrivals;

use super::*;
use crate::cluster::members::State;
use crate::cluster::report::{Report, Wanted};
use crate::cluster::wire::Load;
use crate::cluster::wire::{News, ONLINE, SNAPSHOT};
use crate::groups::Groups;

const BEGIN_MS: u64 = 1_000_000;
const STEP_MS: u64 = 250;

struct Node {
    core: Core,
    /// How far it has read.
    read: (usize, usize),
    /// Neither sends nor reads.
    is_cut: bool,
    is_dead: bool,
    /// Its clock against the others'.
    skew_ms: u64,
    /// Logins that it was told to close.
    closed: Vec<(String, u64)>,
    moved: Vec<(String, u64)>,
    /// Payloads by topic, as its Mosquitto would keep them.
    retained: BTreeMap<String, String>,
}

struct World {
    begin: Instant,
    ms: u64,
    nodes: BTreeMap<String, Node>,
    beats: Vec<(Bytes, i64)>,
    presence: Vec<(Option<String>, Bytes)>,
    /// Connections, by node and client, with their logins.
    open: BTreeMap<(String, String), u64>,
}

impl World {
    fn new(nodes: &[&str]) -> World {
        let mut world = World {
            begin: Instant::now(),
            ms: 0,
            nodes: BTreeMap::new(),
            beats: Vec::new(),
            presence: Vec::new(),
            open: BTreeMap::new(),
        };
        for node in nodes {
            world.start(node, 0);
        }
        world.pass(3_000);
        world
    }

    fn start(&mut self, name: &str, skew_ms: u64) {
        self.start_as(name, name, skew_ms);
    }

    /// `name` is ours; the node calls itself `id`.
    fn start_as(&mut self, name: &str, id: &str, skew_ms: u64) {
        let options = [
            ("namesrv", "127.0.0.1:9876"),
            ("node_id", id),
            ("cluster", "factory"),
            ("share", "#"),
        ];
        let config = Config::from_options(options.into_iter()).unwrap();
        let spool = format!("spool of {name}");
        let instance = format!("{name} since {}", self.ms);
        let node = Node {
            core: Core::new(
                &config,
                &spool,
                &instance,
                Arc::new(Groups::new(id)),
                self.now(skew_ms),
            ),
            read: (self.beats.len(), self.presence.len()),
            is_cut: false,
            is_dead: false,
            skew_ms,
            closed: Vec::new(),
            moved: Vec::new(),
            retained: BTreeMap::new(),
        };
        self.nodes.insert(name.to_owned(), node);
    }

    fn now(&self, skew_ms: u64) -> Now {
        Now {
            at: self.begin + Duration::from_millis(self.ms),
            unix_ms: BEGIN_MS + self.ms + skew_ms,
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.ms + ms;
        while self.ms < until {
            self.ms += STEP_MS;
            self.step();
        }
    }

    fn step(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in &names {
            let now = self.now(self.nodes[name].skew_ms);
            let node = self.nodes.get_mut(name).unwrap();
            if node.is_dead {
                continue;
            }
            node.core.tick(now);
            if !node.is_cut {
                let stored_at_ms = i64::try_from(BEGIN_MS + self.ms).unwrap();
                if self.ms.is_multiple_of(1_000) {
                    let beat = node.core.members.next_beat(now, Load::default());
                    let asks = node.core.take_asks();
                    for message in [NodeMessage::Beat(beat)].into_iter().chain(asks) {
                        self.beats.push((message.outgoing().body, stored_at_ms));
                    }
                }
                let batch = node.core.next_presence(64, now);
                self.presence
                    .extend(batch.into_iter().map(|message| (message.tag, message.body)));
            }
        }
        for name in &names {
            let now = self.now(self.nodes[name].skew_ms);
            let node = self.nodes.get_mut(name).unwrap();
            if node.is_dead || node.is_cut {
                continue;
            }
            for (body, stored_at_ms) in &self.beats[node.read.0..] {
                node.core.node_message(body, *stored_at_ms, now);
            }
            for (tag, body) in &self.presence[node.read.1..] {
                node.core.presence_message(tag.as_deref(), body, now);
            }
            node.read = (self.beats.len(), self.presence.len());
            for frame in node.core.next_frames(1_000, now) {
                match DownlinkFrame::decode(&frame.bytes).unwrap() {
                    DownlinkFrame::Command(Command::Close {
                        client_id,
                        login,
                        reason,
                        ..
                    }) => {
                        assert_eq!(reason, cause::TAKEN_OVER);
                        node.closed.push((client_id.to_owned(), login));
                    }
                    DownlinkFrame::Command(Command::Moved {
                        client_id, login, ..
                    }) => node.moved.push((client_id.to_owned(), login)),
                    DownlinkFrame::Selected(_) => panic!("nobody has missed anything"),
                    DownlinkFrame::Message(message) => {
                        assert!(message.retain);
                        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                        node.retained.insert(message.topic.to_owned(), payload);
                    }
                }
            }
        }
        // The plugin closes what is still of that login, and tells so.
        for name in &names {
            for (client, login) in self.nodes[name].closed.clone() {
                if self.open.get(&(name.clone(), client.clone())) == Some(&login) {
                    self.log_out(name, &client, login, cause::TAKEN_OVER);
                }
            }
        }
    }

    fn event(&mut self, node: &str, what: What<'_>) -> u64 {
        let at_ms = BEGIN_MS + self.ms + self.nodes[node].skew_ms;
        self.take(node, at_ms, what).0
    }

    fn take(&mut self, node: &str, at_ms: u64, what: What<'_>) -> (u64, Option<Request>) {
        self.node(node).core.event(&Event { at_ms, what })
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap()
    }

    /// By the node's clock; gives the login.
    fn log_in(&mut self, node: &str, client: &str) -> u64 {
        self.log_in_with(node, client, true)
    }

    fn log_in_with(&mut self, node: &str, client: &str, clean: bool) -> u64 {
        let login = BEGIN_MS + self.ms + self.nodes[node].skew_ms;
        let online = What::Online {
            client_id: client,
            username: None,
            login,
            mqtt_version: 5,
            clean,
        };
        self.event(node, online);
        let place = (node.to_owned(), client.to_owned());
        self.open.insert(place, login);
        login
    }

    fn log_out(&mut self, node: &str, client: &str, login: u64, cause: u8) {
        self.log_out_with(node, client, (login, cause), false);
    }

    fn log_out_with(
        &mut self,
        node: &str,
        client: &str,
        (login, cause): (u64, u8),
        session_stays: bool,
    ) {
        let offline = What::Offline {
            client_id: client,
            login,
            cause,
            session_stays,
        };
        self.event(node, offline);
        self.open.remove(&(node.to_owned(), client.to_owned()));
    }

    /// Where each node says that a client is: `node`, or why it is not there.
    fn places(&self, client: &str) -> Vec<String> {
        let living = self.nodes.values().filter(|node| !node.is_dead);
        let place = |node: &Node| {
            let wanted = Wanted {
                id: Some(client.to_owned()),
                ..Wanted::default()
            };
            match &node.core.clients(&wanted).clients[..] {
                [] => "unknown".to_owned(),
                [found, ..] => found.cause.clone().unwrap_or_else(|| found.node.clone()),
            }
        };
        living.map(place).collect()
    }

    fn states(&self, by: &str) -> Vec<(String, State)> {
        let mut report = Report::default();
        let node = &self.nodes[by];
        node.core.fill(&mut report, self.now(node.skew_ms));
        let nodes = report.nodes.into_iter();
        nodes.map(|node| (node.node, node.state)).collect()
    }

    /// What was told of a client, in the order in which RocketMQ has it.
    fn told(&self, client: &str) -> Vec<(String, bool, String)> {
        let news = self
            .presence
            .iter()
            .filter(|(tag, _)| tag.as_deref() != Some(SNAPSHOT));
        news.map(|(_, body)| serde_json::from_slice::<News>(body).unwrap())
            .filter(|news| news.client == client)
            .map(|news| (news.node, news.online, news.by))
            .collect()
    }
}

#[test]
fn all_nodes_know_where_a_client_is_and_why_it_has_gone() {
    let mut world = World::new(&["a", "b", "c"]);
    let login = world.log_in("a", "dev");
    world.pass(STEP_MS);
    assert_eq!(world.places("dev"), ["a", "a", "a"]);
    assert!(world.nodes["c"].retained["$presence/dev"].contains(r#""node":"a","online":true"#));
    world.log_out("a", "dev", login, 0x8D);
    world.pass(STEP_MS);
    assert_eq!(world.places("dev"), ["keep alive timeout"; 3]);
    assert!(world.nodes["b"].retained["$presence/dev"].contains(r#""online":false"#));
    let told = [
        ("a".to_owned(), true, "a".to_owned()),
        ("a".to_owned(), false, "a".to_owned()),
    ];
    assert_eq!(world.told("dev"), told);
}

#[test]
fn a_login_elsewhere_takes_the_session_over_and_the_old_one_alone_is_closed() {
    let mut world = World::new(&["a", "b", "c"]);
    let first = world.log_in("a", "dev");
    world.pass(1_000);
    world.log_in("b", "dev");
    world.pass(1_000);
    assert_eq!(world.nodes["a"].closed, [("dev".to_owned(), first)]);
    assert!(world.nodes["b"].closed.is_empty() && world.nodes["c"].closed.is_empty());
    assert_eq!(world.places("dev"), ["b", "b", "b"]);
    assert_eq!(world.nodes["a"].core.counters.takeovers, 1);
    // And on again, and back.
    world.log_in("c", "dev");
    world.pass(1_000);
    world.log_in("a", "dev");
    world.pass(1_000);
    assert_eq!(
        (world.nodes["b"].closed.len(), world.nodes["c"].closed.len()),
        (1, 1)
    );
    assert_eq!(world.places("dev"), ["a", "a", "a"]);
}

#[test]
fn of_two_logins_in_the_same_millisecond_one_is_closed_whatever_is_heard_first() {
    let mut world = World::new(&["a", "b", "c"]);
    let login = world.log_in("a", "dev");
    assert_eq!(world.log_in("b", "dev"), login);
    world.pass(1_000);
    assert_eq!(world.nodes["a"].closed, [("dev".to_owned(), login)]);
    assert!(world.nodes["b"].closed.is_empty());
    assert_eq!(world.places("dev"), ["b", "b", "b"]);
}

#[test]
fn a_device_does_not_lose_against_its_older_session_on_a_node_whose_clock_is_ahead() {
    let mut world = World::new(&["b"]);
    world.start("ahead", 600_000);
    world.pass(3_000);
    let login = world.log_in("ahead", "dev");
    world.pass(1_000);
    world.log_in("b", "dev");
    world.pass(1_000);
    assert_eq!(world.nodes["ahead"].closed, [("dev".to_owned(), login)]);
    assert!(world.nodes["b"].closed.is_empty());
    assert_eq!(world.places("dev"), ["b", "b"]);
}

#[test]
fn the_end_of_a_login_on_a_node_whose_clock_is_ahead_does_not_close_a_later_one() {
    let mut world = World::new(&["b", "c"]);
    world.start("ahead", 600_000);
    world.pass(3_000);
    let login = world.log_in("ahead", "dev");
    world.pass(1_000);
    world.log_out("ahead", "dev", login, 0);
    world.pass(1_000);
    // It starts again, and has heard nothing of that login.
    world.start("b", 0);
    world.pass(3_000);
    world.log_in("b", "dev");
    world.pass(2_000);
    assert!(world.nodes["b"].closed.is_empty());
    assert_eq!(world.places("dev"), ["b", "b", "b"]);
}

#[test]
fn who_joins_late_is_told_of_all_clients() {
    let mut world = World::new(&["a", "b"]);
    for number in 0..1_200 {
        world.log_in("a", &format!("dev{number:04}"));
    }
    world.log_in("b", "other");
    world.pass(6_000);
    world.start("late", 0);
    world.pass(5_000);
    let late = &world.nodes["late"].core;
    assert_eq!(late.clients(&Wanted::default()).clients.len(), 1_201);
    assert_eq!(late.counters.snapshots_heard, 2);
    assert_eq!(world.places("other"), ["b", "b", "b"]);
    assert_eq!(world.nodes["late"].retained.len(), 1_201);
}

#[test]
fn a_dead_nodes_clients_go_offline_and_one_node_tells_it() {
    let mut world = World::new(&["a", "b", "c"]);
    world.log_in("c", "dev");
    world.pass(1_000);
    world.node("c").is_dead = true;
    world.pass(4_000);
    assert_eq!(world.places("dev"), ["c", "c"]);
    assert_eq!(world.states("b")[2], ("c".to_owned(), State::Suspect));
    world.pass(2_000);
    assert_eq!(world.places("dev"), ["node lost", "node lost"]);
    assert_eq!(world.states("a")[2], ("c".to_owned(), State::Dead));
    let (_, news) = world
        .told("dev")
        .split_first()
        .map(|(first, rest)| (first.clone(), rest.to_vec()))
        .unwrap();
    assert_eq!(news, [("c".to_owned(), false, "a".to_owned())]);
    assert!(world.nodes["b"].retained["$presence/dev"].contains("node lost"));
    // It comes back without that client.
    world.start("c", 0);
    world.pass(4_000);
    assert_eq!(world.states("a")[2], ("c".to_owned(), State::Alive));
    world.log_in("c", "dev");
    world.pass(1_000);
    assert_eq!(world.places("dev"), ["c", "c", "c"]);
}

#[test]
fn a_node_that_was_only_cut_off_has_its_clients_back() {
    let mut world = World::new(&["a", "b", "c"]);
    world.log_in("c", "dev");
    let gone = world.log_in("c", "gone");
    world.pass(1_000);
    world.node("c").is_cut = true;
    world.pass(20_000);
    assert_eq!(world.states("c")[0], ("a".to_owned(), State::Unknown));
    assert_eq!(world.places("dev"), ["node lost", "node lost", "c"]);
    world.log_out("c", "gone", gone, 0);
    world.log_in("c", "new");
    world.node("c").is_cut = false;
    world.pass(3_000);
    assert_eq!(world.places("dev"), ["c", "c", "c"]);
    assert_eq!(world.places("new"), ["c", "c", "c"]);
    assert_eq!(world.places("gone"), ["disconnected"; 3]);
    assert!(world.nodes["c"].closed.is_empty());
    assert_eq!(world.states("c")[0], ("a".to_owned(), State::Alive));
}

#[test]
fn who_went_elsewhere_while_its_node_was_cut_off_is_closed_there_when_it_is_back() {
    let mut world = World::new(&["a", "b", "c"]);
    let login = world.log_in("c", "dev");
    world.pass(1_000);
    world.node("c").is_cut = true;
    world.pass(2_000);
    world.log_in("b", "dev");
    world.pass(18_000);
    assert_eq!(world.places("dev"), ["b", "b", "c"]);
    world.node("c").is_cut = false;
    world.pass(3_000);
    assert_eq!(world.nodes["c"].closed, [("dev".to_owned(), login)]);
    assert_eq!(world.places("dev"), ["b", "b", "b"]);
    assert!(world.nodes["b"].closed.is_empty());
}

#[test]
fn a_node_whose_own_view_was_not_lost_is_asked_again_by_who_took_it_for_dead() {
    let mut world = World::new(&["a", "b"]);
    world.log_in("b", "dev");
    world.pass(1_000);
    // Another way to lose sight of it: a hears nothing of it for a while, though it is not cut off.
    let epoch = world.nodes["b"].core.epoch;
    let now = world.now(0);
    world.node("a").core.give_up("b", cause::NODE_LOST, now);
    assert_eq!(world.places("dev"), ["node lost", "b"]);
    world.pass(8_000);
    assert_eq!(world.places("dev"), ["b", "b"]);
    assert!(world.nodes["b"].core.epoch > epoch);
}

#[test]
fn of_two_nodes_with_one_id_the_younger_tells_nothing_until_the_elder_is_gone() {
    let mut world = World::new(&["a", "b"]);
    world.start_as("twin", "b", 0);
    world.log_in("twin", "dev");
    world.pass(5_000);
    assert!(world.nodes["twin"].core.members.is_refused);
    assert!(!world.nodes["b"].core.members.is_refused);
    assert_eq!(
        world.nodes["a"]
            .core
            .clients(&Wanted::default())
            .clients
            .len(),
        0
    );
    world.node("b").is_dead = true;
    world.pass(8_000);
    assert!(!world.nodes["twin"].core.members.is_refused);
    assert_eq!(world.places("dev"), ["b", "b"]);
}

#[test]
fn after_a_start_of_mosquitto_its_clients_are_offline() {
    let mut world = World::new(&["a", "b"]);
    world.log_in("a", "dev");
    world.pass(1_000);
    world.event("a", What::Started { saved_at_ms: 0 });
    world.pass(1_000);
    assert_eq!(
        world.places("dev"),
        ["broker restarted", "broker restarted"]
    );
}

#[test]
fn who_starts_again_at_once_has_only_the_clients_that_it_tells() {
    let mut world = World::new(&["a", "b"]);
    world.log_in("b", "dev");
    world.log_in("b", "gone");
    world.pass(1_000);
    world.start("b", 0);
    world.log_in("b", "dev");
    world.pass(4_000);
    assert_eq!(world.states("a")[1], ("b".to_owned(), State::Alive));
    assert_eq!(world.places("dev"), ["b", "b"]);
    assert_eq!(world.places("gone"), ["gone", "unknown"]);
}

#[test]
fn what_is_not_understood_is_passed_over() {
    let mut world = World::new(&["a"]);
    let now = world.now(0);
    let core = &mut world.node("a").core;
    core.node_message(b"{\"what\":\"of a later version\"}", 0, now);
    core.node_message(b"rubbish", 0, now);
    core.presence_message(Some(ONLINE), b"{}", now);
    core.presence_message(Some("later"), b"{}", now);
    assert_eq!(core.counters.not_understood, 4);
}

#[test]
fn clients_are_told_in_pages_in_the_order_of_their_ids() {
    let mut world = World::new(&["a"]);
    for number in 0..7_000 {
        world.log_in("a", &format!("dev{number:04}"));
    }
    let core = &world.nodes["a"].core;
    let first = core.clients(&Wanted::default());
    assert!(first.has_more && first.clients.len() == 5_000);
    assert_eq!(first.clients[4_999].client, "dev4999");
    let after = Some("dev4999".to_owned());
    let rest = core.clients(&Wanted {
        after,
        ..Wanted::default()
    });
    assert!(!rest.has_more && rest.clients.len() == 2_000);
    let elsewhere = core.clients(&Wanted {
        node: Some("b".to_owned()),
        ..Wanted::default()
    });
    assert!(elsewhere.clients.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever two devices do on three nodes whose clocks are apart and which are cut off now and then: in the end all nodes say the same, and
    /// each device has one connection at most, where they say that it is.
    #[test]
    fn in_the_end_all_agree_and_no_client_is_there_twice(
        skews in prop::array::uniform3(0..5_000_u64),
        steps in prop::collection::vec((0..3_usize, 0..5_u8, 0..2_usize, 0..12_u64), 1..40),
    ) {
        let names = ["a", "b", "c"];
        let mut world = World::new(&[]);
        for (name, skew_ms) in names.iter().zip(skews) {
            world.start(name, skew_ms);
        }
        world.pass(4_000);
        for (node, action, client, wait) in steps {
            let (node, client) = (names[node], ["dev", "other"][client]);
            let open = world.open.get(&(node.to_owned(), client.to_owned())).copied();
            match (action, open) {
                (0 | 1, None) => drop(world.log_in(node, client)),
                (0..=2, Some(login)) => world.log_out(node, client, login, 0),
                (3, _) => world.node(node).is_cut ^= true,
                _ => {}
            }
            world.pass(wait * wait * STEP_MS);
        }
        for name in names {
            world.node(name).is_cut = false;
        }
        world.pass(30_000);
        for client in ["dev", "other"] {
            let places = world.places(client);
            prop_assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
            let open: Vec<&str> = names
                .into_iter()
                .filter(|name| world.open.contains_key(&((*name).to_owned(), client.to_owned())))
                .collect();
            match open[..] {
                [] => prop_assert!(!names.contains(&places[0].as_str()), "{places:?}"),
                [one] => prop_assert_eq!(&places[0], one),
                _ => prop_assert!(false, "{client} is at {open:?}, and said to be at {places:?}"),
            }
        }
    }
}
