//! Which brokers hold a topic: asked of the name servers, in turn until one answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rocketmq_protocol::RemotingCommand;
use rocketmq_protocol::code::request_code::RequestCode;
use rocketmq_protocol::protocol::header::client_request_header::GetRouteInfoRequestHeader;
use rocketmq_protocol::protocol::route::topic_route_data::TopicRouteData;

use crate::link::{Links, Purpose};
use crate::{Error, Queue, answer};

/// The topic whose route says which brokers create topics by themselves.
pub(crate) const DEFAULT_TOPIC: &str = "TBW102";
/// How many queues such a topic gets per broker, as RocketMQ's own producers ask for.
pub(crate) const DEFAULT_QUEUES: u32 = 4;

const READ: u32 = 4;
const WRITE: u32 = 2;

/// Where a topic's queues are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// Broker name → address of its master.
    pub(crate) masters: HashMap<String, String>,
    /// Broker name → address to read from: the master, or a slave while there is none.
    pub(crate) readers: HashMap<String, String>,
    /// Sorted.
    pub(crate) write_queues: Vec<Queue>,
    /// Sorted.
    pub(crate) read_queues: Vec<Queue>,
}

pub(crate) struct NameServers {
    addresses: Vec<String>,
    /// The one that answered last.
    chosen: AtomicUsize,
    limit: Duration,
}

impl NameServers {
    pub(crate) fn new(list: &str, limit: Duration) -> NameServers {
        let addresses = list
            .split([';', ','])
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned);
        NameServers {
            addresses: addresses.collect(),
            chosen: AtomicUsize::new(0),
            limit,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The topic's route, or [`Error::TopicMissing`] when a name server says that there is none.
    pub(crate) async fn route(&self, links: &Links, topic: &str) -> Result<Route, Error> {
        let response = self.ask(links, || request(topic)).await?;
        Route::read(topic, &response)
    }

    /// The same from one of them alone.
    pub(crate) async fn route_from(
        &self,
        links: &Links,
        address: &str,
        topic: &str,
        limit: Duration,
    ) -> Result<Route, Error> {
        let asked = links.call(Purpose::Requests, address, request(topic), limit);
        Route::read(topic, &asked.await.map_err(of_name_server)?)
    }

    /// Asks for something that any name server answers, whatever it says.
    async fn ask(
        &self,
        links: &Links,
        request: impl Fn() -> RemotingCommand,
    ) -> Result<RemotingCommand, Error> {
        let first = self.chosen.load(Ordering::Relaxed);
        let mut failure = Error::Unavailable {
            reason: "no name server is configured".to_owned(),
        };
        for step in 0..self.addresses.len() {
            let index = (first + step) % self.addresses.len();
            match links
                .call(
                    Purpose::Requests,
                    &self.addresses[index],
                    request(),
                    self.limit,
                )
                .await
            {
                Ok(response) => {
                    self.chosen.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => failure = error,
            }
        }
        Err(of_name_server(failure))
    }
}

fn request(topic: &str) -> RemotingCommand {
    let header = GetRouteInfoRequestHeader::new(topic, None);
    RemotingCommand::create_request_command(RequestCode::GetRouteinfoByTopic, header)
}

fn of_name_server(failure: Error) -> Error {
    match failure {
        Error::Unavailable { reason } => Error::Unavailable {
            reason: format!("name server {reason}"),
        },
        other => other,
    }
}

fn malformed(topic: &str, reason: &str) -> Error {
    Error::Unavailable {
        reason: format!("the name server's route of {topic} cannot be read: {reason}"),
    }
}

impl Route {
    fn read(topic: &str, response: &RemotingCommand) -> Result<Route, Error> {
        answer::check(response, topic)?;
        let body = response
            .body()
            .ok_or_else(|| malformed(topic, "it is empty"))?;
        let data =
            TopicRouteData::decode(body).map_err(|error| malformed(topic, &error.to_string()))?;
        Ok(Route::new(topic, &data))
    }

    fn new(topic: &str, data: &TopicRouteData) -> Route {
        let mut route = Route::default();
        for broker in &data.broker_datas {
            let name = broker.broker_name().to_string();
            if let Some(master) = broker.broker_addrs().get(&0) {
                route.masters.insert(name.clone(), master.to_string());
            }
            let lowest = broker.broker_addrs().iter().min_by_key(|(id, _)| **id);
            if let Some((_, reader)) = lowest {
                route.readers.insert(name, reader.to_string());
            }
        }
        for queues in &data.queue_datas {
            let broker = queues.broker_name().to_string();
            let expand = |count: u32| {
                let broker = broker.clone();
                (0..i32::try_from(count).unwrap_or(0)).map(move |id| Queue {
                    topic: topic.to_owned(),
                    broker: broker.clone(),
                    id,
                })
            };
            if queues.perm() & WRITE != 0 && route.masters.contains_key(&broker) {
                route.write_queues.extend(expand(queues.write_queue_nums()));
            }
            if queues.perm() & READ != 0 && route.readers.contains_key(&broker) {
                route.read_queues.extend(expand(queues.read_queue_nums()));
            }
        }
        route.write_queues.sort();
        route.read_queues.sort();
        route
    }

    /// The route that `topic` will have once brokers have created it, from the route of [`DEFAULT_TOPIC`].
    pub(crate) fn for_new_topic(self, topic: &str) -> Route {
        let queues = self
            .write_queues
            .into_iter()
            .filter(|queue| queue.id < DEFAULT_QUEUES.cast_signed());
        Route {
            write_queues: queues
                .map(|queue| Queue {
                    topic: topic.to_owned(),
                    ..queue
                })
                .collect(),
            read_queues: Vec::new(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Route {
        Route::new(
            "T",
            &TopicRouteData::decode(text.as_bytes()).expect("a route"),
        )
    }

    #[test]
    fn a_broker_without_master_is_read_but_not_written() {
        // As RocketMQ 5.5.0 writes it: the keys of brokerAddrs are bare numbers.
        let route = decode(
            r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"a","cluster":"C","enableActingMaster":false},
               {"brokerAddrs":{1:"10.0.0.3:10911"},"brokerName":"b","cluster":"C","enableActingMaster":false}],
               "filterServerTable":{},
               "queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":1,"topicSysFlag":0,"writeQueueNums":1},
               {"brokerName":"a","perm":6,"readQueueNums":3,"topicSysFlag":0,"writeQueueNums":2}]}"#,
        );
        let queue = |broker: &str, id| Queue {
            topic: "T".to_owned(),
            broker: broker.to_owned(),
            id,
        };
        assert_eq!(route.write_queues, [queue("a", 0), queue("a", 1)]);
        assert_eq!(
            route.read_queues,
            [queue("a", 0), queue("a", 1), queue("a", 2), queue("b", 0)]
        );
        assert_eq!(route.readers["b"], "10.0.0.3:10911");
        assert_eq!(route.masters["a"], "10.0.0.1:10911");
    }

    #[test]
    fn a_new_topic_gets_as_many_queues_as_rocketmqs_own_producer_asks_for() {
        let route = decode(
            r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911"},"brokerName":"a","cluster":"C","enableActingMaster":false}],"filterServerTable":{},
               "queueDatas":[{"brokerName":"a","perm":7,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#,
        );
        let new = route.for_new_topic("NEW");
        assert_eq!(new.write_queues.len(), 4);
        assert!(new.write_queues.iter().all(|queue| queue.topic == "NEW"));
    }
}
