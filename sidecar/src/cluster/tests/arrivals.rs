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
    world.take("a", at_ms, What::Started { saved_at_ms: 1 });
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
