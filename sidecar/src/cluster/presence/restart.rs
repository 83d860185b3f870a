//! What a start of the broker does to its sessions.

use super::super::wire::cause;
use super::{OURS, Table};

impl Table {
    /// Our broker has started again: whose session was away is not there any more, unless it is told to have been saved.
    pub(in crate::cluster) fn sessions_are_gone(&mut self) {
        let mut gone = Vec::new();
        for (client, entry) in &mut self.clients {
            if entry.node == OURS && !entry.is_online && entry.session_stays {
                entry.session_stays = false;
                entry.cause = cause::RESTARTED;
                gone.push(client.clone());
            }
        }
        for client in gone {
            self.tell(&client);
        }
    }

    /// It is.
    pub(in crate::cluster) fn session_is_there(&mut self, client: &str) {
        let entry = self.clients.get_mut(client);
        let ours = entry.filter(|entry| entry.node == OURS && !entry.is_online);
        if let Some(entry) = ours.filter(|entry| !entry.session_stays) {
            entry.session_stays = true;
            self.tell(client);
        }
    }
}
