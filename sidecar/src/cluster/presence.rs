//! Which client is where, in the whole cluster.
//!
//! What is known of a client is ordered by its login and, for logins of the same number, by the node: all nodes come to the same
//! judgement, in whatever order they hear of it. A node raises the number of a login above all that it knows of that client, so that
//! clocks that are apart don't make a device lose against its own older session. What one node tells of one login is ordered by the node's
//! epoch and a number that grows.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use super::wire::cause;

mod look;
mod restart;

/// What is known of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Index of the node's name.
    node: u32,
    pub(super) is_online: bool,
    pub(super) cause: u8,
    pub(super) session_stays: bool,
    /// It is yet to be told to the other nodes.
    is_to_tell: bool,
    /// It is yet to be published on this node.
    is_to_publish: bool,
    /// Orders the logins of a client.
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    /// Since when it is so, by the clock of its node.
    pub(super) at_ms: u64,
    /// The login as our plugin knows it; 0 for clients of other nodes.
    pub(super) login: u64,
}

/// Whether a client that is away for this cause was cut off with its node.
pub(super) fn is_lost(cause: u8) -> bool {
    matches!(
        cause,
        cause::NODE_LOST | cause::NODE_LEFT | cause::RESTARTED
    )
}

impl Entry {
    /// Its node was lost, has left for good, or was started again: whether its session stays is not known.
    pub(super) fn is_lost(&self) -> bool {
        is_lost(self.cause)
    }

    fn own(login: u64, version: u64, at_ms: u64) -> Entry {
        Entry {
            node: OURS,
            is_online: true,
            cause: 0,
            session_stays: false,
            is_to_tell: false,
            is_to_publish: false,
            version,
            epoch: 0,
            seq: 0,
            at_ms,
            login,
        }
    }
}

/// What is heard of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) node: &'a str,
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) is_online: bool,
    pub(super) cause: u8,
    pub(super) session_stays: bool,
    pub(super) at_ms: u64,
}

/// What follows from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// It is now what is known.
    Fresh,
    /// It is, and ends a login of ours.
    Supersedes {
        /// As our plugin knows it.
        login: u64,
    },
    /// Less is known there than here.
    Stale,
    /// So it is here too, to the last number.
    Known,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    clients: HashMap<Box<str>, Entry>,
    /// Names of nodes; ours is the first.
    nodes: Vec<Box<str>>,
    to_tell: VecDeque<Box<str>>,
    to_publish: VecDeque<Box<str>>,
    /// Published, and to be taken back.
    to_clear: VecDeque<Box<str>>,
    is_published: bool,
}

const OURS: u32 = 0;

impl Table {
    /// Of this node; it notes what is to be published only if presence is.
    pub(super) fn new(node: &str, is_published: bool) -> Table {
        Table {
            clients: HashMap::new(),
            nodes: vec![node.into()],
            to_tell: VecDeque::new(),
            to_publish: VecDeque::new(),
            to_clear: VecDeque::new(),
            is_published,
        }
    }

    pub(super) fn get(&self, client: &str) -> Option<&Entry> {
        self.clients.get(client)
    }

    pub(super) fn node_of(&self, entry: &Entry) -> &str {
        self.nodes.get(entry.node as usize).map_or("", |node| node)
    }

    pub(super) fn is_ours(entry: &Entry) -> bool {
        entry.node == OURS
    }

    fn index(&mut self, node: &str) -> u32 {
        let found = self.nodes.iter().position(|known| **known == *node);
        let at = found.unwrap_or_else(|| {
            self.nodes.push(node.into());
            self.nodes.len() - 1
        });
        at as u32
    }

    /// A client of ours has logged in. Gives the version of this login, above all that is known of it.
    pub(super) fn log_in(&mut self, client: &str, login: u64, at_ms: u64) -> u64 {
        let version = match self.clients.get(client) {
            Some(known) if known.node == OURS && known.login == login && known.is_online => {
                return known.version;
            }
            Some(known) => login.max(known.version.saturating_add(1)),
            None => login,
        };
        self.set_own(client, login, version, at_ms);
        self.tell(client);
        version
    }

    /// A client of ours that was kept.
    pub(super) fn set_own(&mut self, client: &str, login: u64, version: u64, at_ms: u64) {
        let entry = Entry::own(login, version, at_ms);
        self.put(client, entry);
        self.publish(client);
    }

    /// A client of ours that was away when it was kept, and has a session.
    pub(super) fn set_own_away(&mut self, client: &str, login: u64, version: u64, at_ms: u64) {
        let entry = Entry {
            is_online: false,
            cause: cause::UNKNOWN,
            session_stays: true,
            ..Entry::own(login, version, at_ms)
        };
        self.put(client, entry);
    }

    /// A connection of ours is over. Nothing happens if that login is not what is known.
    pub(super) fn log_out(
        &mut self,
        client: &str,
        login: u64,
        cause: u8,
        session_stays: bool,
        at_ms: u64,
    ) -> bool {
        let Some(entry) = self.clients.get_mut(client) else {
            return false;
        };
        if entry.node != OURS || entry.login != login || !entry.is_online {
            return false;
        }
        entry.is_online = false;
        entry.cause = cause;
        entry.session_stays = session_stays;
        entry.at_ms = at_ms;
        self.tell(client);
        self.publish(client);
        true
    }

