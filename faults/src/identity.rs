//! What RocketMQ's consumers are promised of the identities, so that they can drop repetitions (`docs/mapping.md`): whoever keeps,
//! for each queue, node, epoch and lane, only the highest position must never take a new message for a repetition. And a
//! device's messages are in one queue as long as the layout of the queues, which the lane names, stays the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use harness::Stored;
use harness::ledger;

/// Hexadecimal digits of a lane; what may follow tells other things.
const LANE_DIGITS: usize = 8;

/// `mqtt_id`, and which copy.
type Identity = (String, u64);

struct Named<'a> {
    queue: &'a str,
    lane: &'a str,
    /// `node:epoch`.
    life: &'a str,
    position: u64,
    copy: u64,
    identity: Identity,
}

fn named(message: &Stored) -> Option<Named<'_>> {
    let id = message.property("mqtt_id")?;
    let (life, position) = id.rsplit_once(':')?;
    let copy = message.property("mqtt_copy").unwrap_or("1").parse().ok()?;
    Some(Named {
        queue: &message.queue,
        lane: message.property("mqtt_lane")?.get(..LANE_DIGITS)?,
        life,
        position: position.parse().ok()?,
        copy,
        identity: (id.to_owned(), copy),
    })
}

/// What does not hold of these messages, which are in the order of their queues. Empty where all holds.
pub fn broken(messages: &[Stored]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut nameless = 0;
    let mut queues_of: HashMap<Identity, BTreeSet<&str>> = HashMap::new();
    for named in messages.iter().filter_map(named) {
        queues_of
            .entry(named.identity)
            .or_default()
            .insert(named.queue);
    }
    let mut highest: HashMap<[&str; 3], (u64, u64)> = HashMap::new();
    let mut seen: HashSet<(&str, Identity)> = HashSet::new();
    let mut homes: BTreeMap<(usize, &str), BTreeSet<&str>> = BTreeMap::new();
    for message in messages {
        let Some(named) = named(message) else {
            nameless += 1;
            continue;
        };
        let at = (named.position, named.copy);
        let newest = highest
            .entry([named.queue, named.lane, named.life])
            .or_insert(at);
        // One that is in another queue, too, is a repetition from a time when the topic had other queues.
        let is_elsewhere = queues_of[&named.identity].len() > 1;
        let is_new = seen.insert((named.queue, named.identity.clone())) && !is_elsewhere;
        if is_new && at < *newest {
            broken.push(format!(
                "{} (copy {}) came new into queue {} behind {newest:?} of its lane {}",
                named.identity.0, named.copy, named.queue, named.lane
            ));
        }
        *newest = at.max(*newest);
        if let Some((device, _)) = ledger::number(&message.body) {
            homes
                .entry((device, named.lane))
                .or_default()
                .insert(named.queue);
        }
    }
    if nameless > 0 {
        broken.push(format!(
            "{nameless} without a readable mqtt_id and mqtt_lane"
        ));
    }
    for ((device, lane), queues) in homes.iter().filter(|(_, queues)| queues.len() > 1) {
        broken.push(format!(
            "device {device}, lane {lane}: in the queues {queues:?}"
        ));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(queue: &str, lane: &str, id: &str) -> Stored {
        let properties = [("mqtt_id", id), ("mqtt_lane", lane)];
        Stored {
            queue: queue.to_owned(),
            offset: 0,
            msg_id: String::new(),
            tag: None,
            keys: None,
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            body: ledger::payload((1, 1)).into_bytes(),
            born_at_ms: 0,
            stored_at_ms: 0,
        }
    }

    const LANE: &str = "0000002a";
    const LONG: &str = "0000002a0badcafe";

    #[test]
    fn a_repetition_from_where_it_begins_is_as_promised() {
        let ids = ["n:1:10", "n:1:20", "n:1:10", "n:1:20", "n:1:30", "n:2:5"];
        let messages = ids.map(|id| message("b/0", LANE, id));
        assert_eq!(broken(&messages), Vec::<String>::new());
    }

    #[test]
    fn a_new_message_that_looks_like_a_repetition_is_found() {
        let ids = ["n:1:10", "n:1:30", "n:1:20"];
        let messages = ids.map(|id| message("b/0", LANE, id));
        let found = broken(&messages);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("n:1:20 "), "{found:?}");
        // Also where the lanes' names are long, and differ in what follows the lane.
        let mut messages = messages;
        for (message, lane) in messages.iter_mut().zip([LANE, LONG, LONG]) {
            let name = "mqtt_lane".to_owned();
            message.properties.insert(name, lane.to_owned());
        }
        assert_eq!(broken(&messages).len(), 1);
    }

    #[test]
    fn a_repetition_in_another_queue_of_another_layout_is_as_promised() {
        let messages = [
            message("b/0", LANE, "n:1:10"),
            message("b/1", "0000002b", "n:1:20"),
            message("b/1", "0000002b", "n:1:10"),
        ];
        assert_eq!(broken(&messages), Vec::<String>::new());
    }

    #[test]
    fn a_device_in_two_queues_of_one_layout_is_found() {
        let messages = [
            message("b/0", LANE, "n:1:10"),
            message("b/1", LANE, "n:1:20"),
        ];
        let found = broken(&messages);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("device 1, lane 0000002a"), "{found:?}");
    }

    #[test]
    fn a_message_without_an_identity_is_found() {
        for (lane, id) in [("", "n:1:10"), (LANE, "x"), (LANE, "n:1:y")] {
            assert_eq!(broken(&[message("b/0", lane, id)]).len(), 1, "{lane} {id}");
        }
    }
}
