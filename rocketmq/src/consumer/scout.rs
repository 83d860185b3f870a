//! The scout: looks for topics and queues, and has them read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::start::Asked;
use super::{Fetched, Fetcher, Progress, Reader, Shared, fetch};
use crate::link::{Purpose, lock};
use crate::route::Route;
use crate::{Error, Queue, Subscription, answer, heartbeat};

/// How often routes are looked up: as long as a new queue may go unnoticed.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// The same while something fails.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Looks that fetchers ask for are not closer than this.
const HURRY_PAUSE: Duration = Duration::from_millis(200);
const HEARTBEAT_PAUSE: Duration = Duration::from_secs(30);
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn run(shared: Arc<Shared>, outgoing: mpsc::Sender<Fetched>) {
    let mut asked: HashMap<String, Asked> = HashMap::new();
    let mut beats: HashMap<String, Instant> = HashMap::new();
    loop {
        let mut failed = false;
        for interest in &shared.interests {
            let what = format!("topic {}", interest.topic);
            match look(&shared, interest, &mut asked, &mut beats, &outgoing).await {
                Ok(()) => shared.works(&what),
                Err(error) => {
                    failed = true;
                    shared.fails(&what, error);
                }
            }
        }
        send_heartbeats(&shared, &mut beats).await;
        let pause = if failed { RETRY_PAUSE } else { LOOK_PAUSE };
        tokio::time::sleep(HURRY_PAUSE).await;
        tokio::select! {
            () = tokio::time::sleep(pause.saturating_sub(HURRY_PAUSE)) => {}
            () = shared.hurry.notified() => {}
        }
    }
}

async fn look(
    shared: &Arc<Shared>,
    interest: &Subscription,
    asked: &mut HashMap<String, Asked>,
    beats: &mut HashMap<String, Instant>,
    outgoing: &mpsc::Sender<Fetched>,
) -> Result<(), Error> {
    let route = match shared.cluster.route(&interest.topic).await {
        Ok(route) => route,
        Err(Error::TopicMissing { .. }) => {
            // Nothing to read yet is not a failure.
            asked
                .entry(interest.topic.clone())
                .or_insert_with(|| Asked::now(true));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    note_readers(shared, &interest.topic, &route);
    let new: Vec<Queue> = {
        let fetchers = lock(&shared.fetchers);
        route
            .read_queues
            .iter()
            .filter(|queue| !fetchers.contains_key(queue))
            .cloned()
            .collect()
    };
    let asked = asked
        .entry(interest.topic.clone())
        .or_insert_with(|| Asked::now(false));
    if !new.is_empty() {
        // A broker takes no offsets for a group of which it has never heard.
        send_heartbeats(shared, beats).await;
        for (queue, offset) in asked.places(shared, new).await? {
            start(shared, interest, queue, offset, outgoing);
        }
    }
    forget_removed(shared, &interest.topic, &route);
    Ok(())
}

fn note_readers(shared: &Shared, topic: &str, route: &Route) {
    let mut readers = lock(&shared.readers);
    for (broker, address) in &route.readers {
        let reader = Reader {
            address: address.clone(),
            is_master: route.masters.contains_key(broker),
        };
        readers.insert((topic.to_owned(), broker.clone()), reader);
    }
}

fn start(
    shared: &Arc<Shared>,
    interest: &Subscription,
    queue: Queue,
    offset: i64,
    outgoing: &mpsc::Sender<Fetched>,
) {
    log::debug!(
        "reading {} queue {} of broker {} from {offset}",
        queue.topic,
        queue.id,
        queue.broker
    );
    let progress = Arc::new(Progress {
        next: AtomicI64::new(offset),
        max: AtomicI64::new(-1),
    });
    let fetching = fetch::run(
        Arc::clone(shared),
        queue.clone(),
        interest.select.expression(),
        Arc::clone(&progress),
        outgoing.clone(),
    );
    let task = tokio::spawn(fetching).abort_handle();
    lock(&shared.fetchers).insert(queue, Fetcher { task, progress });
}

/// Ends fetchers of queues that their broker no longer has. Those of a broker that is away go on trying.
fn forget_removed(shared: &Shared, topic: &str, route: &Route) {
    let gone: Vec<Queue> = {
        let fetchers = lock(&shared.fetchers);
        let of_topic = fetchers.keys().filter(|queue| queue.topic == topic);
        of_topic
            .filter(|queue| {
                route.readers.contains_key(&queue.broker) && !route.read_queues.contains(queue)
            })
            .cloned()
            .collect()
    };
    for queue in gone {
        log::warn!(
            "broker {} has no queue {} of {} any more",
            queue.broker,
            queue.id,
            queue.topic
        );
        if let Some(fetcher) = lock(&shared.fetchers).remove(&queue) {
            fetcher.task.abort();
        }
        shared.works(&fetch::name(&queue));
    }
}

async fn send_heartbeats(shared: &Shared, beats: &mut HashMap<String, Instant>) {
    let addresses: HashSet<String> = lock(&shared.readers)
        .values()
        .map(|reader| reader.address.clone())
        .collect();
    beats.retain(|address, _| addresses.contains(address));
    for address in addresses {
        if beats
            .get(&address)
            .is_some_and(|last| last.elapsed() < HEARTBEAT_PAUSE)
        {
            continue;
        }
        let Ok(request) =
            heartbeat::of_consumer(&shared.cluster.instance, &shared.group, &shared.interests)
        else {
            continue;
        };
        let answered = shared
            .cluster
            .links
            .call(Purpose::Requests, &address, request, HEARTBEAT_LIMIT)
            .await;
        if answered
            .and_then(|response| answer::check(&response, ""))
            .is_ok()
        {
            beats.insert(address, Instant::now());
        }
    }
}
