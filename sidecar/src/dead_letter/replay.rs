//! Letters that are tried again, by the running sidecar: it alone has the connection to RocketMQ and the downlink log.
//!
//! A letter goes from the files when RocketMQ has stored it, or when the downlink log has it; not before. So one that is replayed
//! while the sidecar is killed may arrive twice.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use protocol::config::Config;
use protocol::message::{Identity, Message};
use protocol::rules::{RuleTable, UplinkRule};
use protocol::trie::TopicTrie;
use rocketmq::{Backbone, Error, Outgoing};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Content, DeadLetters, Letter, find_some, remove};
use crate::downlink::{Again, AgainOutcome, Replays};
use crate::mapping::uplink::Values;
use crate::mapping::{self, names};

/// So many letters at most in one request.
pub(crate) const IDS_MAX: usize = 256;
/// How long a request may take, but for the letters that are on their way then: the downlink thread may wait for RocketMQ meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many letters, and about so many bytes of them, are in memory at once.
const PART_LETTERS_MAX: usize = 16;
const PART_BYTES_MAX: usize = 8 << 20;

/// Which letters.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Their ids.
    pub(crate) ids: Vec<String>,
}

/// What became of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Of each letter that was tried.
    pub(crate) results: Vec<Outcome>,
    /// Why the others were not.
    pub(crate) stopped: Option<String>,
}

/// What became of a letter.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The letter.
    pub(crate) id: String,
    /// Why it is still there; nothing when it was delivered.
    pub(crate) error: Option<String>,
}

/// Why a letter was not delivered.
enum Failure {
    /// This one can't be.
    This(String),
    /// None can be now.
    All(String),
}

/// Tries letters again.
pub(crate) struct Replayer {
    dead: DeadLetters,
    backbone: Arc<dyn Backbone>,
    downlink: Replays,
    config: RwLock<Arc<Config>>,
    /// One request at a time: two of them must not send the same letter.
    turn: tokio::sync::Mutex<()>,
}

