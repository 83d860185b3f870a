//! Reading: lite pull with assigned queues, offsets committed by our caller.
//!
//! ```text
//! scout ── every few seconds: routes of the topics, new queues and where to start in them, heartbeats
//!   └─ one fetcher per queue: long polls ──▶ one bounded channel ──▶ poll()
//! ```
//! Where what is wanted is an interest that changes, each fetcher follows it: see `follow` and `wanted`.
//!
//! This is not the library's own lite pull consumer: that one takes up to 19 s to shut down, fixes where to start
//! per consumer and not per queue, and cannot read a message of 4 MiB.

mod ahead;
mod beats;
mod by_tag;
mod decode;
mod decompress;
mod fetch;
mod follow;
mod lz4;
mod offsets;
mod positions;
mod pull;
mod reading;
mod scout;
mod start;
mod wanted;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use self::ahead::{AHEAD_ANSWERS_MAX, AHEAD_KIB_MAX, Fetched, Progress};
use self::by_tag::ByTag;
use crate::client::Cluster;
use crate::link::lock;
use crate::{Consumer, Error, Incoming, Queue, Select, StartAt, Subscription};

/// Shared by the reader, the scout and the fetchers.
struct Shared {
    cluster: Arc<Cluster>,
    group: String,
    interests: Vec<Subscription>,
    start: StartAt,
    /// (topic, broker) → where to read it.
    readers: Mutex<HashMap<(String, String), Reader>>,
    fetchers: Mutex<HashMap<Queue, Fetcher>>,
    /// What fails at the moment, by what it is.
    failures: Mutex<BTreeMap<String, Error>>,
    /// Wakes the scout before its time.
    hurry: Notify,
    ahead: Arc<Semaphore>,
    buffered: AtomicU64,
}

/// Where a queue is read.
#[derive(Debug, Clone)]
struct Reader {
    address: String,
    /// Else it is a slave, because there is no master now.
    is_master: bool,
}

struct Fetcher {
    task: AbortHandle,
    progress: Arc<Progress>,
}

impl Shared {
    fn fails(&self, what: &str, error: Error) {
        let mut failures = lock(&self.failures);
        if failures.get(what) != Some(&error) {
            log::debug!("{what}: {error}");
            failures.insert(what.to_owned(), error);
        }
    }

    fn works(&self, what: &str) {
        lock(&self.failures).remove(what);
    }

    fn reader_of(&self, queue: &Queue) -> Result<Reader, Error> {
        let readers = lock(&self.readers);
        let reader = readers.get(&(queue.topic.clone(), queue.broker.clone()));
        reader.cloned().ok_or_else(|| Error::Unavailable {
            reason: format!(
                "broker {} is not in the route of {}",
                queue.broker, queue.topic
            ),
        })
    }
}

/// Several subscriptions of one topic become one: RocketMQ knows one expression per group and topic.
pub(crate) fn merge(subscriptions: Vec<Subscription>) -> Vec<Subscription> {
    let mut of_topics: BTreeMap<String, Vec<Select>> = BTreeMap::new();
    for Subscription { topic, select } in subscriptions {
        of_topics.entry(topic).or_default().push(select);
    }
    of_topics
        .into_iter()
        .map(|(topic, mut selects)| {
            let select = match (selects.pop(), selects.is_empty()) {
                (Some(interest @ Select::Interest(_)), true) => interest,
                (last, _) => Select::Tags(union(selects.into_iter().chain(last))),
            };
            Subscription { topic, select }
        })
        .collect()
}

fn union(selects: impl Iterator<Item = Select>) -> String {
    let mut tags = Vec::new();
    for select in selects {
        let Select::Tags(expression) = select else {
            return "*".to_owned();
        };
        // Blanks around the bars would make a tag of its own that no message carries.
        let parts = expression.split("||").map(str::trim);
        tags.extend(parts.map(|tag| if tag.is_empty() { "*" } else { tag }.to_owned()));
    }
    if tags.iter().any(|tag| tag == "*") {
        return "*".to_owned();
    }
    tags.sort();
    tags.dedup();
    tags.join("||")
}

