//! What became of every message, from sequence numbers alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use harness::ledger::Number;

use crate::load::Arrival;

/// The counts of one direction.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Count {
    /// Different messages that arrived.
    pub arrived: usize,
    /// Acknowledged messages that did not.
    pub lost: Vec<Number>,
    /// Arrivals of something that had arrived: the same identity once more. MQTT's own repetitions are not among them.
    pub duplicated: usize,
    /// Messages that arrived behind a later one of their device. Only first arrivals count.
    pub reordered: usize,
    /// Arrivals of a message under a further identity: the sender sent it again.
    pub sent_again: usize,
    /// Repetitions with MQTT's DUP flag, after a connection was lost.
    pub redelivered: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} arrived, {} lost, {} duplicated, {} reordered, {} again because they were sent again, {} redelivered by MQTT",
            self.arrived,
            self.lost.len(),
            self.duplicated,
            self.reordered,
            self.sent_again,
            self.redelivered
        )
    }
}

/// What the sender heard of a message: acknowledged, and, where it can be told, which sending of it.
pub type Acked = BTreeMap<Number, Option<String>>;

/// Counts arrivals, which are in the order of arrival for each device.
pub fn count(acked: &Acked, arrivals: &[Arrival]) -> Count {
    let mut seen: HashSet<(Number, &str)> = HashSet::new();
    let mut numbers: BTreeSet<Number> = BTreeSet::new();
    let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
    let mut counted = Count::default();
    for arrival in arrivals {
        let number = arrival.number;
        if !seen.insert((number, &arrival.identity)) {
            if arrival.again {
                counted.redelivered += 1;
            } else {
                counted.duplicated += 1;
            }
            continue;
        }
        if !numbers.insert(number) {
            counted.sent_again += 1;
            continue;
        }
        let newest = newest.entry(number.0).or_insert(number.1);
        if number.1 < *newest {
            counted.reordered += 1;
        }
        *newest = number.1.max(*newest);
    }
    counted.arrived = numbers.len();
    counted.lost = acked
        .iter()
        .filter(|(number, sending)| match sending {
            Some(sending) => !seen.contains(&(**number, sending.as_str())),
            None => !numbers.contains(number),
        })
        .map(|(number, _)| *number)
        .collect();
    counted
}

/// The identities that each message has arrived under, where there is more than one.
pub fn identities(arrivals: &[Arrival]) -> BTreeMap<Number, BTreeSet<&str>> {
    let mut all: BTreeMap<Number, BTreeSet<&str>> = BTreeMap::new();
    for arrival in arrivals {
        all.entry(arrival.number)
            .or_default()
            .insert(&arrival.identity);
    }
    all.retain(|_, identities| identities.len() > 1);
    all
}

/// When something began and ended, in Unix ms, and from when on going on again is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Episode {
    /// The fault began.
    pub began_ms: i64,
    /// What it had taken away is back.
    pub back_ms: i64,
}

/// In flight when the fault began: an arrival of it after the end says nothing about going on.
const IN_FLIGHT_MS: i64 = 1_000;

