use super::look::{AWAY_MAX, KNOWN_MS};
use super::*;
use proptest::prelude::*;

fn heard(node: &str, version: u64, epoch: u64, seq: u64, is_online: bool) -> Heard<'_> {
    Heard {
        node,
        version,
        epoch,
        seq,
        is_online,
        cause: 0,
        session_stays: false,
        at_ms: 1_000,
    }
}

#[test]
fn a_login_is_raised_above_what_is_known_of_that_client() {
    let mut table = Table::new("a", true);
    assert_eq!(table.log_in("c", 100, 100), 100);
    assert_eq!(table.log_in("c", 100, 100), 100, "the same event again");
    table.learn("c", &heard("b", 5_000, 1, 1, true));
    assert_eq!(table.log_in("c", 200, 200), 5_001);
    let entry = table.get("c").unwrap();
    assert!(Table::is_ours(entry) && entry.login == 200);
}

#[test]
fn a_later_login_elsewhere_supersedes_ours_and_an_earlier_one_does_not() {
    let mut table = Table::new("b", true);
    table.log_in("c", 100, 100);
    assert_eq!(
        table.learn("c", &heard("z", 99, 1, 1, true)),
        Learned::Stale
    );
    assert_eq!(
        table.learn("c", &heard("a", 100, 1, 1, true)),
        Learned::Stale
    );
    let learned = table.learn("c", &heard("c", 100, 1, 1, true));
    assert_eq!(learned, Learned::Supersedes { login: 100 });
    assert!(!table.log_out("c", 100, 0x8E, false, 200), "it is c's now");
    assert_eq!(table.node_of(table.get("c").unwrap()), "c");
}

#[test]
fn what_one_node_tells_is_ordered_by_its_epoch_and_number() {
    let mut table = Table::new("a", true);
    table.learn("c", &heard("b", 100, 7, 5, true));
    assert_eq!(
        table.learn("c", &heard("b", 100, 7, 4, false)),
        Learned::Stale
    );
    assert_eq!(
        table.learn("c", &heard("b", 100, 7, 5, true)),
        Learned::Known
    );
    assert_eq!(table.give_up("b", 7, cause::NODE_LOST, 2_000).len(), 1);
    assert_eq!(
        table.learn("c", &heard("b", 100, 7, 6, true)),
        Learned::Stale
    );
    assert_eq!(
        table.learn("c", &heard("b", 100, 8, 1, true)),
        Learned::Fresh
    );
    assert!(table.get("c").unwrap().is_online);
}

#[test]
fn what_is_not_in_a_snapshot_is_gone_but_for_what_was_told_later() {
    let mut table = Table::new("a", true);
    table.learn("gone", &heard("b", 100, 7, 1, true));
    table.learn("there", &heard("b", 100, 7, 2, true));
    table.learn("later", &heard("b", 100, 7, 9, true));
    table.learn("else", &heard("d", 100, 7, 1, true));
    table.learn("there", &heard("b", 100, 7, 5, true));
    let over = table.only_told("b", 7, 5, 2_000);
    assert_eq!(over, [Box::from("gone")]);
    assert_eq!(table.get("gone").unwrap().cause, cause::GONE);
}

#[test]
fn only_the_last_state_of_a_client_is_told_and_published() {
    let mut table = Table::new("a", true);
    table.log_in("c", 100, 100);
    table.log_out("c", 100, 0x8D, false, 200);
    table.log_in("d", 100, 100);
    let told: Vec<_> = std::iter::from_fn(|| table.next_to_tell()).collect();
    let told: Vec<_> = told
        .iter()
        .map(|(client, entry)| (&**client, entry.is_online))
        .collect();
    assert_eq!(told, [("c", false), ("d", true)]);
    let (client, entry) = table.next_to_publish().unwrap();
    assert_eq!((&*client, entry.unwrap().cause), ("c", 0x8D));
    table.publish_again("c");
    assert_eq!(table.waiting(), (0, 2));
}

#[test]
fn who_is_long_away_is_forgotten_and_no_more_published() {
    let mut table = Table::new("a", true);
    table.log_in("c", 100, 100);
    table.log_out("c", 100, 0, false, 1_000);
    table.log_in("kept", 100, 100);
    table.log_out("kept", 100, 0, true, 1_000);
    table.forget(1_001 + KNOWN_MS);
    assert!(table.get("c").is_some(), "it is yet to be told");
    while table.next_to_tell().is_some() {}
    while table.next_to_publish().is_some() {}
    table.forget(1_000 + KNOWN_MS);
    assert!(table.get("c").is_some());
    table.forget(1_001 + KNOWN_MS);
    assert!(table.get("c").is_none() && table.get("kept").is_some());
    assert_eq!(table.next_to_publish(), Some(("c".into(), None)));
}

#[test]
fn no_more_than_so_many_are_known_that_are_away() {
    let mut table = Table::new("a", false);
    for number in 0..AWAY_MAX as u64 + 10 {
        let client = format!("c{number}");
        table.log_in(&client, 100, 100);
        table.log_out(&client, 100, 0, true, 1_000 + number);
    }
    table.forget(2_000);
    assert_eq!(table.iter().count(), AWAY_MAX);
    assert!(table.get("c9").is_none() && table.get("c10").is_some());
    assert_eq!(table.waiting().1, 0, "nothing is published");
}

proptest! {
    /// In whatever order two nodes hear the same, they know the same in the end.
    #[test]
    fn the_order_of_arrival_says_nothing(
        told in prop::collection::vec((0..3_usize, 0..4_u64, 0..3_u64, 0..3_u64), 1..12),
        order in any::<prop::sample::Index>(),
    ) {
        let nodes = ["b", "c", "d"];
        // Whether it is online is a part of what has this number.
        let heard: Vec<_> = told
            .iter()
            .map(|(node, version, epoch, seq)| heard(nodes[*node], *version, *epoch, *seq, (version + epoch + seq) % 2 == 0))
            .collect();
        let known = |heard: &[Heard<'_>]| {
            let mut table = Table::new("a", false);
            for heard in heard {
                table.learn("client", heard);
            }
            let entry = table.get("client").unwrap();
            (table.node_of(entry).to_owned(), entry.version, entry.epoch, entry.seq, entry.is_online)
        };
        let mut other = heard.clone();
        other.rotate_left(order.index(heard.len()));
        other.reverse();
        prop_assert_eq!(known(&heard), known(&other));
    }
}