impl Replayer {
    pub(crate) fn new(
        config: Arc<Config>,
        dead: DeadLetters,
        backbone: Arc<dyn Backbone>,
        downlink: Replays,
    ) -> Replayer {
        Replayer {
            dead,
            backbone,
            downlink,
            config: RwLock::new(config),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The letters it works on.
    pub(crate) fn letters(&self) -> &DeadLetters {
        &self.dead
    }

    /// The rules were replaced.
    pub(crate) fn reload(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Tries these letters, and takes those that were delivered out of the files. Those for which there is no time are left out of
    /// the answer.
    ///
    /// # Errors
    /// When the files can't be read.
    pub(crate) async fn replay(self: &Arc<Self>, ids: Vec<String>) -> io::Result<Answer> {
        // In a task of its own: when the connection of who asked breaks, what was delivered is taken out all the same.
        let this = Arc::clone(self);
        let done = tokio::spawn(async move { this.work(ids).await }).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    async fn work(&self, ids: Vec<String>) -> io::Result<Answer> {
        let _turn = self.turn.lock().await;
        let deadline = Instant::now() + PATIENCE;
        let mut answer = Answer::default();
        let mut rest = ids;
        while !rest.is_empty() && Instant::now() < deadline {
            let (dir, wanted) = (self.dead.dir().to_owned(), rest.clone());
            let find = move || find_some(&dir, &wanted, PART_LETTERS_MAX, PART_BYTES_MAX);
            let letters = blocking(find).await?;
            if letters.is_empty() {
                for id in &rest {
                    answer.fail(id, "there is no such letter".to_owned());
                }
                break;
            }
            rest.retain(|id| letters.iter().all(|letter| letter.id != *id));
            self.work_on(letters, deadline, &mut answer).await;
        }
        Ok(answer)
    }

    /// Tries a part of them, and takes it out before the next: whatever happens, no more than a part is delivered once more.
    async fn work_on(&self, letters: Vec<Letter>, deadline: Instant, answer: &mut Answer) {
        // Those that go down are answered in the thread's own time, all together.
        let mut waiting = Vec::new();
        let mut delivered = Vec::new();
        for letter in letters {
            if answer.stopped.is_some() && letter.direction == super::Direction::Uplink {
                continue;
            }
            let outcome = match letter.content() {
                Ok(Content::NotInjected(frame)) => {
                    waiting.push((letter.id, self.downlink.submit(Again::Frame(frame))));
                    continue;
                }
                Ok(Content::Unmappable(incoming)) => {
                    let again = Again::Message(incoming, letter.rule);
                    waiting.push((letter.id, self.downlink.submit(again)));
                    continue;
                }
                Ok(Content::Refused(topic, message)) => {
                    let client = letter.client_id.as_deref();
                    self.send(&letter.id, client, &topic, message).await
                }
                Ok(Content::Unmapped(frame)) => self.map_and_send(&letter, &frame).await,
                Err(error) => Err(Failure::This(error)),
            };
            match outcome {
                Ok(()) => {
                    self.dead.count_replayed(super::Direction::Uplink);
                    delivered.push(letter.id);
                }
                Err(Failure::This(error)) => answer.fail(&letter.id, error),
                Err(Failure::All(error)) => {
                    answer.fail(&letter.id, error.clone());
                    answer.stopped = Some(error);
                }
            }
        }
        for (id, outcome) in waiting {
            match answered(outcome, deadline).await {
                Ok(()) => {
                    self.dead.count_replayed(super::Direction::Downlink);
                    delivered.push(id);
                }
                Err(error) => answer.fail(&id, error),
            }
        }
        self.take_out(delivered, answer).await;
    }

    async fn take_out(&self, delivered: Vec<String>, answer: &mut Answer) {
        if delivered.is_empty() {
            return;
        }
        let dir = self.dead.dir().to_owned();
        let ids = delivered.clone();
        let removed = blocking(move || remove(&dir, &ids)).await;
        for id in delivered {
            let error = removed.as_ref().err().map(|error| {
                format!("it was delivered, but can't be taken out of the dead letters: {error}")
            });
            answer.results.push(Outcome { id, error });
        }
    }

    async fn send(
        &self,
        id: &str,
        client: Option<&str>,
        topic: &str,
        mut message: Outgoing,
    ) -> Result<(), Failure> {
        // Replayed before, and refused again.
        message.properties.remove(names::REPLAYED);
        message.properties.push(names::REPLAYED, id);
        let queues = self.backbone.write_queues(topic).await.map_err(failure)?;
        // The queue of the default ordering key: a device's letters stay in order among themselves.
        let key = client.or(message.keys.as_deref()).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = hasher.finish() % (queues.len() as u64).max(1);
        let Some(queue) = queues.get(usize::try_from(index).unwrap_or(0)) else {
            return Err(Failure::This(format!("{topic} has no queue to write to")));
        };
        match self.backbone.send(queue, &[message]).await {
            Err(Error::Reserved { reason }) => {
                log::warn!("dead letter {id}: RocketMQ has stored it, but {reason}");
                Ok(())
            }
            sent => sent.map_err(failure),
        }
    }

    async fn map_and_send(&self, letter: &Letter, frame: &[u8]) -> Result<(), Failure> {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let mapped = map(letter, frame, &config).map_err(Failure::This)?;
        for (topic, message) in mapped {
            let client = letter.client_id.as_deref();
            self.send(&letter.id, client, &topic, message).await?;
        }
        Ok(())
    }
}

impl Answer {
    fn fail(&mut self, id: &str, error: String) {
        self.results.push(Outcome {
            id: id.to_owned(),
            error: Some(error),
        });
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Refused { .. } | Error::TopicMissing { .. } => Failure::This(error.to_string()),
        _ => Failure::All(error.to_string()),
    }
}

/// What the downlink thread says by then. What it has not begun with by then, it leaves.
async fn answered(mut outcome: oneshot::Receiver<AgainOutcome>, deadline: Instant) -> AgainOutcome {
    if let Ok(said) = tokio::time::timeout_at(deadline.into(), &mut outcome).await {
        return said.unwrap_or_else(|_| Err("the sidecar is ending".to_owned()));
    }
    outcome.close();
    // It may have been said just now.
    let said = outcome.try_recv();
    said.unwrap_or_else(|_| Err("the downlink is busy; try again later".to_owned()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // A panic has ended the process by the panic hook.
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Maps a frame by the rules of now: what RocketMQ shall get, by topic.
fn map(letter: &Letter, frame: &[u8], config: &Config) -> Result<Vec<(String, Outgoing)>, String> {
    let message =
        Message::decode(frame).map_err(|error| format!("its frame holds no message: {error}"))?;
    let identity = Identity::parse(&letter.position)
        .map_err(|error| format!("its position {:?}: {error}", letter.position))?;
    let table = RuleTable::open_read(config.spool_dir.join("rules.table"))
        .map_err(|error| error.to_string())?;
    let named: Vec<&str> = message
        .rules
        .iter()
        .filter_map(|id| table.text_of(id))
        .collect();
    let shared = config.shared_uplink();
    let shared = shared.filter(|rule| rule.text == letter.rule);
    let all: Vec<_> = config.uplink.iter().cloned().chain(shared).collect();
    let rules = rules_for(letter, message.topic, &named, &all);
    if rules.is_empty() {
        let topic = message.topic;
        return Err(format!("no uplink rule wants {topic:?} now"));
    }
    let values = Values(&message);
    // What the frame's own rules make of it, in their order: by that the copies in one topic are numbered.
    let topic_of = |text: &str| {
        let rule = UplinkRule::parse(text).ok()?;
        let made = mapping::uplink::map(&values, &rule, config.layout, &identity).ok()?;
        Some(made.topic.into_owned())
    };
    let own = named.iter().position(|text| *text == letter.rule);
    let is_own = rules.iter().any(|rule| rule.text == letter.rule);
    let before = own.filter(|_| is_own).unwrap_or(named.len());
    let mut topics: Vec<String> = named[..before]
        .iter()
        .filter_map(|text| topic_of(text))
        .collect();
    let mut mapped = Vec::new();
    for rule in rules {
        let made = mapping::uplink::map(&values, rule, config.layout, &identity)
            .map_err(|error| format!("rule {:?}: {error}", rule.text))?;
        let (topic, mut outgoing) = (made.topic.into_owned(), made.message);
        let copy = 1 + topics.iter().filter(|other| **other == topic).count();
        if copy > 1 {
            outgoing.properties.push_display(names::COPY, copy);
        }
        topics.push(topic.clone());
        mapped.push((topic, outgoing));
    }
    Ok(mapped)
}

/// The letter's own rule where it still holds. Else those that want the topic now; but not those that the frame names beside the
/// letter's, for they have had their copy.
fn rules_for<'a>(
    letter: &Letter,
    topic: &str,
    named: &[&str],
    rules: &'a [UplinkRule],
) -> Vec<&'a UplinkRule> {
    if let Some(own) = rules.iter().find(|rule| rule.text == letter.rule) {
        return vec![own];
    }
    let mut wanted: Vec<&UplinkRule> = Vec::new();
    for rule in rules {
        let is_new = !named.contains(&rule.text.as_str())
            && wanted.iter().all(|other| other.text != rule.text);
        if is_new && matches(rule, topic) {
            wanted.push(rule);
        }
    }
    wanted
}

fn matches(rule: &UplinkRule, topic: &str) -> bool {
    let mut trie = TopicTrie::new();
    // The configuration has checked the filter.
    let is_filter = trie.insert(&rule.filter, ()).is_ok();
    let mut found = false;
    trie.matches(topic, |()| found = true);
    is_filter && found
}

#[cfg(test)]
mod tests;
