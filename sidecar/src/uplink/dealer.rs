//! The dealer: makes messages of frames, and deals them out to the tasks of their topics. What can't be sent is written to the dead
//! letters.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use handoff::{Frame, Position};
use protocol::config::{Config, Layout};
use protocol::message::{DownlinkFrame, Epochs, Identity, Message, Returned, UplinkFrame};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::AbortHandle;

use super::intake::PAUSE;
use super::lane::{Item, Note};
use super::layout::hash;
use super::rules::{NoRule, Rule, Rules};
use super::{Control, pass_on, topic};
use crate::dead_letter::{Direction, Letter};
use crate::mapping::uplink::{Mapped, Values};
use crate::mapping::{self, names};
use crate::metrics::Ending;

/// With more topics than this (templates can make many), those that rest are forgotten.
const TOPICS_MAX: usize = 1024;
/// Dead letters are written when they hold so much memory, however few they are.
const LETTERS_BYTES_MAX: usize = 8 << 20;
/// What a message holds in memory besides its bytes, about: half of it its properties, with names, half its places in lane and window. Measured by the
/// ledger's `rocketmq-away-10min`, where the memory in flight is full of small messages.
const OVERHEAD: u64 = 800;

/// All but the reader, from which frames are borrowed.
pub(super) struct Dealer {
    pub(super) shared: Arc<topic::Shared>,
    control: Arc<Control>,
    rules: Rules,
    node_id: String,
    pub(super) epochs: Epochs,
    layout: Layout,
    runtime: Handle,
    topics: HashMap<Arc<str>, Desk>,
    /// Messages not yet dealt out, over all desks.
    pub(super) held: usize,
    /// Dead letters not yet written, and what ends when they are.
    letters: Vec<Letter>,
    letters_bytes: usize,
    buried: Vec<(u64, Ending)>,
    /// Nothing more may be dealt out by this process.
    pub(super) is_stuck: bool,
}

/// A topic as the intake sees it.
struct Desk {
    sender: UnboundedSender<Vec<Item>>,
    task: AbortHandle,
    held: Vec<Item>,
    outstanding: Arc<AtomicU64>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Only dropped when nothing is outstanding, or when the time to drain is over.
        if self.outstanding.load(Relaxed) > 0 {
            self.task.abort();
        }
    }
}

impl Dealer {
    pub(super) fn new(
        config: &Config,
        epochs: Epochs,
        rules: Rules,
        shared: Arc<topic::Shared>,
        control: Arc<Control>,
        runtime: Handle,
    ) -> Dealer {
        Dealer {
            shared,
            control,
            rules,
            node_id: config.node_id.clone(),
            epochs,
            layout: config.layout,
            runtime,
            topics: HashMap::new(),
            held: 0,
            letters: Vec::new(),
            letters_bytes: 0,
            buried: Vec::new(),
            is_stuck: false,
        }
    }

