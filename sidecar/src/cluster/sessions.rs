//! The sessions of this broker's clients and what they subscribe to, as the events tell it. Mosquitto itself knows better, but
//! can't be asked.
//!
//! Too much here costs traffic, too little costs messages: in doubt a subscription stays.

use std::collections::{BTreeSet, HashMap};
use std::mem::size_of;

use protocol::message::{Event, What};

use super::filters::{FilterId, Filters, heap, table};
use super::interest::Wanted;

/// A session whose client has been away for so long is forgotten.
pub(super) const FORGET_AFTER_MS: u64 = 7 * 24 * 3_600_000;

/// A client's session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Session {
    /// The login at work, or the last one; 0 when not known.
    pub(super) login: u64,
    /// The same as the cluster knows it: see [`super::presence`].
    pub(super) version: u64,
    /// Since when the client is away; 0 while it is here.
    pub(super) away_since_ms: u64,
    pub(super) filters: Box<[FilterId]>,
    pub(super) mqtt_version: u8,
    /// It ends with the connection.
    pub(super) is_clean: bool,
}

impl Session {
    pub(super) fn is_online(&self) -> bool {
        self.away_since_ms == 0
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    clients: HashMap<Box<str>, Session>,
    filters: Filters,
    pub(super) wanted: Wanted,
    /// Shared subscriptions that have got their first member here (true), or lost their last one.
    group_news: Vec<(Box<str>, bool)>,
    /// Filters of shared subscriptions that no session has any more, and that are wanted yet.
    held: Vec<Box<str>>,
    /// When the last event was: what was missed before the next one was missed since.
    last_event_ms: u64,
    /// When Mosquitto last saved its sessions before it started.
    saved_at_ms: u64,
}

impl Sessions {
    /// What has happened. `version` is the cluster's for a login, else it says nothing.
    pub(super) fn apply(&mut self, event: &Event<'_>, version: u64) {
        let at_ms = event.at_ms;
        match event.what {
            What::Started { saved_at_ms, .. } => self.start(at_ms, saved_at_ms),
            What::Online {
                client_id,
                login,
                mqtt_version,
                clean,
                ..
            } => {
                let mut session = self.clients.remove(client_id).unwrap_or_default();
                if clean {
                    self.forget_filters(std::mem::take(&mut session.filters), at_ms);
                }
                let session = Session {
                    login,
                    version,
                    away_since_ms: 0,
                    filters: session.filters,
                    mqtt_version,
                    is_clean: clean,
                };
                self.clients.insert(client_id.into(), session);
            }
            What::Offline {
                client_id,
                login,
                session_stays,
                ..
            } => self.leave(client_id, login, session_stays, at_ms),
            What::Subscribed {
                client_id, filter, ..
            } => self.subscribe(client_id, filter, at_ms),
            What::Unsubscribed { client_id, filter } => self.unsubscribe(client_id, filter, at_ms),
            What::Restored {
                client_id, filter, ..
            } => {
                let session = self.clients.entry(client_id.into()).or_default();
                if session.login == 0 && session.away_since_ms == 0 {
                    session.away_since_ms = at_ms;
                }
                // It had it when it was saved.
                let since_ms = match self.saved_at_ms {
                    0 => at_ms,
                    saved_at_ms => saved_at_ms.min(at_ms),
                };
                self.subscribe(client_id, filter, since_ms);
            }
            What::Resumed { .. } => {}
            What::Deaf { .. } => {
                let since_ms = match self.last_event_ms {
                    0 => at_ms,
                    last => last.min(at_ms),
                };
                self.wanted.set_deaf(since_ms);
            }
        }
        self.last_event_ms = at_ms;
    }

    fn start(&mut self, at_ms: u64, saved_at_ms: u64) {
        self.saved_at_ms = saved_at_ms;
        self.wanted.set_hearing(at_ms);
        let all = std::mem::take(&mut self.clients);
        for (client_id, mut session) in all {
            self.forget_filters(std::mem::take(&mut session.filters), at_ms);
            if saved_at_ms == 0 || session.is_clean {
                continue;
            }
            if session.away_since_ms == 0 {
                session.away_since_ms = at_ms;
            }
            self.clients.insert(client_id, session);
        }
    }

    fn leave(&mut self, client_id: &str, login: u64, session_stays: bool, at_ms: u64) {
        let Some(session) = self.clients.get_mut(client_id) else {
            return;
        };
        // A later login has taken its place.
        if session.login > login {
            return;
        }
        session.away_since_ms = at_ms.max(1);
        if !session_stays {
            self.forget(client_id, at_ms);
        }
    }

    fn forget(&mut self, client_id: &str, at_ms: u64) {
        if let Some(session) = self.clients.remove(client_id) {
            self.forget_filters(session.filters, at_ms);
        }
    }

    fn forget_filters(&mut self, filters: Box<[FilterId]>, at_ms: u64) {
        for id in filters {
            if let Some(text) = self.filters.release(id) {
                self.needs_no_more(&text, at_ms);
            }
        }
    }

