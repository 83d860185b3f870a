//! The scout: looks for topics and queues, and has them read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::ahead::{Fetched, Progress};
use super::beats::Beats;
use super::fetch::Fetch;
use super::start::{Asked, Begin};
use super::{Fetcher, Reader, Shared, pull};
use crate::link::{Purpose, lock};
use crate::route::Route;
use crate::{Error, Queue, Subscription, answer, heartbeat};

/// How often routes are looked up: as long as a new queue may go unnoticed.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// The same while something fails.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Looks that fetchers ask for are not closer than this.
const HURRY_PAUSE: Duration = Duration::from_millis(200);
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn run(shared: Arc<Shared>, outgoing: mpsc::Sender<Fetched>) {
    let mut asked: HashMap<String, Asked> = HashMap::new();
    let mut beats = Beats::default();
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
    beats: &mut Beats,
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
        for (queue, begin) in asked.places(shared, new).await? {
            start(shared, interest, queue, begin, outgoing);
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
    begin: Begin,
    outgoing: &mpsc::Sender<Fetched>,
) {
    log::debug!(
        "reading {} queue {} of broker {} from {}",
        queue.topic,
        queue.id,
        queue.broker,
        begin.offset
    );
    let progress = Arc::new(Progress::starting(begin.offset));
    let fetch = Fetch::new(
        Arc::clone(shared),
        queue.clone(),
        &interest.select,
        begin,
        Arc::clone(&progress),
        outgoing.clone(),
    );
    let task = tokio::spawn(fetch.run()).abort_handle();
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
        shared.works(&pull::name(&queue));
    }
}

async fn send_heartbeats(shared: &Shared, beats: &mut Beats) {
    let addresses: HashSet<String> = lock(&shared.readers)
        .values()
        .map(|reader| reader.address.clone())
        .collect();
    beats.look(&shared.interests);
    for address in beats.due(addresses) {
        let Ok(request) =
            heartbeat::of_consumer(&shared.cluster.instance, &shared.group, beats.registered())
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
            beats.sent(address);
        }
    }
}
