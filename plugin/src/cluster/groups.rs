//! Shared subscriptions (`$share/<group>/<filter>`) of this broker's sessions.
//!
//! For what the cluster shares, a group has its members on all nodes, and each message goes to one of them. Which node's turn it is the sidecar says; here it is chosen whose turn
//! it is of the members of this node, and the message is injected for that one alone. What Mosquitto would give to its members by its own turns is kept from them (`selecting`); so it has to be known
//! what else they have subscribed to, for what they get by that is theirs all the same.

use std::collections::{HashMap, VecDeque};

use protocol::message::What;
use protocol::topic::filter_matches;

/// What a session has subscribed to.
#[derive(Debug, Default)]
struct Session {
    /// `<group>/<filter>` of each shared subscription.
    shares: Vec<Box<str>>,
    others: Vec<Box<str>>,
    /// The login that has it; 0 when not known.
    login: u64,
    /// Its client is connected to another node: it is to get nothing here.
    has_moved: bool,
}

/// The members of a shared subscription, in the order of their turns.
#[derive(Debug, Default)]
struct Group {
    members: VecDeque<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    client_id: Box<str>,
    /// Of its subscription.
    qos: u8,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// What the cluster shares.
    shared: Vec<Box<str>>,
    sessions: HashMap<Box<str>, Session>,
    groups: HashMap<Box<str>, Group>,
    /// Clients that have come back from other nodes.
    resumed: Vec<Box<str>>,
}

/// `<group>/<filter>` of a shared subscription.
pub(crate) fn group_of(filter: &str) -> Option<&str> {
    filter
        .strip_prefix("$share/")
        .filter(|key| key.contains('/'))
}

fn filter_of(key: &str) -> &str {
    key.split_once('/').map_or("", |(_, filter)| filter)
}

