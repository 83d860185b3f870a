//! Messages that a node could not give to any member of a group, on their way to the other nodes.

use protocol::cluster::bucket_of;
use rocketmq::{Incoming, Outgoing, Properties};

use super::GroupId;
use crate::mapping::names;

/// For which group a message was passed on, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassedOn<'a> {
    pub(crate) group: GroupId,
    pub(crate) from: &'a str,
}

/// Marks a message as passed on.
pub(crate) fn mark(properties: &mut Properties, group: GroupId, from: &str) {
    properties.push_display(names::SHARE, format_args!("{group:016x}"));
    properties.push(names::SHARE_FROM, from);
}

/// Whether a message was passed on.
pub(crate) fn passed_on(incoming: &Incoming) -> Option<PassedOn<'_>> {
    let value = |wanted: &str| {
        let mut properties = incoming.properties.iter();
        let found = properties.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let group = value(names::SHARE)?;
    Some(PassedOn {
        // What is no number is for nobody.
        group: GroupId::from_str_radix(group, 16).unwrap_or_default(),
        from: value(names::SHARE_FROM).unwrap_or_default(),
    })
}

/// The message for that group alone, as it goes to RocketMQ.
pub(crate) fn outgoing(incoming: &Incoming, topic: &str, group: GroupId, from: &str) -> Outgoing {
    let mut properties = Properties::default();
    for (name, value) in &incoming.properties {
        let is_left_out = [
            names::SHARE,
            names::SHARE_FROM,
            // It has another place, and is retained by what it was at first.
            names::LANE,
            names::RETAIN,
            names::RETAINED_AT,
        ]
        .contains(&name.as_str());
        if !is_left_out {
            properties.push(name, value);
        }
    }
    mark(&mut properties, group, from);
    Outgoing {
        body: incoming.body.clone(),
        tag: Some(bucket_of(topic)),
        keys: incoming.keys.clone(),
        properties,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_is_the_message_with_a_mark_and_no_place_of_its_own() {
        let properties = [
            (names::TOPIC, "jobs/1"),
            (names::ID, "there:1:16"),
            (names::LANE, "lane"),
            (names::RETAIN, "1"),
            (names::SHARE, "0000000000000001"),
            (names::SHARE_FROM, "before"),
        ];
        let mut incoming = Incoming {
            body: "x".into(),
            keys: Some("k".into()),
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Incoming::default()
        };
        let out = outgoing(&incoming, "jobs/1", 0xABC, "here");
        assert_eq!(out.tag, Some(bucket_of("jobs/1")));
        assert_eq!((out.body, out.keys.as_deref()), ("x".into(), Some("k")));
        incoming.properties = out.properties.to_pairs();
        let expected = [
            (names::TOPIC, "jobs/1"),
            (names::ID, "there:1:16"),
            (names::SHARE, "0000000000000abc"),
            (names::SHARE_FROM, "here"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(incoming.properties, expected);
        let found = passed_on(&incoming);
        assert_eq!(
            found,
            Some(PassedOn {
                group: 0xABC,
                from: "here"
            })
        );
        assert_eq!(passed_on(&Incoming::default()), None);
    }
}
