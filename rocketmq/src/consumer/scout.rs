//! The scout: looks for topics and queues, and decides where to start in them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Fetched, Fetcher, Progress, Shared, fetch, offsets};
use crate::link::{Purpose, lock};
use crate::route::Route;
use crate::{Error, Queue, StartAt, Subscription, answer, heartbeat};

/// How often routes are looked up: as long as a new queue may go unnoticed.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// The same while something fails.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Looks that fetchers ask for are not closer than this.
const HURRY_PAUSE: Duration = Duration::from_millis(200);
const HEARTBEAT_PAUSE: Duration = Duration::from_secs(30);
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(3);

/// Topics about which RocketMQ has given a first answer: what comes to exist later is read from its beginning.
type Asked = HashSet<String>;

pub(super) async fn run(shared: Arc<Shared>, outgoing: mpsc::Sender<Fetched>) {
    let mut asked = Asked::new();
    let mut beats: HashMap<String, Instant> = HashMap::new();
    loop {
        let mut failed = false;
        for interest in &shared.interests {
            let what = format!("topic {}", interest.topic);
            match look(&shared, interest, &mut asked, &outgoing).await {
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
    asked: &mut Asked,
    outgoing: &mpsc::Sender<Fetched>,
) -> Result<(), Error> {
    let route = match shared.cluster.route(&interest.topic).await {
        Ok(route) => route,
        Err(Error::TopicMissing { .. }) => {
            // Nothing to read yet is not a failure.
            asked.insert(interest.topic.clone());
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
    if !new.is_empty() {
        for (queue, offset) in places_to_start(
            shared,
            &route.read_queues,
            new,
            asked.contains(&interest.topic),
        )
        .await?
        {
            start(shared, interest, queue, offset, outgoing);
        }
    }
    asked.insert(interest.topic.clone());
    forget_removed(shared, &interest.topic, &route);
    Ok(())
}

fn note_readers(shared: &Shared, topic: &str, route: &Route) {
    let mut readers = lock(&shared.readers);
    for (broker, address) in &route.readers {
        readers.insert((topic.to_owned(), broker.clone()), address.clone());
    }
}

/// Where to start in the new queues. All of them or none, so that a later look decides by the same knowledge.
async fn places_to_start(
    shared: &Shared,
    all: &[Queue],
    new: Vec<Queue>,
    asked_before: bool,
) -> Result<Vec<(Queue, i64)>, Error> {
    let mut known = Vec::with_capacity(new.len());
    for queue in new {
        let committed = offsets::committed(shared, &queue).await?;
        known.push((queue, committed));
    }
    // Offsets in some queues and none in others: the others have been added since the group last read.
    let mut group_is_known =
        known.iter().any(|(_, committed)| committed.is_some()) || known.len() < all.len();
    group_is_known |= asked_before;
    let mut places = Vec::with_capacity(known.len());
    for (queue, committed) in known {
        let offset = match committed {
            Some(offset) => offset,
            None if group_is_known || shared.start == StartAt::Earliest => 0,
            None => {
                let end = offsets::end(shared, &queue).await?;
                // At once: after a crash it must not count as a queue that nobody has looked at.
                offsets::commit(shared, &queue, end).await?;
                end
            }
        };
        places.push((queue, offset));
    }
    Ok(places)
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
        interest.tags.clone(),
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
    let addresses: HashSet<String> = lock(&shared.readers).values().cloned().collect();
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
