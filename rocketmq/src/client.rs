//! The backbone over the remoting protocol.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rocketmq_protocol::RemotingCommand;
use rocketmq_protocol::code::request_code::RequestCode;
use rocketmq_protocol::protocol::header::message_operation_header::send_message_request_header_v2::SendMessageRequestHeaderV2;

use crate::consumer::{self, LitePull};
use crate::link::{Links, Purpose, lock};
use crate::route::{DEFAULT_QUEUES, DEFAULT_TOPIC, NameServers, Route};
use crate::{
    Backbone, Consumer, Error, Outgoing, Queue, Settings, StartAt, Subscription, answer, encode,
    probe,
};

/// Every broker registers this topic, also one that creates none by itself: its route lists the brokers alive.
pub(crate) const TOPIC_OF_EVERY_BROKER: &str = "SELF_TEST_TOPIC";
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// A RocketMQ cluster, reached over the client library.
pub(crate) struct RocketMq {
    cluster: Arc<Cluster>,
}

/// What the producing and the consuming side share.
pub(crate) struct Cluster {
    pub(crate) links: Links,
    pub(crate) instance: String,
    pub(crate) names: NameServers,
    pub(crate) producer_group: String,
    limit: Duration,
    known: Mutex<HashMap<String, Known>>,
    /// Addresses of masters that have left a batch without an answer.
    silent: Mutex<HashSet<String>>,
}

/// What was last seen of a topic that can be written.
struct Known {
    masters: HashMap<String, String>,
    /// A send failed since: the brokers may have changed roles.
    stale: bool,
    /// The topic is there, not only about to be created.
    real: bool,
}

impl RocketMq {
    pub(crate) fn new(settings: Settings) -> Result<RocketMq, Error> {
        let names = NameServers::new(&settings.namesrv, settings.send_timeout);
        if names.is_empty() {
            return Err(Error::Refused {
                code: 0,
                reason: "no name server is configured".to_owned(),
            });
        }
        let cluster = Cluster {
            links: Links::new(&settings.instance)?,
            instance: settings.instance,
            names,
            producer_group: settings.producer_group,
            limit: settings.send_timeout,
            known: Mutex::default(),
            silent: Mutex::default(),
        };
        Ok(RocketMq {
            cluster: Arc::new(cluster),
        })
    }
}

impl Cluster {
    /// The topic's route. [`Error::TopicMissing`] only when the cluster really has no such topic.
    ///
    /// A name server also says "no such topic" while the brokers that hold it are down, or have not registered
    /// again after its own restart. So we believe it only when at least one broker is registered, and with it all
    /// those that held the topic when we last saw it.
    pub(crate) async fn route(&self, topic: &str) -> Result<Route, Error> {
        match self.names.route(&self.links, topic).await {
            Err(Error::TopicMissing { .. }) => {}
            other => return other,
        }
        let alive = match self.names.route(&self.links, TOPIC_OF_EVERY_BROKER).await {
            Ok(route) => route.masters,
            Err(Error::TopicMissing { .. }) => HashMap::new(),
            Err(error) => return Err(error),
        };
        if alive.is_empty() {
            return Err(Error::Unavailable {
                reason: "no broker is registered at the name server".to_owned(),
            });
        }
        // The first brokers may have registered between the two questions, the topic with them. To go on as if it were
        // missing would mean sending to the queues of a topic yet to be created, which this one may not have.
        match self.names.route(&self.links, topic).await {
            Err(Error::TopicMissing { .. }) => {}
            other => return other,
        }
        let known = lock(&self.known);
        if let Some(known) = known.get(topic).filter(|known| known.real)
            && let Some(absent) = known.masters.keys().find(|name| !alive.contains_key(*name))
        {
            return Err(Error::Unavailable {
                reason: format!("broker {absent}, which holds {topic}, is not registered"),
            });
        }
        Err(Error::TopicMissing {
            topic: topic.to_owned(),
        })
    }

