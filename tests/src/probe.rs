//! RocketMQ as its own Java client sees it: `tests/java/Probe.java`, one process for all tests.

mod process;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::environment::shared_namesrv;
use crate::wait::{DEADLINE, eventually};
use process::{ask, try_ask};

const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A message as it lies in RocketMQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// `broker/queue id`.
    pub queue: String,
    /// Offset in that queue.
    pub offset: i64,
    /// The producer's id (`UNIQ_KEY`), else the offset id.
    pub msg_id: String,
    /// Tag.
    pub tag: Option<String>,
    /// Keys.
    pub keys: Option<String>,
    /// All properties, RocketMQ's own too.
    pub properties: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
    /// Unix ms at which the producer made it.
    pub born_at_ms: i64,
    /// Unix ms at which the broker stored it.
    pub stored_at_ms: i64,
}

impl Stored {
    /// A property, where it is set.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }
}

/// A message to be produced by RocketMQ's own producer.
#[derive(Debug, Clone, Default)]
pub struct Produced {
    body: Vec<u8>,
    tag: Option<String>,
    keys: Option<String>,
    properties: BTreeMap<String, String>,
    queue: Option<i32>,
    timeout_ms: Option<u32>,
    compression: Option<String>,
}

impl Produced {
    /// A message with this body, which may not be empty: RocketMQ refuses that.
    pub fn new(body: impl Into<Vec<u8>>) -> Produced {
        Produced {
            body: body.into(),
            ..Produced::default()
        }
    }

    /// Sets the tag.
    pub fn tag(mut self, tag: &str) -> Produced {
        self.tag = Some(tag.to_owned());
        self
    }

    /// Sets the keys.
    pub fn keys(mut self, keys: &str) -> Produced {
        self.keys = Some(keys.to_owned());
        self
    }

    /// Sets a user property.
    pub fn property(mut self, name: &str, value: &str) -> Produced {
        self.properties.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sends it to this queue rather than to any.
    pub fn queue(mut self, queue: i32) -> Produced {
        self.queue = Some(queue);
        self
    }

    /// Compresses it in this way, if it has 4 KiB and more: `LZ4`, `ZSTD` or `ZLIB`, which is also what happens without.
    pub fn compressed(mut self, way: &str) -> Produced {
        self.compression = Some(way.to_owned());
        self
    }

    fn json(&self) -> Value {
        json!({ "body": STANDARD.encode(&self.body), "tag": self.tag, "keys": self.keys,
                "properties": self.properties, "queue": self.queue, "timeout_ms": self.timeout_ms,
                "compression": self.compression })
    }
}

/// A topic of a RocketMQ.
#[derive(Debug, Clone)]
pub struct Topic {
    namesrv: String,
    name: String,
}

impl Topic {
    /// A new topic of the RocketMQ that all tests share; its name is `label` and something that makes it unique.
    pub fn shared(label: &str, queues: u32) -> Topic {
        Topic::create(&shared_namesrv(), &unique(label), queues)
    }

    /// Creates a topic. A RocketMQ that is slow to answer its admin client is asked again.
    ///
    /// # Panics
    /// When it has not been created within twice [`DEADLINE`].
    pub fn create(namesrv: &str, name: &str, queues: u32) -> Topic {
        let question =
            json!({ "op": "create-topic", "namesrv": namesrv, "topic": name, "queues": queues });
        let start = Instant::now();
        while let Err(problem) = try_ask(question.clone()) {
            assert!(
                start.elapsed() < DEADLINE * 2,
                "the Java probe, create-topic {name}: {problem}"
            );
            std::thread::sleep(RETRY_PAUSE);
        }
        Topic::named(namesrv, name)
    }