    pub(super) fn take(&mut self, frame: &Frame<'_>) {
        let bytes = frame.payload.len() as u64;
        let message = match UplinkFrame::decode(frame.payload) {
            Ok(UplinkFrame::Message(message)) => message,
            Ok(UplinkFrame::Returned(returned)) => return self.take_back(frame, &returned),
            Err(error) => {
                let ticket = self.shared.window.open(frame.next, 1, 0);
                let reason = format!("the frame holds no message: {error}");
                self.bury(frame, ticket, None, None, &reason);
                return;
            }
        };
        let count = u32::try_from(message.rules.len()).unwrap_or(u32::MAX);
        if count == 0 {
            let ticket = self.shared.window.open(frame.next, 1, 0);
            self.bury(
                frame,
                ticket,
                Some(&message),
                None,
                "the frame names no rule",
            );
            return;
        }
        let is_counted = self.shared.window.is_counted(frame.next);
        let ticket =
            self.shared
                .window
                .open(frame.next, count, (bytes + OVERHEAD) * u64::from(count));
        let mut topics: Vec<String> = Vec::new();
        for id in message.rules.iter() {
            let rule = match self.rule(id) {
                Some(Ok(rule)) => rule,
                Some(Err(reason)) => {
                    self.bury(frame, ticket, Some(&message), None, &reason);
                    continue;
                }
                // Its frame stays under way, and comes again. Nothing behind it may be sent before it: readers would take it
                // for a repetition then.
                None => {
                    self.is_stuck = true;
                    return;
                }
            };
            if !is_counted {
                rule.counters.matched.fetch_add(1, Relaxed);
            }
            let identity = self.identity(frame.position);
            let values = Values(&message);
            match mapping::uplink::map(&values, &rule.rule, self.layout, &identity) {
                Ok(Mapped {
                    topic,
                    order,
                    message: mut outgoing,
                }) => {
                    let copy = 1 + topics.iter().filter(|other| **other == topic).count();
                    if copy > 1 {
                        outgoing.properties.push_display(names::COPY, copy);
                    }
                    if message.retain
                        && let Some(cluster) = &self.shared.cluster
                        && topic == cluster.topic
                    {
                        let at_ms = cluster.retained.publish(&message, &identity);
                        outgoing.properties.push_display(names::RETAINED_AT, at_ms);
                    }
                    let payload_bytes = message.payload.len() as u64;
                    let note = Note {
                        ticket,
                        copy,
                        rule: Arc::clone(&rule),
                        hash: hash(&order),
                        payload_bytes,
                    };
                    self.hold(
                        &topic,
                        Item {
                            message: outgoing,
                            note,
                        },
                    );
                    if count > 1 {
                        topics.push(topic.into_owned());
                    }
                }
                Err(error) => self.bury(
                    frame,
                    ticket,
                    Some(&message),
                    Some(rule),
                    &error.to_string(),
                ),
            }
        }
    }

    /// The rule with this number, or why there will never be one. Nothing when the process is to end before that is known.
    fn rule(&mut self, id: u32) -> Option<Result<Arc<Rule>, String>> {
        let mut is_said = false;
        loop {
            match self.rules.get(id) {
                Ok(rule) => return Some(Ok(rule)),
                Err(NoRule::Missing(reason)) => return Some(Err(reason)),
                Err(NoRule::Unreadable(error)) => {
                    if !std::mem::replace(&mut is_said, true) {
                        log::error!("messages wait for their rule, trying again: {error}");
                    }
                }
            }
            if self.control.is_draining() {
                return None;
            }
            // What waits here goes on its way meanwhile.
            self.deal();
            std::thread::sleep(PAUSE);
        }
    }

