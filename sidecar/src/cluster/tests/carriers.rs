//! Native bridges between nodes, in the world of `core`'s tests.

use protocol::cluster::{Carrier, NativeBridge};

use super::*;

/// A bridge of the node with this client id at the other end.
fn has_bridge(world: &mut World, node: &str, remote_id: &str) {
    let bridge = NativeBridge {
        remote_id: remote_id.to_owned(),
        local_id: format!("local.{remote_id}"),
        addresses: "10.0.0.1".to_owned(),
    };
    world.node(node).core.set_own_bridges(vec![bridge]);
}

fn carriers(world: &World, node: &str) -> Vec<String> {
    world.nodes[node].carriers.iter().cloned().collect()
}

#[test]
fn both_ends_of_a_bridge_between_two_nodes_are_known_to_be_one() {
    let mut world = World::new(&["a", "b", "c"]);
    has_bridge(&mut world, "a", "h.native");
    world.pass(1_250);
    // Whoever it connects to knows it when it comes. It may be another broker altogether.
    assert_eq!(carriers(&world, "b"), ["h.native"]);
    assert_eq!(carriers(&world, "c"), ["h.native"]);
    assert!(carriers(&world, "a").is_empty());
    let login = world.log_in("b", "h.native");
    world.pass(1_000);
    assert_eq!(carriers(&world, "a"), ["local.h.native"]);
    // While it is away it is one.
    world.log_out("b", "h.native", login, 0x80);
    world.pass(599_000);
    assert_eq!(carriers(&world, "a"), ["local.h.native"]);
    let login = world.log_in("b", "h.native");
    world.pass(5_000);
    world.log_out("b", "h.native", login, 0x80);
    world.pass(599_000);
    assert_eq!(carriers(&world, "a"), ["local.h.native"]);
    world.pass(5_000);
    assert!(carriers(&world, "a").is_empty(), "it must be elsewhere");
    world.log_in("b", "h.native");
    world.pass(1_000);
    assert_eq!(carriers(&world, "a"), ["local.h.native"]);
    world.node("a").core.set_own_bridges(Vec::new());
    world.pass(2_000);
    assert!(carriers(&world, "a").is_empty() && carriers(&world, "b").is_empty());
}

#[test]
fn a_bridge_of_the_same_name_to_somewhere_else_is_none_between_nodes() {
    let mut world = World::new(&["a", "b"]);
    // Both hosts have the same name, and a bridge to the same cloud.
    has_bridge(&mut world, "a", "h.cloud");
    has_bridge(&mut world, "b", "h.cloud");
    world.pass(5_000);
    assert_eq!(carriers(&world, "a"), ["h.cloud"], "not local.h.cloud");
    assert_eq!(carriers(&world, "b"), ["h.cloud"]);
}

#[test]
fn a_node_that_shares_other_filters_is_not_relied_upon() {
    let mut world = World::new(&["a", "b"]);
    world.start_sharing("c", "c", 0, "chat/#");
    has_bridge(&mut world, "a", "h.native");
    world.pass(5_000);
    assert_eq!(carriers(&world, "b"), ["h.native"]);
    assert!(carriers(&world, "c").is_empty());
    world.log_in("c", "h.native");
    world.pass(1_000);
    assert!(carriers(&world, "a").is_empty());
}

fn carrier(client_id: &str, addresses: Option<&str>) -> Carrier {
    Carrier {
        client_id: client_id.to_owned(),
        addresses: addresses.map(str::to_owned),
    }
}

/// As the plugin finds them at its next start, if they are others than at the last one.
fn kept(world: &mut World, node: &str) -> Option<Vec<Carrier>> {
    let text = world.node(node).core.carriers.take_text();
    text.map(|text| protocol::cluster::carriers_of(text.as_bytes()))
}

#[test]
fn what_the_plugin_has_found_at_its_start_counts_until_it_is_told_otherwise() {
    let mut world = World::new(&["a", "b"]);
    has_bridge(&mut world, "b", "h.native");
    world.start("late", 0);
    let late = world.node("late");
    let found = [carrier("h.native", None), carrier("h.gone", None)];
    late.core.carriers.restore(found.to_vec());
    late.carriers
        .extend(["h.native".to_owned(), "h.gone".to_owned()]);
    world.pass(50_000);
    assert_eq!(carriers(&world, "late"), ["h.gone", "h.native"]);
    assert_eq!(kept(&mut world, "late"), None);
    world.pass(20_000);
    assert_eq!(carriers(&world, "late"), ["h.native"]);
    assert_eq!(
        kept(&mut world, "late"),
        Some(vec![carrier("h.native", None)])
    );
    assert_eq!(kept(&mut world, "late"), None);
    // The disk was full.
    world.node("late").core.carriers.not_written();
    assert!(kept(&mut world, "late").is_some());
    // Mosquitto starts again: it is told all that are.
    world.node("late").carriers.clear();
    world.event(
        "late",
        What::Started {
            saved_at_ms: 0,
            ran_until_ms: 0,
        },
    );
    world.pass(1_000);
    assert_eq!(carriers(&world, "late"), ["h.native"]);
}

#[test]
fn a_bridge_of_our_own_is_kept_with_where_it_connects_to() {
    let mut world = World::new(&["a", "b"]);
    has_bridge(&mut world, "a", "h.native");
    world.log_in("b", "h.native");
    world.pass(3_000);
    let own = carrier("local.h.native", Some("10.0.0.1"));
    assert_eq!(kept(&mut world, "a"), Some(vec![own.clone()]));
    assert_eq!(kept(&mut world, "b"), Some(vec![carrier("h.native", None)]));

    world.start("late", 0);
    let late = world.node("late");
    let elsewhere = carrier("local.h.other", Some("10.0.0.9"));
    late.core.carriers.restore(vec![own, elsewhere]);
    late.carriers
        .extend(["local.h.native".to_owned(), "local.h.other".to_owned()]);
    world.pass(2_000);
    assert_eq!(
        carriers(&world, "late").len(),
        3,
        "its own are not known yet"
    );
    has_bridge(&mut world, "late", "h.native");
    world.pass(1_000);
    assert_eq!(carriers(&world, "late"), ["h.native", "local.h.native"]);
}