    /// Our login goes above what is known elsewhere.
    pub(super) fn raise(&mut self, client: &str, above: u64) -> u64 {
        let Some(entry) = self
            .clients
            .get_mut(client)
            .filter(|entry| entry.node == OURS)
        else {
            return 0;
        };
        entry.version = entry.version.max(above.saturating_add(1));
        let version = entry.version;
        self.tell(client);
        version
    }

    /// Something is heard of a client of another node.
    pub(super) fn learn(&mut self, client: &str, heard: &Heard<'_>) -> Learned {
        let node = self.index(heard.node);
        let mut learned = Learned::Fresh;
        let mut is_news = true;
        if let Some(known) = self.clients.get(client) {
            let here = (known.version, self.node_of(known), known.epoch, known.seq);
            let there = (heard.version, heard.node, heard.epoch, heard.seq);
            match there.cmp(&here) {
                Ordering::Less => return Learned::Stale,
                Ordering::Equal => return Learned::Known,
                Ordering::Greater => {}
            }
            if known.node == OURS && known.is_online {
                learned = Learned::Supersedes { login: known.login };
            }
            is_news = known.node != node
                || known.is_online != heard.is_online
                || known.version != heard.version;
        }
        let entry = Entry {
            node,
            is_online: heard.is_online,
            cause: heard.cause,
            session_stays: heard.session_stays,
            is_to_tell: false,
            is_to_publish: false,
            version: heard.version,
            epoch: heard.epoch,
            seq: heard.seq,
            at_ms: heard.at_ms,
            login: 0,
        };
        self.put(client, entry);
        if is_news {
            self.publish(client);
        }
        learned
    }

    fn put(&mut self, client: &str, entry: Entry) {
        match self.clients.get_mut(client) {
            Some(known) => {
                let (is_to_tell, is_to_publish) = (known.is_to_tell, known.is_to_publish);
                *known = Entry {
                    is_to_tell,
                    is_to_publish,
                    ..entry
                };
            }
            None => drop(self.clients.insert(client.into(), entry)),
        }
    }

    /// What is known of the client is to be told to the others.
    pub(super) fn tell(&mut self, client: &str) {
        if let Some(entry) = self.clients.get_mut(client)
            && !std::mem::replace(&mut entry.is_to_tell, true)
        {
            self.to_tell.push_back(client.into());
        }
    }

    /// It is to be published here.
    pub(super) fn publish(&mut self, client: &str) {
        if self.is_published
            && let Some(entry) = self.clients.get_mut(client)
            && !std::mem::replace(&mut entry.is_to_publish, true)
        {
            self.to_publish.push_back(client.into());
        }
    }

    /// The next client that is to be told of.
    pub(super) fn next_to_tell(&mut self) -> Option<(Box<str>, Entry)> {
        loop {
            let client = self.to_tell.pop_front()?;
            if let Some(entry) = self.clients.get_mut(&client) {
                entry.is_to_tell = false;
                return Some((client, entry.clone()));
            }
        }
    }

    /// The next client that is to be published; without an entry when what was published is to be taken back.
    pub(super) fn next_to_publish(&mut self) -> Option<(Box<str>, Option<Entry>)> {
        while let Some(client) = self.to_publish.pop_front() {
            if let Some(entry) = self.clients.get_mut(&client) {
                entry.is_to_publish = false;
                return Some((client, Some(entry.clone())));
            }
        }
        loop {
            let client = self.to_clear.pop_front()?;
            if !self.clients.contains_key(&client) {
                return Some((client, None));
            }
        }
    }

    /// What was to be published was not.
    pub(super) fn publish_again(&mut self, client: &str) {
        if self.clients.contains_key(client) {
            self.publish(client);
        } else {
            self.to_clear.push_back(client.into());
        }
    }

    /// How many are yet to be told of, and published.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (
            self.to_tell.len(),
            self.to_publish.len() + self.to_clear.len(),
        )
    }

    /// A node's clients are gone, as of this epoch. Gives those of which that is new.
    pub(super) fn give_up(
        &mut self,
        node: &str,
        epoch: u64,
        cause: u8,
        at_ms: u64,
    ) -> Vec<Box<str>> {
        self.end_where(node, cause, at_ms, |entry| {
            entry.epoch = entry.epoch.max(epoch);
            entry.seq = u64::MAX;
            true
        })
    }

    /// A node has told all that it has: what was not told since is not there.
    pub(super) fn only_told(
        &mut self,
        node: &str,
        epoch: u64,
        seq: u64,
        at_ms: u64,
    ) -> Vec<Box<str>> {
        self.end_where(node, cause::GONE, at_ms, |entry| {
            let is_untold = (entry.epoch, entry.seq) < (epoch, seq);
            if is_untold {
                (entry.epoch, entry.seq) = (epoch, seq);
            }
            is_untold
        })
    }

    fn end_where(
        &mut self,
        node: &str,
        cause: u8,
        at_ms: u64,
        mut is_over: impl FnMut(&mut Entry) -> bool,
    ) -> Vec<Box<str>> {
        let node = self.index(node);
        let mut over = Vec::new();
        for (client, entry) in &mut self.clients {
            if entry.node == node && entry.is_online && is_over(entry) {
                entry.is_online = false;
                entry.cause = cause;
                entry.session_stays = false;
                entry.at_ms = at_ms;
                over.push(client.clone());
            }
        }
        for client in &over {
            self.publish(client);
        }
        over
    }
}

#[cfg(test)]
#[path = "tests/presence.rs"]
mod tests;
