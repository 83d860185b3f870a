//! Which clients may have a session at this broker, with their last logins: by the hashes of their ids, so a stranger may be taken for one of them,
//! which does no harm.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use protocol::message::{Event, What};

use super::sessions::Sessions;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Here {
    logins: HashMap<u64, u64>,
    hasher: RandomState,
}

impl Here {
    /// Those that were kept.
    pub(super) fn restore(&mut self, sessions: &Sessions) {
        for (client, session) in sessions.iter() {
            self.logins
                .insert(self.hasher.hash_one(client), session.login);
        }
    }

    /// Something has happened in Mosquitto.
    pub(super) fn follow(&mut self, event: &Event<'_>) {
        match event.what {
            What::Started { .. } => self.logins.clear(),
            What::Online {
                client_id, login, ..
            } => drop(self.logins.insert(self.hasher.hash_one(client_id), login)),
            What::Subscribed { client_id, .. } | What::Restored { client_id, .. } => {
                self.logins
                    .entry(self.hasher.hash_one(client_id))
                    .or_default();
            }
            What::Offline {
                client_id,
                login,
                session_stays: false,
                ..
            } => {
                let hash = self.hasher.hash_one(client_id);
                if self.logins.get(&hash).is_some_and(|known| *known <= login) {
                    self.logins.remove(&hash);
                }
            }
            What::Offline { .. }
            | What::Unsubscribed { .. }
            | What::Resumed { .. }
            | What::Deaf { .. } => {}
        }
    }

    /// The last login of a client that may have a session here; 0 for one that has not logged in since Mosquitto started.
    pub(super) fn login(&self, client: &str) -> Option<u64> {
        self.logins.get(&self.hasher.hash_one(client)).copied()
    }
}
