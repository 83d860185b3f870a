//! The nodes of the cluster, as their heartbeats tell it. No clock of another machine is trusted: silence is measured by our own, from
//! one arrival to the next.
//!
//! A node reads its own heartbeats too. While those don't come back it is the one that is cut off, and can say nothing of the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::wire::{Beat, Load};

/// How often a node beats, unless the time-out is short.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// How long a node that starts listens before it takes part: another under its id would have been heard by then.
const LISTEN: Duration = Duration::from_millis(1_200);
/// Heartbeats of our own spool from another process may be late ones of a sidecar before us; not for longer than this.
const LATE: Duration = Duration::from_secs(3);
/// So much before the time-out is over a node is taken for dead: judging goes by ticks.
const NOTICE: Duration = Duration::from_millis(150);
/// A node that is gone is shown for so long.
const SHOWN: Duration = Duration::from_secs(24 * 3600);

/// A moment, by the clock that never jumps and by the one that others have too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) at: Instant,
    pub(super) unix_ms: u64,
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It beats.
    Alive,
    /// Two beats are missing.
    Suspect,
    /// It was silent for the time-out.
    Dead,
    /// It has taken its leave.
    Left,
    /// We are cut off ourselves.
    Unknown,
}

/// What has become of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Joined(String),
    Suspect(String),
    Recovered(String),
    /// It is dead: its clients are gone.
    Dead(String),
    /// It has left and not come back: its clients are gone.
    Gone(String),
    Left(String),
    Back(String),
    /// We hear again, after about so long.
    ViewBack(Duration),
    ViewLost,
    /// Another process beats under our id: ours works on, or does not.
    Rival {
        instance: String,
        spool: String,
        is_refused: bool,
    },
    RivalGone,
}

/// Another node.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) beat: Beat,
    pub(super) state: State,
    /// Since when it is in this state, Unix milliseconds by our clock.
    pub(super) since_ms: u64,
    /// When it was heard last.
    pub(super) heard: Instant,
    pub(super) heard_ms: u64,
    stored_at_ms: i64,
    /// Its clients were given up.
    is_given_up: bool,
}

impl Peer {
    fn enter(&mut self, state: State, now: Now) {
        if self.state != state {
            self.state = state;
            self.since_ms = now.unix_ms;
        }
    }

    /// It may be thought to be at work.
    pub(super) fn is_living(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspect)
    }
}

