//! A RocketMQ made of memory for several nodes: two queues a topic, each stored message with a time and an offset. A node can be cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rocketmq::{Backbone, Consumer, Error, Incoming, Outgoing, Queue, StartAt, Subscription};

use crate::metrics::unix_ms;

#[derive(Default)]
struct State {
    queues: BTreeMap<Queue, Vec<Incoming>>,
    committed: BTreeMap<(String, Queue), i64>,
    cut_off: BTreeSet<String>,
}

/// What all nodes share.
#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

/// A node's way to it.
struct Link {
    node: String,
    fake: Fake,
}

struct Reader {
    node: String,
    group: String,
    topics: Vec<String>,
    next: BTreeMap<Queue, i64>,
    fake: Fake,
}

impl Fake {
    pub(super) fn link(&self, node: &str) -> Arc<dyn Backbone> {
        Arc::new(Link {
            node: node.to_owned(),
            fake: self.clone(),
        })
    }

    pub(super) fn cut_off(&self, node: &str, is_cut_off: bool) {
        let mut state = self.0.lock().unwrap();
        match is_cut_off {
            true => state.cut_off.insert(node.to_owned()),
            false => state.cut_off.remove(node),
        };
    }

    /// Bodies with this tag, queue after queue.
    pub(super) fn bodies(&self, topic: &str, tag: &str) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let queues = state
            .queues
            .iter()
            .filter(|(queue, _)| queue.topic == topic);
        queues
            .flat_map(|(_, messages)| messages)
            .filter(|message| message.tag.as_deref() == Some(tag))
            .map(|message| String::from_utf8(message.body.to_vec()).unwrap())
            .collect()
    }

    pub(super) fn commits(&self, group: &str) -> usize {
        let state = self.0.lock().unwrap();
        state.committed.keys().filter(|(of, _)| of == group).count()
    }

    fn reach<R>(&self, node: &str, f: impl FnOnce(&mut State) -> R) -> Result<R, Error> {
        let mut state = self.0.lock().unwrap();
        if state.cut_off.contains(node) {
            return Err(Error::Unavailable {
                reason: "cut off".into(),
            });
        }
        Ok(f(&mut state))
    }
}

fn queues(topic: &str) -> Vec<Queue> {
    let queue = |id| Queue {
        topic: topic.to_owned(),
        broker: "broker".to_owned(),
        id,
    };
    vec![queue(0), queue(1)]
}

#[async_trait]
impl Backbone for Link {
    async fn probe(&self) -> Result<(), Error> {
        self.fake.reach(&self.node, |_| ())
    }

    async fn write_queues(&self, topic: &str) -> Result<Vec<Queue>, Error> {
        self.fake.reach(&self.node, |_| queues(topic))
    }

    async fn send(&self, queue: &Queue, batch: &[Outgoing]) -> Result<(), Error> {
        self.fake.reach(&self.node, |state| {
            let stored = state.queues.entry(queue.clone()).or_default();
            for message in batch {
                stored.push(Incoming {
                    queue: queue.clone(),
                    offset: stored.len() as i64,
                    body: message.body.clone(),
                    tag: message.tag.clone(),
                    stored_at_ms: i64::try_from(unix_ms()).unwrap(),
                    ..Incoming::default()
                });
            }
        })
    }

    async fn subscribe(
        &self,
        group: &str,
        subscriptions: Vec<Subscription>,
        start: StartAt,
    ) -> Result<Box<dyn Consumer>, Error> {
        assert_eq!(start, StartAt::Latest);
        let topics: Vec<String> = subscriptions.into_iter().map(|one| one.topic).collect();
        let state = self.fake.0.lock().unwrap();
        let place = |queue: Queue| {
            let end = state.queues.get(&queue).map_or(0, Vec::len) as i64;
            let committed = state.committed.get(&(group.to_owned(), queue.clone()));
            let next = committed.copied().unwrap_or(end);
            (queue, next)
        };
        let all = topics.iter().flat_map(|topic| queues(topic));
        Ok(Box::new(Reader {
            node: self.node.clone(),
            group: group.to_owned(),
            next: all.map(place).collect(),
            topics,
            fake: self.fake.clone(),
        }))
    }

    async fn shutdown(&self) {}
}

#[async_trait]
impl Consumer for Reader {
    async fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<Incoming>, Error> {
        let taken = self.fake.clone().reach(&self.node, |state| {
            let mut taken: Vec<Incoming> = Vec::new();
            for queue in self.topics.iter().flat_map(|topic| queues(topic)) {
                let next = self.next.entry(queue.clone()).or_default();
                let stored = state.queues.get(&queue).map_or(&[][..], Vec::as_slice);
                let new = &stored[usize::try_from(*next).unwrap().min(stored.len())..];
                let new = &new[..new.len().min(max - taken.len())];
                *next += new.len() as i64;
                taken.extend_from_slice(new);
            }
            taken
        })?;
        if taken.is_empty() {
            tokio::time::sleep(timeout.min(Duration::from_millis(5))).await;
        }
        Ok(taken)
    }

    async fn commit(&mut self, offsets: &[(Queue, i64)]) -> Result<(), Error> {
        let group = self.group.clone();
        self.fake.reach(&self.node, |state| {
            for (queue, offset) in offsets {
                state
                    .committed
                    .insert((group.clone(), queue.clone()), *offset);
            }
        })
    }

    async fn lag(&self) -> Option<u64> {
        None
    }

    async fn close(self: Box<Self>) {}
}
