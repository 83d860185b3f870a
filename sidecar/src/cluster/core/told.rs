//! What the nodes tell of their clients.

use super::super::members::Peer;
use super::super::presence::{Heard, Learned, Table};
use super::super::wire::{Away, News, OFFLINE, ONLINE, SNAPSHOT, Snapshot};
use super::{Close, Core, Now, Request, SETTLED_WITHIN};

impl Core {
    /// Takes what was said of clients.
    pub(in crate::cluster) fn presence_message(
        &mut self,
        tag: Option<&str>,
        body: &[u8],
        now: Now,
    ) {
        let is_read = match tag {
            Some(ONLINE | OFFLINE) => serde_json::from_slice(body)
                .map(|news| self.news(&news, now))
                .is_ok(),
            Some(SNAPSHOT) => serde_json::from_slice(body)
                .map(|snapshot| self.snapshot(&snapshot, now))
                .is_ok(),
            _ => false,
        };
        if !is_read {
            self.counters.not_understood += 1;
        }
    }

    fn news(&mut self, news: &News, now: Now) {
        self.counters.presence_heard += 1;
        if news.node == self.node {
            // Others take us for dead, and we are not.
            if news.by != self.node && !news.online && news.epoch >= self.epoch {
                self.be_above(news.epoch, now);
            }
            return;
        }
        let heard = Heard {
            node: &news.node,
            version: news.login,
            epoch: news.epoch,
            seq: news.seq,
            is_online: news.online,
            cause: news.cause_code,
            session_stays: news.session_stays,
            at_ms: news.at_ms,
        };
        self.learn(&news.client, &heard);
    }

    fn learn(&mut self, client: &str, heard: &Heard<'_>) {
        self.arrivals.told(client, heard);
        let known = self.table.get(client);
        let is_ours_online = known.is_some_and(|known| Table::is_ours(known) && known.is_online);
        if is_ours_online && !heard.is_online {
            // That login is over, so it can't have taken ours over: ours is the later one, whatever the clocks say.
            if known.is_some_and(|known| (heard.version, heard.node) > (known.version, &self.node))
            {
                self.table.raise(client, heard.version);
            }
            return;
        }
        match self.table.learn(client, heard) {
            Learned::Supersedes { login } => {
                self.counters.takeovers += 1;
                self.closes.push_back((client.into(), login));
                self.has_moved(client);
            }
            Learned::Fresh => self.has_moved(client),
            Learned::Stale if heard.is_online => self.correct(client, heard),
            _ => {}
        }
    }

    /// A client is on another node, or was there last: a session that it has here is to get nothing that is shared.
    pub(super) fn has_moved(&mut self, client: &str) {
        if let Some(login) = self.here.login(client) {
            let is_waiting = |(other, known): &Close| **other == *client && *known == login;
            // A session that was saved is told of with each of its subscriptions.
            if !self.moves.back().is_some_and(is_waiting) {
                self.moves.push_back((client.into(), login));
            }
        }
    }

    /// A node believes in a login that we know to be older than another one: it is told of that.
    fn correct(&mut self, client: &str, heard: &Heard<'_>) {
        let Some(known) = self.table.get(client) else {
            return;
        };
        let node = self.table.node_of(known);
        if node == heard.node {
            return;
        }
        let is_living = self
            .members
            .peers
            .get(node)
            .is_some_and(|peer| peer.is_living());
        if Table::is_ours(known) || (!is_living && self.members.is_lowest()) {
            self.table.tell(client);
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, now: Now) {
        if snapshot.node == self.node {
            return;
        }
        for (client, version, at_ms) in &snapshot.clients {
            let heard = Heard {
                node: &snapshot.node,
                version: *version,
                epoch: snapshot.epoch,
                seq: snapshot.seq,
                is_online: true,
                cause: 0,
                session_stays: false,
                at_ms: *at_ms,
            };
            self.learn(client, &heard);
        }
        for away in &snapshot.away {
            self.learn_away(away, snapshot);
        }
        let told = self.told.entry(snapshot.node.clone()).or_default();
        let this = (snapshot.epoch, snapshot.seq);
        match told.coming {
            Some((epoch, seq, next)) if (epoch, seq) == this => {
                if snapshot.part < next {
                    // Sent twice.
                    return;
                }
                // With a gap it is no whole one: it is asked for again.
                told.coming = (snapshot.part == next).then_some((epoch, seq, next + 1));
            }
            _ => told.coming = (snapshot.part == 0).then_some((this.0, this.1, 1)),
        }
        if snapshot.is_last && told.coming.take().is_some() {
            self.counters.snapshots_heard += 1;
            told.epoch = told.epoch.max(snapshot.epoch);
            let (epoch, seq) = this;
            self.table
                .only_told(&snapshot.node, epoch, seq, now.unix_ms);
        }
    }

    /// What is told of a client that is connected nowhere.
    fn learn_away(&mut self, away: &Away, snapshot: &Snapshot) {
        let (node, epoch, seq) = match away.node.as_str() {
            "" => (snapshot.node.as_str(), snapshot.epoch, snapshot.seq),
            // We know better.
            node if node == self.node => return,
            node => (node, away.epoch, away.seq),
        };
        let heard = Heard {
            node,
            version: away.login,
            epoch,
            seq,
            is_online: false,
            cause: away.cause_code,
            session_stays: away.session_stays,
            at_ms: away.at_ms,
        };
        self.learn(&away.client, &heard);
    }

    /// Finds out what clients have missed that came before everything was known of the other nodes.
    pub(super) fn settle_arrivals(&mut self, now: Now) {
        let is_told = |(node, peer): (&String, &Peer)| {
            !peer.is_living() || self.told.get(node).is_some_and(|told| told.is_known(peer))
        };
        let is_hearing = self.members.is_hearing() && self.members.is_at_work(now);
        self.knows_all = is_hearing && self.members.peers.iter().all(is_told);
        let is_late = now.at.saturating_duration_since(self.started) >= SETTLED_WITHIN;
        self.is_settling &= !self.knows_all && !self.members.is_refused && !is_late;
        if is_hearing {
            let requests = self
                .arrivals
                .settle(&self.members, self.knows_all, now.unix_ms);
            self.requests.extend(requests);
        }
    }

    /// What is to be read for clients of which that has been found out late.
    pub(in crate::cluster) fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }
}