/// Another process under our id.
#[derive(Debug)]
struct Rival {
    instance: String,
    first: Instant,
    heard: Instant,
    is_said: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Members {
    /// What we say of ourselves.
    pub(super) own: Beat,
    timeout: Duration,
    pub(super) peers: BTreeMap<String, Peer>,
    /// When our own beat came back last, and the first one: when, and by the broker's clock.
    echo: Option<Instant>,
    first_echo: Option<(Instant, i64)>,
    /// Since when our view is old.
    pub(super) stale_since: Option<Now>,
    judged: Option<Instant>,
    rival: Option<Rival>,
    /// The younger of two processes with one node id does not work.
    pub(super) is_refused: bool,
}

impl Members {
    pub(super) fn new(own: Beat, timeout: Duration) -> Members {
        Members {
            own,
            timeout,
            peers: BTreeMap::new(),
            echo: None,
            first_echo: None,
            stale_since: None,
            judged: None,
            rival: None,
            is_refused: false,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn beat_every(&self) -> Duration {
        BEAT_EVERY.min(self.timeout / 4)
    }

    /// Two beats are missing after this.
    fn patience(&self) -> Duration {
        self.beat_every() * 5 / 2
    }

    /// The next beat.
    pub(super) fn next_beat(&mut self, now: Now, load: Load) -> Beat {
        self.own.seq += 1;
        self.own.at_ms = now.unix_ms;
        self.own.is_refused = self.is_refused;
        self.own.load = load;
        self.own.clone()
    }

    /// Whether this node takes part: it hears itself, has listened for another under its id, and need not give way to one.
    pub(super) fn is_at_work(&self, now: Now) -> bool {
        let listened =
            |(first, _): &(Instant, i64)| now.at.saturating_duration_since(*first) >= LISTEN;
        !self.is_refused && self.first_echo.as_ref().is_some_and(listened)
    }

    /// Whether our own beats have come back ever.
    pub(super) fn has_echo(&self) -> bool {
        self.first_echo.is_some()
    }

    /// Our view of the others is of now.
    pub(super) fn is_hearing(&self) -> bool {
        self.first_echo.is_some() && self.stale_since.is_none()
    }

    /// Whether this node, or we ourselves, may be thought to be at work.
    pub(super) fn is_living(&self, node: &str) -> bool {
        node == self.own.node || self.peers.get(node).is_some_and(Peer::is_living)
    }

    /// Whether there is no living node with a lower name: it tells what only one has to tell.
    pub(super) fn is_lowest(&self) -> bool {
        let mut living = self.peers.iter().filter(|(_, peer)| peer.is_living());
        living.all(|(node, _)| self.own.node < *node)
    }

    /// Takes a heartbeat, with the time at which the broker stored it.
    pub(super) fn heard(&mut self, beat: &Beat, stored_at_ms: i64, now: Now) -> Vec<Change> {
        if beat.node != self.own.node {
            return self
                .heard_peer(beat, stored_at_ms, now)
                .into_iter()
                .collect();
        }
        if beat.instance != self.own.instance {
            return self
                .heard_rival(beat, stored_at_ms, now)
                .into_iter()
                .collect();
        }
        self.echo = Some(now.at);
        if self.first_echo.is_some() {
            return Vec::new();
        }
        self.first_echo = Some((now.at, stored_at_ms));
        self.judged = Some(now.at);
        // What was read of the time before we started may be of nodes that are long gone.
        let oldest = stored_at_ms - i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        self.peers.retain(|_, peer| peer.stored_at_ms >= oldest);
        let living = self.peers.iter().filter(|(_, peer)| peer.is_living());
        living
            .map(|(node, _)| Change::Joined(node.clone()))
            .collect()
    }

    fn heard_peer(&mut self, beat: &Beat, stored_at_ms: i64, now: Now) -> Option<Change> {
        if beat.is_refused {
            return None;
        }
        let is_started = self.first_echo.is_some();
        let Some(peer) = self.peers.get_mut(&beat.node) else {
            let peer = Peer {
                beat: beat.clone(),
                state: State::Alive,
                since_ms: now.unix_ms,
                heard: now.at,
                heard_ms: now.unix_ms,
                stored_at_ms,
                is_given_up: false,
            };
            self.peers.insert(beat.node.clone(), peer);
            return is_started.then(|| Change::Joined(beat.node.clone()));
        };
        let order = |beat: &Beat| (beat.started_ms, beat.instance.clone(), beat.seq);
        let is_silent = now.at.saturating_duration_since(peer.heard) >= self.timeout;
        if order(beat) <= order(&peer.beat) && !(is_silent && beat.instance != peer.beat.instance) {
            return None;
        }
        // It is of before the leave that was read from another queue already.
        if peer.state == State::Left && beat.instance == peer.beat.instance {
            return None;
        }
        let before = peer.state;
        peer.beat = beat.clone();
        peer.heard = now.at;
        peer.heard_ms = now.unix_ms;
        peer.stored_at_ms = stored_at_ms;
        peer.enter(State::Alive, now);
        peer.is_given_up = false;
        let node = beat.node.clone();
        match before {
            State::Dead | State::Left => is_started.then_some(Change::Back(node)),
            State::Suspect => Some(Change::Recovered(node)),
            State::Alive | State::Unknown => None,
        }
    }

    /// Both come to the same judgement: the elder works.
    fn heard_rival(&mut self, beat: &Beat, stored_at_ms: i64, now: Now) -> Option<Change> {
        let (_, first_stored_ms) = self.first_echo?;
        if stored_at_ms <= first_stored_ms {
            // Of a sidecar before this one.
            return None;
        }
        let before = self
            .rival
            .take()
            .filter(|rival| rival.instance == beat.instance);
        let mut rival = before.unwrap_or_else(|| Rival {
            instance: beat.instance.clone(),
            first: now.at,
            heard: now.at,
            is_said: false,
        });
        rival.heard = now.at;
        let is_elder =
            (beat.started_ms, &beat.instance) < (self.own.started_ms, &self.own.instance);
        let is_late =
            beat.spool == self.own.spool && now.at.saturating_duration_since(rival.first) < LATE;
        let is_refused = is_elder && !beat.is_refused && !is_late;
        self.is_refused |= is_refused;
        let is_said = rival.is_said;
        rival.is_said |= !is_late;
        self.rival = Some(rival);
        (!is_late && !is_said).then(|| Change::Rival {
            instance: beat.instance.clone(),
            spool: beat.spool.clone(),
            is_refused,
        })
    }

    /// A node has taken its leave.
    pub(super) fn left(&mut self, node: &str, instance: &str, now: Now) -> Option<Change> {
        let peer = self.peers.get_mut(node)?;
        if peer.beat.instance != instance || !peer.is_living() {
            return None;
        }
        peer.heard = now.at;
        peer.enter(State::Left, now);
        Some(Change::Left(node.to_owned()))
    }

    /// Judges by the time. To be called several times a second.
    pub(super) fn judge(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        let patience = self.patience();
        let age = |at: Instant| now.at.saturating_duration_since(at);
        if self.first_echo.is_none() {
            return changes;
        }
        // Who has slept (a stopped process) has heard nothing meanwhile either.
        let has_slept = self
            .judged
            .replace(now.at)
            .is_some_and(|at| age(at) > patience);
        let is_deaf = self.echo.is_none_or(|at| age(at) > patience);
        if has_slept || is_deaf {
            if self.stale_since.is_none() {
                self.stale_since = Some(now);
                changes.push(Change::ViewLost);
            }
            for peer in self.peers.values_mut() {
                if peer.is_living() && age(peer.heard) > patience {
                    peer.enter(State::Unknown, now);
                }
            }
            return changes;
        }
        if let Some(since) = self.stale_since.take() {
            changes.push(Change::ViewBack(age(since.at) + patience));
            // From here on they are judged anew.
            for peer in self.peers.values_mut() {
                if matches!(peer.state, State::Unknown | State::Suspect | State::Alive) {
                    peer.heard = now.at;
                    peer.enter(State::Alive, now);
                }
            }
            if let Some(rival) = &mut self.rival {
                rival.heard = now.at;
            }
        }
        self.judge_peers(now, &mut changes);
        let is_rival_gone = |rival: &mut Rival| age(rival.heard) >= self.timeout;
        if self.rival.take_if(is_rival_gone).is_some() && std::mem::take(&mut self.is_refused) {
            changes.push(Change::RivalGone);
        }
        changes
    }

    fn judge_peers(&mut self, now: Now, changes: &mut Vec<Change>) {
        // Whoever asks when the time is over is to be told.
        let timeout = self.timeout.saturating_sub(NOTICE);
        let patience = self.patience();
        for (node, peer) in &mut self.peers {
            let silence = now.at.saturating_duration_since(peer.heard);
            match peer.state {
                State::Alive | State::Suspect | State::Unknown if silence >= timeout => {
                    peer.enter(State::Dead, now);
                    peer.is_given_up = true;
                    changes.push(Change::Dead(node.clone()));
                }
                State::Alive if silence > patience => {
                    peer.enter(State::Suspect, now);
                    changes.push(Change::Suspect(node.clone()));
                }
                State::Left if silence >= timeout && !peer.is_given_up => {
                    peer.is_given_up = true;
                    changes.push(Change::Gone(node.clone()));
                }
                _ => {}
            }
        }
        self.peers.retain(|_, peer| {
            peer.is_living() || now.at.saturating_duration_since(peer.heard) < SHOWN
        });
    }
}

#[cfg(test)]
#[path = "tests/members.rs"]
mod tests;