impl Groups {
    pub(crate) fn new<'a>(shared: impl Iterator<Item = &'a str>) -> Groups {
        Groups {
            shared: shared.map(Into::into).collect(),
            ..Groups::default()
        }
    }

    /// Something has happened.
    pub(super) fn follow(&mut self, what: &What<'_>) {
        match *what {
            What::Online {
                client_id,
                login,
                clean,
                ..
            } => {
                if clean {
                    self.ends(client_id);
                }
                let session = self.session(client_id);
                session.login = login;
                if std::mem::take(&mut session.has_moved) {
                    self.resumed.push(client_id.into());
                }
            }
            What::Offline {
                client_id,
                login,
                session_stays: false,
                ..
            } => {
                let session = self.sessions.get(client_id);
                if session.is_some_and(|session| session.login <= login) {
                    self.ends(client_id);
                }
            }
            What::Subscribed {
                client_id,
                filter,
                qos,
                ..
            }
            | What::Restored {
                client_id,
                filter,
                qos,
            } => self.subscribes(client_id, filter, qos),
            What::Unsubscribed { client_id, filter } => self.unsubscribes(client_id, filter),
            What::Offline { .. }
            | What::Started { .. }
            | What::Resumed { .. }
            | What::Deaf { .. } => {}
        }
    }

    fn session(&mut self, client_id: &str) -> &mut Session {
        self.sessions.entry(client_id.into()).or_default()
    }

    /// A session may have this subscription from now on.
    pub(crate) fn subscribes(&mut self, client_id: &str, filter: &str, qos: u8) {
        let session = self.session(client_id);
        let Some(key) = group_of(filter) else {
            if !session.others.iter().any(|one| **one == *filter) {
                session.others.push(filter.into());
            }
            return;
        };
        if !session.shares.iter().any(|one| **one == *key) {
            session.shares.push(key.into());
        }
        let group = self.groups.entry(key.into()).or_default();
        let known = group
            .members
            .iter_mut()
            .find(|one| *one.client_id == *client_id);
        match known {
            Some(member) => member.qos = qos,
            None => group.members.push_back(Member {
                client_id: client_id.into(),
                qos,
            }),
        }
    }

    /// A session has given this subscription up.
    fn unsubscribes(&mut self, client_id: &str, filter: &str) {
        let Some(session) = self.sessions.get_mut(client_id) else {
            return;
        };
        match group_of(filter) {
            Some(key) => {
                session.shares.retain(|one| **one != *key);
                self.leaves(client_id, key);
            }
            None => session.others.retain(|one| **one != *filter),
        }
    }

    /// A session is over, or a client begins a new one.
    fn ends(&mut self, client_id: &str) {
        if let Some(session) = self.sessions.remove(client_id) {
            for key in session.shares {
                self.leaves(client_id, &key);
            }
        }
    }

    fn leaves(&mut self, client_id: &str, key: &str) {
        if let Some(group) = self.groups.get_mut(key) {
            group.members.retain(|one| *one.client_id != *client_id);
            if group.members.is_empty() {
                self.groups.remove(key);
            }
        }
    }

    /// The member of the group whose turn it is of those that `takes` it, with the QoS of its subscription. A session whose client is on another node is passed over.
    pub(crate) fn next(
        &mut self,
        key: &str,
        mut takes: impl FnMut(&str) -> bool,
    ) -> Option<(Box<str>, u8)> {
        let group = self.groups.get_mut(key)?;
        let sessions = &self.sessions;
        let is_here = |member: &Member| {
            let session = sessions.get(&member.client_id);
            session.is_some_and(|session| !session.has_moved)
        };
        let found = group
            .members
            .iter()
            .position(|member| is_here(member) && takes(&member.client_id))?;
        let member = group.members.remove(found)?;
        let chosen = (member.client_id.clone(), member.qos);
        group.members.push_back(member);
        Some(chosen)
    }

    /// The client of a session is on another node now, unless it has logged in here once more behind this login.
    pub(crate) fn moved(&mut self, client_id: &str, login: u64) {
        if let Some(session) = self.sessions.get_mut(client_id) {
            session.has_moved |= session.login <= login;
        }
    }

    /// A client that has come back from another node to its session here.
    pub(crate) fn next_resumed(&mut self) -> Option<Box<str>> {
        self.resumed.pop()
    }

    /// Whether a message that is for everybody is not for this session: it would come by shared subscriptions alone, or its client is elsewhere.
    pub(crate) fn withholds(&self, client_id: &str, topic: &str) -> bool {
        let Some(session) = self.sessions.get(client_id) else {
            return false;
        };
        if !session.has_moved && session.shares.is_empty() {
            return false;
        }
        let is_shared = || {
            self.shared
                .iter()
                .any(|filter| filter_matches(filter, topic))
        };
        let matches = |filter: &str| filter_matches(filter, topic);
        if session.has_moved {
            return is_shared();
        }
        session.shares.iter().any(|key| matches(filter_of(key)))
            && !session.others.iter().any(|filter| matches(filter))
            && is_shared()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "g/jobs/+";

    fn groups() -> Groups {
        let mut groups = Groups::new(["jobs/#"].into_iter());
        groups.subscribes("a", "$share/g/jobs/+", 1);
        groups.subscribes("a", "$share/g/other", 1);
        groups.subscribes("b", "$share/g/jobs/+", 2);
        groups.subscribes("b", "jobs/1", 0);
        groups.subscribes("c", "jobs/#", 1);
        groups
    }

    /// Whose turns it is.
    fn turns(groups: &mut Groups, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| match groups.next(KEY, |_| true) {
                Some((client_id, qos)) => format!("{client_id} {qos}"),
                None => "nobody".to_owned(),
            })
            .collect()
    }

    #[test]
    fn what_comes_by_a_shared_subscription_alone_is_withheld() {
        let groups = groups();
        assert!(groups.withholds("a", "jobs/1"));
        assert!(groups.withholds("b", "jobs/2"));
        assert!(
            !groups.withholds("b", "jobs/1"),
            "it has subscribed to it by itself too"
        );
        assert!(!groups.withholds("c", "jobs/1"));
        assert!(!groups.withholds("nobody", "jobs/1"));
        assert!(
            !groups.withholds("a", "other"),
            "the cluster does not share it"
        );
    }

    #[test]
    fn members_take_turns_until_they_leave() {
        let mut groups = groups();
        groups.subscribes("a", "$share/g/jobs/+", 0);
        assert_eq!(turns(&mut groups, 4), ["a 0", "b 2", "a 0", "b 2"]);
        assert_eq!(
            groups.next(KEY, |client| client == "b"),
            Some(("b".into(), 2))
        );
        assert_eq!(groups.next(KEY, |_| false), None);
        groups.unsubscribes("a", "$share/g/jobs/+");
        groups.unsubscribes("a", "$share/g/jobs/+");
        assert_eq!(turns(&mut groups, 2), ["b 2", "b 2"]);
        groups.ends("b");
        assert_eq!(turns(&mut groups, 1), ["nobody"]);
        assert!(!groups.withholds("b", "jobs/2"));
    }

    #[test]
    fn a_session_whose_client_is_elsewhere_gets_nothing_that_is_shared() {
        let mut groups = groups();
        groups.moved("b", 5);
        groups.moved("c", 5);
        assert_eq!(turns(&mut groups, 2), ["a 1", "a 1"]);
        assert!(groups.withholds("b", "jobs/1") && groups.withholds("c", "jobs/9"));
        assert!(!groups.withholds("c", "not/shared"));
        let online = |login| What::Online {
            client_id: "b",
            username: None,
            login,
            mqtt_version: 5,
            clean: false,
        };
        groups.follow(&online(6));
        assert_eq!(groups.next_resumed().as_deref(), Some("b"));
        assert_eq!(groups.next_resumed(), None);
        groups.moved("b", 5);
        assert_eq!(
            turns(&mut groups, 2),
            ["b 2", "a 1"],
            "that was before it came"
        );
    }
}