/// Seconds from the end of an episode to the first arrival of a message that was acknowledged in it or later; `None`
/// when there was none.
pub fn recovery_s(
    episode: Episode,
    acked_at: &BTreeMap<Number, i64>,
    arrivals: &[Arrival],
) -> Option<f64> {
    let from = episode
        .back_ms
        .min(episode.began_ms.saturating_add(IN_FLIGHT_MS));
    let first = arrivals
        .iter()
        .filter(|arrival| {
            acked_at
                .get(&arrival.number)
                .is_some_and(|acked| *acked >= from)
        })
        .map(|arrival| arrival.at_ms)
        .filter(|at| *at >= episode.began_ms)
        .min()?;
    // It may have gone on before whoever measured noticed that it could.
    Some((first - episode.back_ms).max(0) as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(device: usize, sequence: u64, identity: &str) -> Arrival {
        Arrival {
            number: (device, sequence),
            identity: identity.to_owned(),
            again: false,
            at_ms: 0,
        }
    }

    fn acked(numbers: &[Number]) -> Acked {
        numbers.iter().map(|number| (*number, None)).collect()
    }

    #[test]
    fn all_is_well_when_each_arrives_once_and_in_order() {
        let arrivals = [arrival(0, 0, "a"), arrival(1, 0, "b"), arrival(0, 1, "c")];
        let counted = count(&acked(&[(0, 0), (0, 1), (1, 0)]), &arrivals);
        let expected = Count {
            arrived: 3,
            ..Count::default()
        };
        assert_eq!(counted, expected);
    }

    #[test]
    fn what_was_acknowledged_and_did_not_arrive_is_lost_and_nothing_else_is() {
        let counted = count(&acked(&[(0, 0), (0, 1)]), &[arrival(0, 0, "a")]);
        assert_eq!((counted.lost, counted.arrived), (vec![(0, 1)], 1));
        // Arrived, but never acknowledged: no loss, and not to be hidden either.
        let counted = count(&acked(&[]), &[arrival(0, 0, "a")]);
        assert_eq!((counted.lost, counted.arrived), (vec![], 1));
    }

    #[test]
    fn an_acknowledged_attempt_is_lost_even_when_another_attempt_arrived() {
        let acked = Acked::from([((0, 0), Some("2".to_owned()))]);
        assert_eq!(count(&acked, &[arrival(0, 0, "1")]).lost, vec![(0, 0)]);
        assert_eq!(count(&acked, &[arrival(0, 0, "2")]).lost, vec![]);
    }

    #[test]
    fn a_repetition_is_ours_unless_the_sender_or_mqtt_repeated() {
        let ours = [arrival(0, 0, "a"), arrival(0, 0, "a")];
        assert_eq!(count(&acked(&[]), &ours).duplicated, 1);
        let senders = [arrival(0, 0, "a"), arrival(0, 0, "b")];
        let counted = count(&acked(&[]), &senders);
        assert_eq!((counted.duplicated, counted.sent_again), (0, 1));
        let mqtts = [
            arrival(0, 0, "a"),
            Arrival {
                again: true,
                ..arrival(0, 0, "a")
            },
        ];
        let counted = count(&acked(&[]), &mqtts);
        assert_eq!((counted.duplicated, counted.redelivered), (0, 1));
    }

    #[test]
    fn only_a_first_arrival_behind_a_later_one_is_out_of_order() {
        let late = [arrival(0, 0, "a"), arrival(0, 2, "c"), arrival(0, 1, "b")];
        assert_eq!(count(&acked(&[]), &late).reordered, 1);
        let repeated = [
            arrival(0, 0, "a"),
            arrival(0, 1, "b"),
            arrival(0, 0, "a"),
            arrival(0, 1, "b"),
            arrival(0, 2, "c"),
        ];
        let counted = count(&acked(&[]), &repeated);
        assert_eq!((counted.reordered, counted.duplicated), (0, 2));
        let others = [arrival(0, 5, "a"), arrival(1, 1, "b")];
        assert_eq!(count(&acked(&[]), &others).reordered, 0);
    }

    #[test]
    fn identities_are_counted_for_those_that_have_several() {
        let arrivals = [arrival(0, 0, "a"), arrival(0, 0, "b"), arrival(0, 1, "c")];
        assert_eq!(
            identities(&arrivals),
            BTreeMap::from([((0, 0), BTreeSet::from(["a", "b"]))])
        );
    }

    #[test]
    fn going_on_is_measured_from_the_end_and_not_by_what_was_in_flight() {
        let at = |sequence, at_ms| Arrival {
            at_ms,
            ..arrival(0, sequence, "a")
        };
        let acked_at = BTreeMap::from([((0, 0), 900), ((0, 1), 1_100), ((0, 2), 2_500)]);
        let episode = Episode {
            began_ms: 1_000,
            back_ms: 5_000,
        };
        let arrivals = [at(0, 5_001), at(1, 5_002), at(2, 6_500)];
        assert_eq!(recovery_s(episode, &acked_at, &arrivals), Some(1.5));
        assert_eq!(recovery_s(episode, &acked_at, &arrivals[..2]), None);
        assert_eq!(recovery_s(episode, &acked_at, &[at(2, 4_990)]), Some(0.0));
    }
}
