//! A stand-in for RocketMQ.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rocketmq::{Backbone, Consumer, Error, Outgoing, Queue, StartAt, Subscription};

use super::*;

pub(super) type Verdict = dyn Fn(&State, &Queue, &[Outgoing]) -> Result<(), Error> + Send + Sync;

/// RocketMQ as far as the uplink sees it.
pub(super) struct Fake {
    pub(super) state: Mutex<State>,
    verdict: Box<Verdict>,
    in_flight: Mutex<BTreeMap<Queue, usize>>,
    /// The process may die while it sends: then the next one's batch meets the old one.
    pub(super) may_die: std::sync::atomic::AtomicBool,
}

/// A batch on its way, also when its sender gives it up.
struct UnderWay<'a>(&'a Fake, &'a Queue);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.in_flight.lock().unwrap().get_mut(self.1).unwrap() -= 1;
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queues: i32,
    pub(super) missing: bool,
    pub(super) missing_topic: Option<String>,
    /// Bodies in the order in which they were stored, per queue.
    pub(super) stored: BTreeMap<Queue, Vec<String>>,
    /// The same with everything, and with those whose sender was told something else than success.
    pub(super) everything: BTreeMap<Queue, Vec<Outgoing>>,
    pub(super) sends: usize,
    pub(super) largest: usize,
}

impl Fake {
    pub(super) fn new(
        verdict: impl Fn(&State, &Queue, &[Outgoing]) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Arc<Fake> {
        let state = State {
            queues: 4,
            ..State::default()
        };
        Arc::new(Fake {
            state: Mutex::new(state),
            verdict: Box::new(verdict),
            in_flight: Mutex::default(),
            may_die: false.into(),
        })
    }

    pub(super) fn stored(&self) -> usize {
        self.state
            .lock()
            .unwrap()
            .stored
            .values()
            .map(Vec::len)
            .sum()
    }

    /// What was stored of one client, in order of storing. Over all queues only if it kept to one.
    pub(super) fn of_client(&self, client: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let prefix = format!("{client}:");
        state
            .stored
            .values()
            .flatten()
            .filter(|body| body.starts_with(&prefix))
            .cloned()
            .collect()
    }
}

#[async_trait]
impl Backbone for Fake {
    async fn probe(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn write_queues(&self, topic: &str) -> Result<Vec<Queue>, Error> {
        let state = self.state.lock().unwrap();
        if state.missing || state.missing_topic.as_deref() == Some(topic) {
            return Err(Error::TopicMissing {
                topic: topic.to_owned(),
            });
        }
        Ok((0..state.queues)
            .map(|id| Queue {
                topic: topic.to_owned(),
                broker: "a".to_owned(),
                id,
            })
            .collect())
    }

    async fn send(&self, queue: &Queue, batch: &[Outgoing]) -> Result<(), Error> {
        {
            let mut in_flight = self.in_flight.lock().unwrap();
            let count = in_flight.entry(queue.clone()).or_default();
            *count += 1;
            assert!(
                *count == 1 || self.may_die.load(Ordering::Relaxed),
                "two batches in flight for {queue:?}"
            );
        }
        let _under_way = UnderWay(self, queue);
        tokio::task::yield_now().await;
        let mut state = self.state.lock().unwrap();
        state.sends += 1;
        state.largest = state.largest.max(batch.len());
        let outcome = (self.verdict)(&state, queue, batch);
        if matches!(
            outcome,
            Ok(()) | Err(Error::Timeout | Error::Reserved { .. })
        ) {
            let everything = state.everything.entry(queue.clone()).or_default();
            everything.extend_from_slice(batch);
        }
        if outcome.is_ok() {
            let bodies = batch
                .iter()
                .map(|message| String::from_utf8(message.body.to_vec()).unwrap());
            state
                .stored
                .entry(queue.clone())
                .or_default()
                .extend(bodies);
        }
        outcome
    }

    async fn subscribe(
        &self,
        _: &str,
        _: Vec<Subscription>,
        _: StartAt,
    ) -> Result<Box<dyn Consumer>, Error> {
        Err(Error::Timeout)
    }

    async fn shutdown(&self) {}
}
