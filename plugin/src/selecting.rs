//! Messages that only some of their subscribers are to get.
//!
//! Mosquitto has no call for that. But before it hands a message to a subscriber, it asks whether that one may read it: whoever is not
//! of the audience may not. So the message comes by the client's own subscription, with its QoS and its identifier, and an `acl_file` or another
//! plugin still has its say.
//!
//! What a tick injects is handed out before the next one. A check names topic, payload and QoS, and by these the message is known: so two
//! messages of one tick that look alike have the same audience, and none of those that are for everybody is injected beside them.
//!
//! Two kinds of subscribers are never asked about, and get all: those of an outgoing native bridge, and those whom a plugin before ours has answered
//! for (then nothing is selected at all: `acl::is_heard_first`).

use std::collections::HashSet;

use protocol::message::{ClientIds, Message};

use crate::cluster::Groups;

/// Messages for some that one tick injects: each is compared with all others.
const MESSAGES_MAX: usize = 256;

/// What a tick has injected so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Nothing,
    /// For everybody.
    Others,
    Selected,
}

/// What an access check asks about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
}

impl<'a> Look<'a> {
    fn of(message: &Message<'a>) -> Look<'a> {
        Look {
            topic: message.topic,
            payload: message.payload,
            qos: message.qos.as_u8(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    payload: Box<[u8]>,
    qos: u8,
    clients: HashSet<Box<str>>,
}

impl Entry {
    fn looks_like(&self, look: &Look<'_>) -> bool {
        *self.topic == *look.topic && self.qos == look.qos && *self.payload == *look.payload
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Selecting {
    turn: Turn,
    entries: Vec<Entry>,
    /// Where the last check was found: the next one is there or behind it.
    at: usize,
    /// A client publishes what looks like this entry, and is not to be taken for it.
    published: Option<usize>,
}

impl Selecting {
    pub(crate) fn new() -> Selecting {
        Selecting {
            turn: Turn::Nothing,
            entries: Vec::new(),
            at: 0,
            published: None,
        }
    }

    /// A tick begins: what the last one injected has been handed out.
    pub(crate) fn begin_tick(&mut self) {
        self.turn = Turn::Nothing;
        self.entries.clear();
        self.at = 0;
        self.published = None;
    }

    /// Whether a message for everybody may be injected in this tick.
    pub(crate) fn takes_others(&mut self) -> bool {
        if self.turn == Turn::Nothing {
            self.turn = Turn::Others;
        }
        self.turn == Turn::Others
    }

    /// Whether a message for these clients may be injected in this tick. If so it counts as injected, unless it is [taken back](Selecting::take_back).
    pub(crate) fn takes(&mut self, message: &Message<'_>, clients: ClientIds<'_>) -> bool {
        let look = Look::of(message);
        let is_full = self.entries.len() >= MESSAGES_MAX;
        if self.turn == Turn::Others
            || is_full
            || self.entries.iter().any(|entry| entry.looks_like(&look))
        {
            return false;
        }
        self.turn = Turn::Selected;
        self.entries.push(Entry {
            topic: look.topic.into(),
            payload: look.payload.into(),
            qos: look.qos,
            clients: clients.iter().map(Into::into).collect(),
        });
        true
    }

    /// The broker did not take the last one.
    pub(crate) fn take_back(&mut self) {
        self.entries.pop();
    }

    /// Whether anything waits to be handed out.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.entries.is_empty()
    }

    /// A client publishes this: the checks that follow are about it.
    pub(crate) fn publishes(&mut self, look: &Look<'_>) {
        self.published = self.find(look);
    }

    /// Something else happens than handing out.
    pub(crate) fn is_interrupted(&mut self) {
        self.published = None;
    }

    /// Whether this client is to get the message that is handed out. `groups`: the shared subscriptions of the cluster's sessions here.
    pub(crate) fn may_read(
        &mut self,
        look: &Look<'_>,
        client_id: &str,
        groups: Option<&Groups>,
    ) -> bool {
        let found = self.find(look).filter(|at| self.published != Some(*at));
        match found.and_then(|at| self.entries.get(at)) {
            Some(entry) => entry.clients.contains(client_id),
            None => !groups.is_some_and(|groups| groups.withholds(client_id, look.topic)),
        }
    }

    fn find(&mut self, look: &Look<'_>) -> Option<usize> {
        let count = self.entries.len();
        let found = (0..count)
            .map(|step| (self.at + step) % count)
            .find(|at| self.entries[*at].looks_like(look))?;
        self.at = found;
        Some(found)
    }
}

#[cfg(test)]
#[path = "selecting_tests.rs"]
mod tests;
