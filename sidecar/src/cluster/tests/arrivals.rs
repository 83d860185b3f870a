//! Which clients have missed something, in the world of `core`'s tests.

use super::*;

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
            Request::Retained(_) => panic!("nothing was lost"),
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