    /// Also for a client whose login is not known: nothing may be missed.
    pub(super) fn subscribe(&mut self, client_id: &str, filter: &str, since_ms: u64) {
        if !self.clients.contains_key(client_id) {
            self.clients.insert(client_id.into(), Session::default());
        }
        let Some(session) = self.clients.get_mut(client_id) else {
            return;
        };
        let known = self.filters.find(filter);
        if known.is_some_and(|id| session.filters.contains(&id)) {
            return;
        }
        let (id, is_first) = self.filters.acquire(filter);
        let mut filters = Vec::with_capacity(session.filters.len() + 1);
        filters.extend_from_slice(&session.filters);
        filters.push(id);
        session.filters = filters.into_boxed_slice();
        if is_first {
            self.wanted.more(filter, since_ms);
            self.note_group(filter, true);
        }
    }

    fn unsubscribe(&mut self, client_id: &str, filter: &str, at_ms: u64) {
        let (Some(id), Some(session)) =
            (self.filters.find(filter), self.clients.get_mut(client_id))
        else {
            return;
        };
        if !session.filters.contains(&id) {
            return;
        }
        let left = session.filters.iter().copied().filter(|one| *one != id);
        session.filters = left.collect();
        if self.filters.release(id).is_some() {
            self.needs_no_more(filter, at_ms);
        }
    }

    /// The last session that had the filter has it no more.
    fn needs_no_more(&mut self, filter: &str, at_ms: u64) {
        match group_key(filter) {
            // Its messages are wanted for as long as this node has a share of them.
            Some(_) => self.held.push(filter.into()),
            None => self.wanted.less(filter, at_ms),
        }
        self.note_group(filter, false);
    }

    /// Gives up the shared subscriptions that have no member here, but for those (by `<group>/<filter>`) that this node has to pass on what is of.
    pub(super) fn let_go(&mut self, passes_on: impl Fn(&str) -> bool, now_ms: u64) {
        let wanted = &mut self.wanted;
        self.held.retain(|filter| {
            let is_held = group_key(filter).is_some_and(&passes_on);
            if !is_held {
                wanted.less(filter, now_ms);
            }
            is_held
        });
    }

    fn note_group(&mut self, filter: &str, is_there: bool) {
        if let Some(key) = group_key(filter) {
            self.group_news.push((key.into(), is_there));
        }
    }

    /// What has changed of the shared subscriptions since this was asked last.
    pub(super) fn take_group_news(&mut self) -> Vec<(Box<str>, bool)> {
        std::mem::take(&mut self.group_news)
    }

    /// The shared subscriptions that have a member here.
    pub(super) fn group_keys(&self) -> BTreeSet<&str> {
        let sessions = self.clients.values();
        let filters = sessions.flat_map(|session| self.filters_of(session));
        filters.filter_map(group_key).collect()
    }

    /// Gives up what is over: sessions that nobody came back to, tags that nobody needs.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        // Who never logged in is in Mosquitto's database, or a native bridge of its own: there until it says otherwise.
        let is_over = |session: &Session| {
            session.login != 0
                && !session.is_online()
                && session.away_since_ms.saturating_add(FORGET_AFTER_MS) < now_ms
        };
        let over: Vec<Box<str>> = self
            .clients
            .iter()
            .filter(|(_, session)| is_over(session))
            .map(|(client_id, _)| client_id.clone())
            .collect();
        for client_id in over {
            self.forget(&client_id, now_ms);
        }
        self.wanted.sweep(now_ms);
    }

    /// Puts a session back that was kept, still without its filters.
    pub(super) fn restore(&mut self, client_id: &str, session: Session) {
        self.clients.insert(client_id.into(), session);
    }

    pub(super) fn get(&self, client_id: &str) -> Option<&Session> {
        self.clients.get(client_id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Session)> {
        self.clients
            .iter()
            .map(|(client_id, session)| (&**client_id, session))
    }

    pub(super) fn filters_of<'a>(&'a self, session: &'a Session) -> impl Iterator<Item = &'a str> {
        session.filters.iter().map(|id| self.filters.text(*id))
    }

    /// Sessions, different filters, and about the bytes of memory that they take.
    pub(super) fn size(&self) -> (usize, usize, usize) {
        let sessions = self.clients.iter().map(|(client_id, session)| {
            heap(client_id.len()) + heap(size_of::<FilterId>() * session.filters.len())
        });
        let bytes = sessions.sum::<usize>()
            + table(self.clients.capacity(), size_of::<(Box<str>, Session)>())
            + self.filters.bytes();
        (self.clients.len(), self.filters.len(), bytes)
    }
}

/// `<group>/<filter>` of a shared subscription.
fn group_key(filter: &str) -> Option<&str> {
    let key = filter.strip_prefix("$share/")?;
    key.contains('/').then_some(key)
}

#[cfg(test)]
#[path = "tests/sessions.rs"]
mod tests;
