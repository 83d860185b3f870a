//! A RocketMQ made of memory: one queue a topic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rocketmq::{Backbone, Consumer, Error, Incoming, Outgoing, Queue, StartAt, Subscription};

/// What the fake keeps: the messages, the group's offsets, and whether it is to fail.
#[derive(Default)]
pub(super) struct State {
    messages: BTreeMap<Queue, Vec<Incoming>>,
    committed: BTreeMap<Queue, i64>,
    pub(super) is_away: bool,
    pub(super) subscriptions: VecDeque<Vec<Subscription>>,
}

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }

    pub(super) fn produce(&self, topic: &str, body: &str, tag: Option<&str>) {
        self.with(|state| {
            let queue = queue(topic);
            let queued = state.messages.entry(queue.clone()).or_default();
            let offset = queued.len() as i64;
            queued.push(Incoming {
                queue,
                offset,
                message_id: format!("{topic}-{offset}"),
                body: Bytes::copy_from_slice(body.as_bytes()),
                tag: tag.map(str::to_owned),
                keys: Some("k".into()),
                born_at_ms: 1_000 + offset,
                stored_at_ms: 1_000 + offset,
                ..Incoming::default()
            });
        });
    }

    /// A message as it is: its place is given.
    pub(super) fn put(&self, incoming: Incoming) {
        self.with(|state| {
            let queued = state.messages.entry(incoming.queue.clone()).or_default();
            queued.push(incoming);
        });
    }

    /// The newest message is one that the client could not decode.
    pub(super) fn spoil(&self, topic: &str, problem: &str) {
        self.with(|state| {
            let newest = state.messages.get_mut(&queue(topic)).unwrap().last_mut();
            newest.unwrap().problem = Some(problem.to_owned());
        });
    }

    pub(super) fn committed(&self, topic: &str) -> Option<i64> {
        self.with(|state| state.committed.get(&queue(topic)).copied())
    }
}

pub(super) fn queue(topic: &str) -> Queue {
    Queue {
        topic: topic.into(),
        broker: "b".into(),
        id: 0,
    }
}

struct FakeConsumer {
    fake: Fake,
    subscriptions: Vec<Subscription>,
    next: BTreeMap<Queue, i64>,
}

#[async_trait]
impl Backbone for Fake {
    async fn probe(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn write_queues(&self, topic: &str) -> Result<Vec<Queue>, Error> {
        Ok(vec![queue(topic)])
    }
    async fn send(&self, _: &Queue, _: &[Outgoing]) -> Result<(), Error> {
        Ok(())
    }
    async fn subscribe(
        &self,
        _: &str,
        subscriptions: Vec<Subscription>,
        _: StartAt,
    ) -> Result<Box<dyn Consumer>, Error> {
        self.with(|state| {
            state.subscriptions.push_back(subscriptions.clone());
            let next = state.committed.clone();
            Ok(Box::new(FakeConsumer {
                fake: self.clone(),
                subscriptions,
                next,
            }) as Box<dyn Consumer>)
        })
    }
    async fn shutdown(&self) {}
}

#[async_trait]
impl Consumer for FakeConsumer {
    async fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<Incoming>, Error> {
        let taken = self.fake.with(|state| {
            if state.is_away {
                return Err(Error::Unavailable {
                    reason: "switched off".into(),
                });
            }
            let mut taken = Vec::new();
            for (queue, messages) in &state.messages {
                let next = self.next.entry(queue.clone()).or_insert(0);
                if self
                    .subscriptions
                    .iter()
                    .any(|subscription| subscription.topic == queue.topic)
                {
                    let from = usize::try_from(*next).unwrap().min(messages.len());
                    let more: Vec<_> = messages[from..].iter().take(max - taken.len()).collect();
                    *next += more.len() as i64;
                    taken.extend(more.into_iter().cloned());
                }
            }
            Ok(taken)
        })?;
        if taken.is_empty() {
            tokio::time::sleep(timeout.min(Duration::from_millis(5))).await;
        }
        Ok(taken)
    }
    async fn commit(&mut self, offsets: &[(Queue, i64)]) -> Result<(), Error> {
        self.fake
            .with(|state| state.committed.extend(offsets.iter().cloned()));
        Ok(())
    }
    async fn lag(&self) -> Option<u64> {
        Some(7)
    }
    async fn close(self: Box<Self>) {}
}
