//! The subscriptions that are there before any client is: those of saved sessions, and those of Mosquitto's own bridges.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use protocol::config::mosquitto_conf::MosquittoConf;
use protocol::message::What;

use super::event_log::EventLog;
use super::saved::{self, Saved};
use crate::broker_conf::BrokerConf;
use crate::carriers::hostname;

/// How long a single event may wait for room. Mosquitto does not serve yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the saved sessions.
pub(super) enum Restored {
    /// Mosquitto has none.
    Nothing,
    /// Those in this file, and when it was written.
    Database(PathBuf, Saved<File>, u64),
    /// Not known, and why.
    Unknown(String),
}

impl Restored {
    /// Of the broker that has this configuration, which is about to read the same.
    pub(super) fn of(conf: &BrokerConf) -> Restored {
        let parsed = match &conf.conf {
            Ok(parsed) => parsed,
            Err(why) => {
                return Restored::Unknown(format!("mosquitto.conf could not be read ({why})"));
            }
        };
        if let Some(path) = keeper(parsed) {
            return Restored::Unknown(format!("the plugin `{path}` keeps them"));
        }
        let Some(path) = parsed.persistence.path() else {
            return Restored::Nothing;
        };
        match saved::open(&path) {
            Ok(None) => Restored::Nothing,
            Ok(Some((database, at_ms))) => Restored::Database(path, database, at_ms),
            Err(error) => Restored::Unknown(format!("{}: {error}", path.display())),
        }
    }

    /// When the sessions were saved; 0: there are none.
    pub(super) fn saved_at_ms(&self) -> u64 {
        match self {
            Restored::Database(_, _, at_ms) => *at_ms,
            Restored::Nothing | Restored::Unknown(_) => 0,
        }
    }

    pub(super) fn tell(self, conf: &BrokerConf, log: &mut EventLog) {
        let why = match self {
            Restored::Nothing => None,
            Restored::Unknown(why) => Some(why),
            Restored::Database(path, database, _) => {
                let read =
                    database.read(|client_id, filter, qos| restored(log, client_id, filter, qos));
                read.err()
                    .map(|error| format!("{}: {error}", path.display()))
            }
        };
        if let Some(why) = why {
            let why = format!("the saved sessions can't be read: {why}");
            log::warn!("the cluster sends this node everything that is shared: {why}");
            log.tell_patiently(What::Deaf { why: &why }, PATIENCE);
        }
        let hostname = hostname();
        let bridges = conf.conf.iter().flat_map(|conf| &conf.bridges);
        for bridge in bridges {
            let client_id = bridge.client_id(&hostname);
            for it in &bridge.subscriptions {
                restored(log, &client_id, &it.filter, it.qos);
            }
        }
    }
}

fn restored(log: &mut EventLog, client_id: &str, filter: &str, qos: u8) {
    let what = What::Restored {
        client_id,
        filter,
        qos,
    };
    log.tell_patiently(what, PATIENCE);
}

/// A plugin of Mosquitto 2.1 that keeps the sessions in a way of its own.
fn keeper(conf: &MosquittoConf) -> Option<String> {
    let paths = conf.plugins.iter().map(|plugin| plugin.path.display());
    let mut names = paths.map(|path| path.to_string());
    names.find(|path| path.contains("persist"))
}

#[cfg(test)]
mod tests {
    use handoff::{Reader, ReaderOptions};
    use protocol::message::Event;

    use super::*;
    use crate::cluster::Groups;

    #[test]
    fn what_keeps_the_sessions_is_known_from_the_configuration() {
        let of = |text: &str| Restored::of(&BrokerConf::of_text(text));
        assert!(matches!(of("listener 1883\n"), Restored::Nothing));
        let nowhere = "persistence true\npersistence_location /nowhere\n";
        assert!(matches!(of(nowhere), Restored::Nothing));
        let plugin = "plugin /usr/lib/mosquitto_persist_sqlite.so\n";
        assert!(matches!(of(plugin), Restored::Unknown(why) if why.contains("sqlite")));
    }

    #[test]
    fn a_database_that_is_none_makes_deaf_and_bridges_are_told_all_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("mosquitto.db"), "garbage, not sessions").expect("written");
        let conf = BrokerConf::of_text(&format!(
            "persistence true\npersistence_location {}\nconnection b\nlocal_clientid me\ntopic a/# out 1\n",
            dir.path().display()
        ));
        let events = dir.path().join("events");
        let found = Restored::of(&conf);
        let mut log =
            EventLog::open(&events, found.saved_at_ms(), Groups::default()).expect("a log");
        assert!(found.saved_at_ms() > 0);
        found.tell(&conf, &mut log);
        let mut reader = Reader::open(&events, &ReaderOptions::default()).expect("a log");
        let mut next = |check: &dyn Fn(What<'_>) -> bool| {
            let frame = reader.poll().expect("good").expect("an event");
            assert!(check(Event::decode(frame.payload).expect("an event").what));
        };
        next(&|what| matches!(what, What::Deaf { why } if why.contains("mosquitto.db")));
        let bridge = What::Restored {
            client_id: "me",
            filter: "a/#",
            qos: 1,
        };
        next(&|what| what == bridge);
    }
}
