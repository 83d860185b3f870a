//! Which clients have missed something, in the world of `core`'s tests.

use super::*;
use crate::inbox::Place;

/// The client took its leave.
const LEFT: u8 = 0;

impl World {
    /// Logs in with a session, and subscribes: since when it is given what it missed, by the world's time.
    fn comes(&mut self, node: &str, client: &str) -> Option<u64> {
        self.log_in_with(node, client, false);
        self.subscribes(node, client, "t/#")
    }

    /// Takes its leave, and its session stays or not.
    fn leaves(&mut self, node: &str, client: &str, session_stays: bool) {
        let login = self.open[&(node.to_owned(), client.to_owned())];
        self.log_out_with(node, client, (login, LEFT), session_stays);
    }

    fn subscribes(&mut self, node: &str, client: &str, filter: &str) -> Option<u64> {
        let subscribed = What::Subscribed {
            client_id: client,
            filter,
            qos: 1,
            downlink_position: 64,
            uplink_position: 32,
        };
        let at_ms = BEGIN_MS + self.ms;
        match self.take(node, at_ms, subscribed).1? {
            Request::Client(want) => {
                assert_eq!(
                    (want.client_id.as_str(), want.filter.as_str()),
                    (client, filter)
                );
                assert_eq!((want.downlink_position, want.uplink_position), (64, 32));
                Some(want.since_ms - BEGIN_MS)
            }
            other => panic!("nothing else was lost: {other:?}"),
        }
    }
}

#[test]
fn a_client_that_left_its_node_has_missed_what_came_since() {
    let mut world = World::new(&["a", "b"]);
    assert_eq!(world.comes("a", "c"), None, "nobody knew it");
    world.pass(5_000);
    let left = world.ms;
    world.leaves("a", "c", true);
    world.pass(20_000);
    assert_eq!(world.comes("b", "c"), Some(left));
    assert_eq!(world.subscribes("b", "c", "$share/g/t"), None);
    assert_eq!(world.subscribes("b", "c", "u"), Some(left));
    world.pass(61_000);
    assert_eq!(world.subscribes("b", "c", "v"), None, "that is a new one");
    // It comes back to the node where it is.
    world.leaves("b", "c", true);
    world.pass(1_000);
    assert_eq!(world.comes("b", "c"), None, "Mosquitto has its session");
}

#[test]
fn a_client_without_a_session_has_missed_nothing() {
    let mut world = World::new(&["a", "b"]);
    world.comes("a", "ended");
    world.comes("a", "clean");
    world.pass(1_000);
    world.leaves("a", "ended", false);
    world.leaves("a", "clean", true);
    world.pass(1_000);
    assert_eq!(world.comes("b", "ended"), None);
    world.log_in_with("b", "clean", true);
    assert_eq!(world.subscribes("b", "clean", "t"), None);
}

#[test]
fn a_client_of_a_dead_node_has_missed_what_came_since_that_was_heard_last() {
    for wait_ms in [2_000, 20_000] {
        let mut world = World::new(&["a", "b"]);
        world.comes("a", "c");
        world.pass(3_000);
        world.node("a").is_dead = true;
        let died = world.ms;
        // Before the others know of it, and when they do.
        world.pass(wait_ms);
        let since = world.comes("b", "c").unwrap();
        assert!((died - 2_000..=died).contains(&since), "{since} {died}");
    }
}

#[test]
fn a_session_that_its_client_has_left_is_to_get_nothing() {
    let mut world = World::new(&["a", "b"]);
    world.comes("a", "c");
    let login = world.open[&("a".to_owned(), "c".to_owned())];
    world.leaves("a", "c", true);
    world.pass(1_000);
    world.comes("b", "c");
    world.pass(1_000);
    assert_eq!(world.nodes["a"].moved, [("c".to_owned(), login)]);
    // Mosquitto starts again, and has it still.
    let at_ms = BEGIN_MS + world.ms;
    world.take(
        "a",
        at_ms,
        What::Started {
            saved_at_ms: 1,
            ran_until_ms: 0,
        },
    );
    let restored = What::Restored {
        client_id: "c",
        filter: "t/#",
        qos: 1,
    };
    world.take("a", at_ms, restored);
    world.pass(1_000);
    assert_eq!(world.nodes["a"].moved.last(), Some(&("c".to_owned(), 0)));
    assert!(world.nodes["b"].moved.is_empty());
}

