//! Several nodes on a RocketMQ and a clock that the tests play: see `world`.

use proptest::prelude::*;

#[path = "arrivals.rs"]
mod arrivals;
#[path = "carriers.rs"]
mod carriers;
#[path = "world.rs"]
mod world;

use self::world::{BEGIN_MS, STEP_MS, World};
use super::*;
use crate::cluster::members::State;
use crate::cluster::report::Wanted;
use crate::cluster::wire::ONLINE;

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
    world.event(
        "a",
        What::Started {
            saved_at_ms: 0,
            ran_until_ms: 0,
        },
    );
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