    /// A topic that is there already, or may come to be.
    pub fn named(namesrv: &str, name: &str) -> Topic {
        Topic {
            namesrv: namesrv.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes it.
    pub fn delete(&self) {
        ask(json!({ "op": "delete-topic", "namesrv": self.namesrv, "topic": self.name }));
    }

    /// Produces messages with RocketMQ's own producer, one after the other, and returns when all are stored.
    pub fn produce(&self, messages: &[Produced]) {
        let messages: Vec<Value> = messages.iter().map(Produced::json).collect();
        ask(
            json!({ "op": "produce", "namesrv": self.namesrv, "topic": self.name, "messages": messages }),
        );
    }

    /// Produces one message to the queue that it names, in one attempt that may fail: true once RocketMQ has stored it.
    ///
    /// False says nothing: it may have been stored all the same.
    pub fn try_produce(&self, mut message: Produced, limit: Duration) -> bool {
        // Where a queue is named, RocketMQ's producer does not try again by itself.
        message.queue = Some(message.queue.unwrap_or(0));
        message.timeout_ms = u32::try_from(limit.as_millis()).ok();
        let messages = [message.json()];
        try_ask(json!({ "op": "produce", "namesrv": self.namesrv, "topic": self.name, "messages": messages }))
            .is_ok()
    }

    /// What a consumer group has committed and what there is, each summed over the queues; `None` while the group is unknown.
    pub fn committed(&self, group: &str) -> Option<(i64, i64)> {
        let answer = try_ask(json!({ "op": "committed", "namesrv": self.namesrv, "topic": self.name, "group": group })).ok()?;
        Some((answer["committed"].as_i64()?, answer["there"].as_i64()?))
    }

    /// Reads it from the beginning.
    pub fn reader(&self) -> Reader {
        Reader {
            topic: self.clone(),
            offsets: Value::Object(Map::new()),
            messages: Vec::new(),
            last_error: None,
        }
    }
}

/// The brokers of one name, as a controller has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// `HOST:PORT` of the master that the name server tells clients.
    pub master: Option<String>,
    /// How many have all that the master has, the master too.
    pub in_sync: usize,
}

/// What a controller says of the brokers of one name; `None` while it doesn't answer.
pub fn replicas(namesrv: &str, controller: &str, broker_name: &str) -> Option<Replicas> {
    let answer = try_ask(json!({ "op": "replicas", "namesrv": namesrv, "controller": controller, "broker": broker_name })).ok()?;
    Some(Replicas {
        master: answer["master"].as_str().map(str::to_owned),
        in_sync: usize::try_from(answer["in_sync"].as_u64()?).ok()?,
    })
}

/// Ends the Java clients of a RocketMQ that goes, which would look for it for ever.
pub fn forget(namesrv: &str) {
    // Nothing depends on it.
    let _ = try_ask(json!({ "op": "forget", "namesrv": namesrv }));
}

/// A name that no other test and no other run uses.
pub fn unique(label: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() % 1_000_000);
    format!(
        "E2E_{label}_{started}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Reads a topic, and keeps everything that it has read.
#[derive(Debug)]
pub struct Reader {
    topic: Topic,
    offsets: Value,
    /// Everything so far. In order within each queue.
    pub messages: Vec<Stored>,
    /// Why the last [`Reader::poll`] could not read, if it could not.
    pub last_error: Option<String>,
}

impl Reader {
    /// Reads what has come since the last call; returns how many.
    pub fn poll(&mut self) -> usize {
        let question = json!({ "op": "read", "namesrv": self.topic.namesrv, "topic": self.topic.name, "offsets": self.offsets });
        // RocketMQ may be away for a while in the tests that take it away: whoever waits has a deadline.
        let mut answer = match try_ask(question) {
            Ok(answer) => answer,
            Err(problem) => {
                self.last_error = Some(problem);
                return 0;
            }
        };
        self.last_error = None;
        let offsets = answer["offsets"].take();
        if offsets
            .as_object()
            .is_some_and(|offsets| !offsets.is_empty())
        {
            self.offsets = offsets;
        }
        let new = answer["messages"].as_array().map_or(0, Vec::len);
        for message in answer["messages"].as_array().into_iter().flatten() {
            self.messages.push(stored(message));
        }
        new
    }

    /// Waits until at least this many have come since the beginning, and returns them all.
    #[track_caller]
    pub fn wait_for(&mut self, count: usize) -> &[Stored] {
        let what = format!("{count} messages in RocketMQ topic {}", self.topic.name);
        eventually(&what, || {
            self.poll();
            (self.messages.len() >= count).then_some(())
        });
        &self.messages
    }

    /// Waits for a message with this body, and returns it.
    #[track_caller]
    pub fn wait_for_body(&mut self, body: &[u8]) -> Stored {
        let what = format!(
            "{:?} in RocketMQ topic {}",
            String::from_utf8_lossy(&body[..body.len().min(80)]),
            self.topic.name
        );
        eventually(&what, || {
            self.poll();
            self.messages
                .iter()
                .find(|message| message.body == body)
                .cloned()
        })
    }

    /// The bodies as text, in the order read.
    pub fn texts(&self) -> Vec<String> {
        self.messages
            .iter()
            .map(|message| String::from_utf8_lossy(&message.body).into_owned())
            .collect()
    }
}

fn stored(message: &Value) -> Stored {
    let text = |name: &str| message[name].as_str().map(str::to_owned);
    Stored {
        queue: text("queue").unwrap_or_default(),
        offset: message["offset"].as_i64().unwrap_or(-1),
        msg_id: text("msg_id").unwrap_or_default(),
        tag: text("tag"),
        keys: text("keys"),
        properties: message["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        body: STANDARD
            .decode(message["body"].as_str().unwrap_or_default())
            .expect("the probe's base64"),
        born_at_ms: message["born_at_ms"].as_i64().unwrap_or(0),
        stored_at_ms: message["stored_at_ms"].as_i64().unwrap_or(0),
    }
}