/// The expression of the moment.
fn expression(select: &Select) -> String {
    match select {
        Select::Tags(tags) => tags.clone(),
        Select::Interest(interest) => ByTag::since(&interest.borrow()).expression(),
    }
}

/// The reader's side.
pub(crate) struct LitePull {
    shared: Arc<Shared>,
    incoming: mpsc::Receiver<Fetched>,
    /// Of an answer that was larger than what the last poll asked for.
    rest: VecDeque<Incoming>,
    scout: AbortHandle,
}

impl LitePull {
    pub(crate) fn start(
        cluster: Arc<Cluster>,
        group: &str,
        interests: Vec<Subscription>,
        start: StartAt,
    ) -> LitePull {
        let (outgoing, incoming) = mpsc::channel(AHEAD_ANSWERS_MAX);
        let shared = Arc::new(Shared {
            cluster,
            group: group.to_owned(),
            interests,
            start,
            readers: Mutex::default(),
            fetchers: Mutex::default(),
            failures: Mutex::default(),
            hurry: Notify::new(),
            ahead: Arc::new(Semaphore::new(AHEAD_KIB_MAX as usize)),
            buffered: AtomicU64::new(0),
        });
        let scout = tokio::spawn(scout::run(Arc::clone(&shared), outgoing)).abort_handle();
        LitePull {
            shared,
            incoming,
            rest: VecDeque::new(),
            scout,
        }
    }

    fn take(&mut self, fetched: Fetched, max: usize, out: &mut Vec<Incoming>) {
        self.shared
            .buffered
            .fetch_sub(fetched.messages.len() as u64, Ordering::Relaxed);
        for message in fetched.messages {
            if out.len() < max {
                out.push(message)
            } else {
                self.rest.push_back(message)
            }
        }
        // A mark comes without messages, so all that was before it is in `out`: while something is left over, nothing more is taken.
        if let Some((progress, mark)) = fetched.mark {
            progress.reached(mark);
        }
    }
}

impl Drop for LitePull {
    fn drop(&mut self) {
        self.scout.abort();
        for fetcher in lock(&self.shared.fetchers).values() {
            fetcher.task.abort();
        }
    }
}

#[async_trait]
impl Consumer for LitePull {
    async fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<Incoming>, Error> {
        let max = max.max(1);
        let mut out = Vec::new();
        while out.len() < max {
            let Some(message) = self.rest.pop_front() else {
                break;
            };
            out.push(message);
        }
        let deadline = tokio::time::Instant::now() + timeout;
        while out.is_empty() {
            match tokio::time::timeout_at(deadline, self.incoming.recv()).await {
                Ok(Some(fetched)) => self.take(fetched, max, &mut out),
                Ok(None) => {
                    return Err(Error::Unavailable {
                        reason: "the reading has ended".to_owned(),
                    });
                }
                Err(_) => {
                    // Silence is only good news while nothing fails.
                    return match lock(&self.shared.failures).values().next() {
                        Some(error) => Err(error.clone()),
                        None => Ok(out),
                    };
                }
            }
        }
        while out.len() < max {
            let Ok(fetched) = self.incoming.try_recv() else {
                break;
            };
            self.take(fetched, max, &mut out);
        }
        Ok(out)
    }