    async fn writable(&self, topic: &str) -> Result<Route, Error> {
        let (route, real) = match self.route(topic).await {
            Ok(route) => (route, true),
            Err(Error::TopicMissing { .. }) => {
                match self.names.route(&self.links, DEFAULT_TOPIC).await {
                    Ok(route) => (route.for_new_topic(topic), false),
                    Err(Error::TopicMissing { .. }) => {
                        return Err(Error::TopicMissing {
                            topic: topic.to_owned(),
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        if route.write_queues.is_empty() {
            return Err(Error::Unavailable {
                reason: format!("no broker takes messages for {topic} now"),
            });
        }
        let mut masters = route.masters.clone();
        masters.retain(|name, _| route.write_queues.iter().any(|queue| queue.broker == *name));
        lock(&self.known).insert(
            topic.to_owned(),
            Known {
                masters,
                stale: false,
                real,
            },
        );
        Ok(route)
    }

    /// The address of the queue's broker. A known one is also used when it is stale and nothing better is found: the
    /// name server may be away alone.
    async fn master_of(&self, queue: &Queue) -> Result<String, Error> {
        let known = {
            let known = lock(&self.known);
            known.get(&queue.topic).and_then(|known| {
                known
                    .masters
                    .get(&queue.broker)
                    .map(|address| (address.clone(), known.stale))
            })
        };
        if let Some((address, false)) = known {
            return Ok(address);
        }
        match (self.writable(&queue.topic).await, known) {
            (Ok(route), _) => {
                route
                    .masters
                    .get(&queue.broker)
                    .cloned()
                    .ok_or_else(|| Error::Unavailable {
                        reason: format!(
                            "broker {} is not in the route of {}",
                            queue.broker, queue.topic
                        ),
                    })
            }
            (Err(Error::Unavailable { .. } | Error::Timeout), Some((address, _))) => Ok(address),
            (Err(error), _) => Err(error),
        }
    }

    /// One that has left a batch without an answer is asked first whether it answers at all: if it only hangs, it stores, when it goes on,
    /// whatever has been sent to it meanwhile.
    async fn send_to(
        &self,
        address: &str,
        request: RemotingCommand,
    ) -> Result<RemotingCommand, Error> {
        if lock(&self.silent).contains(address) {
            // It may take as long as a batch: one that is slow with everything is still sent to.
            probe::master(self, address, self.limit).await?;
            lock(&self.silent).remove(address);
        }
        let outcome = self
            .links
            .call(Purpose::Requests, address, request, self.limit)
            .await;
        if outcome.is_err() {
            lock(&self.silent).insert(address.to_owned());
        }
        outcome
    }

    fn mark_stale(&self, topic: &str) {
        if let Some(known) = lock(&self.known).get_mut(topic) {
            known.stale = true;
        }
    }

    async fn send(&self, queue: &Queue, batch: &[Outgoing]) -> Result<(), Error> {
        for message in batch {
            encode::check(message)?;
        }
        encode::check_batch(batch)?;
        let Some(request) = self.send_request(queue, batch) else {
            return Ok(());
        };
        let address = self.master_of(queue).await?;
        let outcome = self.send_to(&address, request).await;
        let outcome = outcome.and_then(|response| answer::check(&response, &queue.topic));
        if matches!(
            outcome,
            Err(Error::Unavailable { .. } | Error::Timeout | Error::TopicMissing { .. })
        ) {
            self.mark_stale(&queue.topic);
        }
        outcome
    }

    fn send_request(&self, queue: &Queue, batch: &[Outgoing]) -> Option<RemotingCommand> {
        let (code, body, properties) = match batch {
            [] => return None,
            [single] => (
                RequestCode::SendMessageV2,
                single.body.clone(),
                encode::properties(single),
            ),
            several => (
                RequestCode::SendBatchMessage,
                encode::batch(several),
                String::new(),
            ),
        };
        let header = SendMessageRequestHeaderV2 {
            a: self.producer_group.as_str().into(),
            b: queue.topic.as_str().into(),
            c: DEFAULT_TOPIC.into(),
            d: DEFAULT_QUEUES.cast_signed(),
            e: queue.id,
            f: 0,
            g: unix_ms(),
            h: 0,
            i: Some(properties.into()),
            j: Some(0),
            k: Some(false),
            l: None,
            m: Some(batch.len() > 1),
            n: Some(queue.broker.as_str().into()),
            topic_request_header: None,
        };
        Some(RemotingCommand::create_request_command(code, header).set_body(body))
    }
}

#[async_trait]
impl Backbone for RocketMq {
    async fn probe(&self) -> Result<(), Error> {
        probe::run(&self.cluster).await
    }

    async fn write_queues(&self, topic: &str) -> Result<Vec<Queue>, Error> {
        Ok(self.cluster.writable(topic).await?.write_queues)
    }

    async fn send(&self, queue: &Queue, batch: &[Outgoing]) -> Result<(), Error> {
        self.cluster.send(queue, batch).await
    }

    async fn subscribe(
        &self,
        group: &str,
        subscriptions: Vec<Subscription>,
        start: StartAt,
    ) -> Result<Box<dyn Consumer>, Error> {
        let interests = consumer::merge(subscriptions);
        Ok(Box::new(LitePull::start(
            Arc::clone(&self.cluster),
            group,
            interests,
            start,
        )))
    }

    async fn shutdown(&self) {
        self.cluster.links.shutdown(SHUTDOWN_LIMIT).await;
    }
}

pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