    fn identity(&self, position: Position) -> Identity<'_> {
        Identity {
            node: &self.node_id,
            epoch: self.epochs.at(position),
            position,
        }
    }

    /// What came down and the plugin could not inject: a dead letter. No rule of the way up has to do with it, and the plugin has counted it.
    fn take_back(&mut self, frame: &Frame<'_>, returned: &Returned<'_>) {
        let ticket = self.shared.window.open(frame.next, 1, 0);
        let passed_on = self.shared.cluster.as_ref().and_then(|cluster| {
            let identity = self.identity(frame.position);
            pass_on::message(returned.payload, &cluster.rule, self.layout, &identity)
        });
        if let Some((outgoing, place)) = passed_on {
            let shared = Arc::clone(&self.shared);
            self.runtime
                .spawn(pass_on::send(shared, outgoing, place, ticket));
            return;
        }
        let decoded = DownlinkFrame::decode(returned.payload).ok();
        let message = decoded.as_ref().and_then(DownlinkFrame::message);
        let identity = Identity {
            node: &self.node_id,
            epoch: returned.epoch,
            position: returned.position,
        };
        let mut letter = Letter::of_frame(
            Direction::Downlink,
            &identity,
            returned.payload,
            message,
            "",
            returned.reason,
        );
        letter.time_ms = returned.returned_at_ms;
        self.keep(letter, returned.payload.len(), ticket, Ending::Returned);
    }

    /// What can't be mended is kept as it is, for whoever can make something of it.
    pub(super) fn skip(&mut self, from: Position, to: Position, reason: &str, raw: &[u8]) {
        self.shared.metrics.corrupt_frames.fetch_add(1, Relaxed);
        log::error!(
            "the hand-off log is damaged from {from} to {to} and read on behind it: {reason}"
        );
        let ticket = self
            .shared
            .window
            .skip(to, u32::from(!raw.is_empty()), raw.len() as u64);
        if raw.is_empty() {
            return;
        }
        let mut reason = format!("the uplink log is damaged from {from} to {to}: {reason}");
        let kept = raw.len() as u64;
        if kept < to - from {
            reason += &format!("; the first {kept} bytes are kept");
        }
        let identity = self.identity(from);
        let letter = Letter::of_frame(Direction::Uplink, &identity, raw, None, "", &reason);
        // No message that was counted: the log's count of frames tells how many were lost.
        self.keep(letter, raw.len(), ticket, Ending::Unroutable);
    }

    fn bury(
        &mut self,
        frame: &Frame<'_>,
        ticket: u64,
        message: Option<&Message<'_>>,
        rule: Option<Arc<Rule>>,
        reason: &str,
    ) {
        let text = rule.as_ref().map_or("", |rule| rule.rule.text.as_str());
        let letter = Letter::of_frame(
            Direction::Uplink,
            &self.identity(frame.position),
            frame.payload,
            message,
            text,
            reason,
        );
        let ending = rule.map_or(Ending::Unroutable, |rule| {
            Ending::Dead(Arc::clone(&rule.counters))
        });
        self.keep(letter, frame.payload.len(), ticket, ending);
    }

    /// Has a letter written, at the next deal or, when many bytes have come together, at once.
    fn keep(&mut self, letter: Letter, bytes: usize, ticket: u64, ending: Ending) {
        self.letters.push(letter);
        self.letters_bytes += bytes;
        self.buried.push((ticket, ending));
        self.held += 1;
        if self.letters_bytes > LETTERS_BYTES_MAX {
            self.write_letters();
        }
    }

    fn hold(&mut self, topic: &str, item: Item) {
        if !self.topics.contains_key(topic) {
            self.open(topic);
        }
        if let Some(desk) = self.topics.get_mut(topic) {
            desk.held.push(item);
            self.held += 1;
        }
    }

    fn open(&mut self, topic: &str) {
        if self.topics.len() >= TOPICS_MAX {
            // This thread alone adds to what is outstanding: a desk that rests now can't be in use.
            self.topics
                .retain(|_, desk| !desk.held.is_empty() || desk.outstanding.load(Relaxed) > 0);
        }
        let name: Arc<str> = topic.into();
        let (sender, receiver) = mpsc::unbounded_channel();
        let outstanding = Arc::new(AtomicU64::new(0));
        let work = topic::run(
            Arc::clone(&name),
            Arc::clone(&self.shared),
            Arc::clone(&outstanding),
            receiver,
        );
        let task = self.runtime.spawn(work).abort_handle();
        self.topics.insert(
            name,
            Desk {
                sender,
                task,
                held: Vec::new(),
                outstanding,
            },
        );
    }

    /// Gives everything held to the topics, and the dead letters to the disk.
    pub(super) fn deal(&mut self) {
        if self.held == 0 {
            return;
        }
        self.held = 0;
        for desk in self
            .topics
            .values_mut()
            .filter(|desk| !desk.held.is_empty())
        {
            let items = std::mem::take(&mut desk.held);
            desk.outstanding.fetch_add(items.len() as u64, Relaxed);
            // The task only ends when this sender does.
            let _ = desk.sender.send(items);
        }
        self.write_letters();
    }

    fn write_letters(&mut self) {
        if self.buried.is_empty() {
            return;
        }
        while let Err(error) = self.shared.dead.append(&mut self.letters) {
            log::error!("dead letters can't be written, trying again: {error}");
            std::thread::sleep(PAUSE);
        }
        self.letters.clear();
        self.letters_bytes = 0;
        self.shared.window.complete(self.buried.drain(..));
    }
}