    async fn commit(&mut self, offsets: &[(Queue, i64)]) -> Result<(), Error> {
        if let [(queue, offset)] = offsets {
            return offsets::commit(&self.shared, queue, *offset).await;
        }
        let mut commits = JoinSet::new();
        for (queue, offset) in offsets.iter().cloned() {
            let shared = Arc::clone(&self.shared);
            commits.spawn(async move { offsets::commit(&shared, &queue, offset).await });
        }
        let mut outcome = Ok(());
        while let Some(done) = commits.join_next().await {
            match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => outcome = Err(error),
                Err(error) => {
                    outcome = Err(Error::Unavailable {
                        reason: error.to_string(),
                    })
                }
            }
        }
        outcome
    }

    async fn lag(&self) -> Option<u64> {
        let fetchers = lock(&self.shared.fetchers);
        if fetchers.is_empty() {
            return None;
        }
        let mut lag = self.shared.buffered.load(Ordering::Relaxed) + self.rest.len() as u64;
        for fetcher in fetchers.values() {
            let next = fetcher.progress.next.load(Ordering::Relaxed);
            let max = fetcher.progress.max.load(Ordering::Relaxed);
            if max >= 0 {
                lag += u64::try_from(max - next).unwrap_or(0);
            }
        }
        Some(lag)
    }

    fn settled_ms(&self) -> Option<i64> {
        let fetchers = lock(&self.shared.fetchers);
        let mut settled_ms = None;
        for Subscription { topic, select } in &self.shared.interests {
            let Select::Interest(interest) = select else {
                continue;
            };
            let interest = Arc::clone(&interest.borrow());
            let mut of_topic = fetchers.iter().filter(|(queue, _)| queue.topic == *topic);
            let is_settled = |fetcher: &Fetcher| {
                let settled = lock(&fetcher.progress.settled);
                settled
                    .as_ref()
                    .is_some_and(|settled| Arc::ptr_eq(settled, &interest))
            };
            let (_, first) = of_topic.next()?;
            if !is_settled(first) || !of_topic.all(|(_, fetcher)| is_settled(fetcher)) {
                return None;
            }
            let tags = interest.tags.values().copied();
            // 0 would be "not known".
            let newest = tags.chain(interest.all_since_ms).max().unwrap_or(1).max(1);
            settled_ms = Some(settled_ms.unwrap_or(newest).min(newest));
        }
        settled_ms
    }

    fn read_until_ms(&self, topic: &str) -> Option<i64> {
        let fetchers = lock(&self.shared.fetchers);
        let of_topic = fetchers.iter().filter(|(queue, _)| queue.topic == topic);
        let until = |fetcher: &Fetcher| fetcher.progress.read_until_ms.load(Ordering::Relaxed);
        of_topic
            .map(|(_, fetcher)| until(fetcher))
            .min()
            .filter(|ms| *ms > 0)
    }

    async fn close(self: Box<Self>) {
        // Dropping ends the tasks; the long polls in flight are simply not waited for.
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::Interest;

    #[test]
    fn subscriptions_of_one_topic_become_one_without_blanks() {
        let subscription = |topic: &str, tags: &str| Subscription {
            topic: topic.to_owned(),
            select: Select::Tags(tags.to_owned()),
        };
        let merged = merge(vec![
            subscription("A", "b || a"),
            subscription("B", "x"),
            subscription("A", "c"),
            subscription("B", "*"),
            subscription("C", ""),
        ]);
        let merged: Vec<_> = merged
            .into_iter()
            .map(|subscription| (subscription.topic, expression(&subscription.select)))
            .collect();
        let expected = [("A", "a||b||c"), ("B", "*"), ("C", "*")];
        assert_eq!(
            merged,
            expected.map(|(topic, tags)| (topic.into(), tags.into()))
        );
    }

    #[test]
    fn an_interest_stays_one_unless_there_are_fixed_tags_beside_it() {
        let interest = Interest {
            tags: [("b", 1), ("a", 2)]
                .map(|(tag, since)| (tag.to_owned(), since))
                .into(),
            ..Interest::default()
        };
        let (_sender, interest) = watch::channel(Arc::new(interest));
        let interest_in = |topic: &str| Subscription {
            topic: topic.to_owned(),
            select: Select::Interest(interest.clone()),
        };
        let fixed = Subscription {
            topic: "B".to_owned(),
            select: Select::Tags("x".to_owned()),
        };
        let merged = merge(vec![interest_in("A"), interest_in("B"), fixed]);
        assert!(matches!(merged[0].select, Select::Interest(_)));
        assert_eq!(expression(&merged[0].select), "a||b");
        assert!(matches!(&merged[1].select, Select::Tags(tags) if tags == "*"));
    }
}
