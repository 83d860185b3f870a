//! The whole of it, with a spool and a plugin that the tests play.

mod fake;
mod nodes;

use std::path::Path;

use handoff::{LogOptions, Reader, ReaderOptions, SyncPolicy, Writer};
use protocol::message::{Event, What};

use super::*;
use crate::downlink::{self, DownlinkHandle};
use fake::Fake;

/// Waits until it is so: a minute at most.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn config(spool_dir: &Path, node: &str) -> Arc<Config> {
    let dir = spool_dir.display().to_string();
    let options = [
        ("namesrv", "127.0.0.1:9876"),
        ("node_id", node),
        ("spool_dir", dir.as_str()),
        ("cluster", "factory"),
        ("cluster_node_timeout", "2s"),
        ("share", "#"),
    ];
    Arc::new(Config::from_options(options.into_iter()).unwrap())
}

fn log_options() -> LogOptions {
    LogOptions {
        segment_bytes: 256 << 10,
        bytes_max: 16 << 20,
        sync: SyncPolicy::None,
        may_wait: true,
    }
}

/// The plugin's side of the events.
struct Plugin(Writer);

impl Plugin {
    fn open(spool_dir: &Path) -> Plugin {
        Plugin(Writer::open(&spool_dir.join(events::FOLDER), &log_options()).unwrap())
    }

    fn tell(&mut self, what: What<'_>) {
        let event = Event {
            at_ms: unix_ms(),
            what,
        };
        let fill = |frame: &mut [u8]| event.encode_into(frame);
        self.0.append_with(event.encoded_len(), fill).unwrap();
    }
}

fn online(client_id: &str, login: u64) -> What<'_> {
    What::Online {
        client_id,
        username: None,
        login,
        mqtt_version: 5,
        clean: false,
    }
}

fn subscribed<'a>(client_id: &'a str, filter: &'a str) -> What<'a> {
    What::Subscribed {
        client_id,
        filter,
        qos: 1,
        downlink_position: 0,
        uplink_position: 0,
    }
}

/// A sidecar as far as the cluster needs one.
struct Sidecar {
    cluster: ClusterHandle,
    downlink: DownlinkHandle,
    interest: watch::Receiver<Arc<Interest>>,
}

impl Sidecar {
    fn start(spool_dir: &Path, node: &str, fake: &Fake) -> Sidecar {
        let config = config(spool_dir, node);
        let prepared = Prepared::open(&config).unwrap().unwrap();
        let interest = prepared.interest();
        let metrics = Arc::new(Metrics::default());
        let writer = Writer::open(&spool_dir.join("downlink"), &log_options()).unwrap();
        // What it reads by itself is none of this.
        let nothing = Fake::default().link(node);
        let outlets = downlink::Outlets {
            dead: Box::new(|_, _, _| {}),
            shared: None,
        };
        let downlink =
            downlink::start(config, writer, nothing, Arc::clone(&metrics), outlets).unwrap();
        let replays = downlink.replays();
        let lost = Lost {
            retained: Arc::new(Retained::open(spool_dir).unwrap()),
            missed: None,
            inbox: None,
        };
        let cluster = prepared
            .start(fake.link(node), metrics, replays, lost)
            .unwrap();
        Sidecar {
            cluster,
            downlink,
            interest,
        }
    }

    async fn stop(self) {
        assert!(self.cluster.stop(Duration::from_secs(60)).await);
        assert!(self.downlink.stop(Duration::from_secs(60)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_of_interest_also_to_the_next_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "a");
    let fake = Fake::default();
    let running = Sidecar::start(dir.path(), "a", &fake);
    let interest = running.interest.clone();
    let everywhere = Vec::from(["P", "R"]);
    let tags: Vec<_> = interest.borrow().tags.keys().cloned().collect();
    assert_eq!(tags, everywhere);
    // The plugin makes the log later.
    let mut plugin = Plugin::open(dir.path());
    plugin.tell(What::Started {
        saved_at_ms: 0,
        ran_until_ms: 0,
    });
    plugin.tell(online("c", 5));
    plugin.tell(subscribed("c", "sensors/7/temperature"));
    eventually("the tag is wanted", || {
        interest.borrow().tags.contains_key("250b")
    })
    .await;
    let end = plugin.0.end();
    eventually("the events are given back", || plugin.0.released() == end).await;
    let since = interest.borrow().tags["250b"];
    running.stop().await;
    let running = Sidecar::start(dir.path(), "a", &fake);
    assert_eq!(running.interest.borrow().tags["250b"], since);
    plugin.tell(What::Deaf { why: "not heard" });
    plugin.0.append(b"no event").unwrap();
    let end = plugin.0.end();
    eventually("the rubbish is given back", || plugin.0.released() == end).await;
    running.stop().await;
    let last = Prepared::open(&config).unwrap().unwrap();
    let all_since_ms = last.interest().borrow().all_since_ms;
    assert!(all_since_ms.is_some_and(|at| at >= since));
}

#[test]
fn a_node_without_a_cluster_has_none_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool_dir = dir.path().display().to_string();
    let options = [
        ("namesrv", "127.0.0.1:9876"),
        ("node_id", "a"),
        ("spool_dir", spool_dir.as_str()),
        ("downlink", "A a"),
    ];
    let config = Arc::new(Config::from_options(options.into_iter()).unwrap());
    assert!(Prepared::open(&config).unwrap().is_none());
    assert!(!dir.path().join(journal::FILE).exists());
    assert!(!dir.path().join("cluster.id").exists());
}

#[test]
fn while_it_is_withheld_nothing_is_of_interest() {
    let all = Interest {
        all_since_ms: Some(1),
        ..Interest::default()
    };
    let interests = Interests::new(all.clone());
    let mut told = interests.subscribe();
    interests.withhold(true);
    assert!(told.has_changed().unwrap());
    assert_eq!(**told.borrow_and_update(), Interest::default());
    interests.set(Interest::default());
    interests.set(all.clone());
    assert!(!told.has_changed().unwrap());
    interests.withhold(false);
    assert_eq!(**told.borrow_and_update(), all);
}