#[test]
fn where_a_client_is_every_node_knows_and_the_lowest_keeps_for_those_that_are_nowhere() {
    let mut world = World::new(&["a", "b"]);
    world.comes("b", "c");
    world.comes("b", "gone");
    world.pass(1_000);
    world.leaves("b", "gone", false);
    world.pass(1_000);
    let places =
        |world: &World, client: &str| ["a", "b"].map(|node| world.nodes[node].core.place(client));
    assert_eq!(places(&world, "c"), [Place::Elsewhere, Place::Here]);
    assert_eq!(places(&world, "gone"), [Place::Nowhere, Place::Unknown]);
    assert_eq!(
        places(&world, "never seen"),
        [Place::Nowhere, Place::Unknown]
    );
    // With a session it is its node's.
    world.leaves("b", "c", true);
    world.pass(1_000);
    assert_eq!(places(&world, "c"), [Place::Elsewhere, Place::Here]);
    world.node("b").is_dead = true;
    world.pass(10_000);
    assert_eq!(places(&world, "c")[0], Place::Nowhere);
}

/// What this node finds out late about clients that came: the times since when they were away.
fn settled(world: &mut World, node: &str) -> Vec<(String, u64)> {
    let requests = world.node(node).core.take_requests();
    let since = |request: Request| match request {
        Request::Client(want) => (want.client_id, want.since_ms - BEGIN_MS),
        other => panic!("{other:?}"),
    };
    requests.into_iter().map(since).collect()
}

#[test]
fn a_node_that_has_just_started_finds_out_since_when_its_clients_were_away() {
    let mut world = World::new(&["a", "b"]);
    for client in ["left", "is there", "never left", "ended"] {
        world.comes("a", client);
    }
    world.pass(1_000);
    world.leaves("a", "left", true);
    world.leaves("a", "ended", false);
    let left = world.ms;
    world.pass(10_000);
    // Of all that it has heard nothing.
    world.start("late", 0);
    world.pass(STEP_MS);
    for client in ["left", "is there", "ended", "new"] {
        assert_eq!(world.comes("late", client), None, "not known yet");
    }
    let came = world.ms;
    world.pass(5_000);
    let mut found = settled(&mut world, "late");
    found.sort();
    let expected = [("is there".to_owned(), came), ("left".to_owned(), left)];
    assert_eq!(found, expected);
    // From then on it knows at once.
    world.leaves("a", "never left", true);
    let left = world.ms;
    world.pass(1_000);
    assert_eq!(world.comes("late", "never left"), Some(left));
}

#[test]
fn the_clients_of_a_node_that_is_gone_are_told_to_one_that_joins_later() {
    let mut world = World::new(&["a", "b"]);
    world.comes("a", "c");
    world.pass(3_000);
    world.node("a").is_dead = true;
    let died = world.ms;
    world.pass(20_000);
    world.start("late", 0);
    world.pass(5_000);
    let since = world.comes("late", "c").expect("it is known");
    assert!((died - 2_000..=died).contains(&since), "{since} {died}");
}

#[test]
fn who_was_connected_when_its_broker_was_killed_is_away_since_then() {
    let mut world = World::new(&["a", "b"]);
    world.comes("a", "c");
    world.pass(10_000);
    let ran_until_ms = BEGIN_MS + world.ms - 3_000;
    let started = What::Started {
        saved_at_ms: 0,
        ran_until_ms,
    };
    world.event("a", started);
    world.pass(1_000);
    assert_eq!(world.comes("b", "c"), Some(ran_until_ms - BEGIN_MS));
}

/// RocketMQ is away: what was elsewhere is known when it is back.
#[test]
fn who_comes_while_nothing_is_heard_gets_what_it_has_missed_later() {
    let mut world = World::new(&["a", "b"]);
    world.comes("a", "c");
    world.pass(1_000);
    world.node("b").is_cut = true;
    world.pass(2_000);
    world.leaves("a", "c", true);
    let left = world.ms;
    world.pass(20_000);
    assert_eq!(world.comes("b", "c"), None);
    assert!(settled(&mut world, "b").is_empty());
    world.node("b").is_cut = false;
    world.pass(10_000);
    assert_eq!(settled(&mut world, "b"), [("c".to_owned(), left)]);
}

#[test]
fn a_session_that_its_broker_has_lost_is_nowhere_and_one_that_was_saved_is_there() {
    let mut world = World::new(&["a", "b"]);
    for client in ["lost", "saved"] {
        world.comes("b", client);
    }
    world.pass(1_000);
    for client in ["lost", "saved"] {
        world.leaves("b", client, true);
    }
    let left = world.ms;
    world.pass(1_000);
    let started = What::Started {
        saved_at_ms: 1,
        ran_until_ms: 0,
    };
    world.event("b", started);
    let restored = What::Restored {
        client_id: "saved",
        filter: "t/#",
        qos: 1,
    };
    world.event("b", restored);
    world.pass(1_000);
    let places =
        |world: &World, client: &str| ["a", "b"].map(|node| world.nodes[node].core.place(client));
    assert_eq!(places(&world, "lost"), [Place::Nowhere, Place::Unknown]);
    assert_eq!(places(&world, "saved"), [Place::Elsewhere, Place::Here]);
    // Both have missed the same.
    for client in ["lost", "saved"] {
        assert_eq!(world.comes("a", client), Some(left), "{client}");
    }
}
