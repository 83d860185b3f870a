//! What the nodes tell of shared subscriptions.

use std::sync::Arc;

use super::super::members::Peer;
use super::super::wire::Beat;
use super::Core;
use crate::groups::{Reread, Word};

impl Core {
    /// A node has said which shared subscriptions it takes part in.
    pub(super) fn share(&mut self, beat: &Beat, stored_at_ms: i64) {
        let is_other_process = beat.node == self.node && beat.instance != self.members.own.instance;
        if beat.is_refused || is_other_process {
            return;
        }
        let done = beat.done.iter();
        let done = done.map(|(broker, id, next)| ((broker.clone(), *id), *next));
        let rereads = self.groups.heard(&Word {
            node: &beat.node,
            life: (&beat.instance, beat.epoch),
            groups: &beat.groups,
            done: Arc::new(done.collect()),
            stored_ms: stored_at_ms,
        });
        self.rereads.extend(rereads);
    }

    /// We hear ourselves for the first time: who has been heard of from the time before and does not live takes part in nothing.
    pub(super) fn only_living_share(&mut self) {
        for node in self.groups.nodes() {
            let peer = self.members.peers.get(&node);
            if node != self.node && !peer.is_some_and(Peer::is_living) {
                self.groups.gone(&node);
            }
        }
    }

    /// What is to be read once more for shared subscriptions.
    pub(in crate::cluster) fn take_rereads(&mut self) -> Vec<Reread> {
        std::mem::take(&mut self.rereads)
    }
}
