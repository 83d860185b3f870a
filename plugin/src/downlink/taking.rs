//! What becomes of each frame of the downlink log.

use handoff::{Counters, Frame};
use protocol::counters as count;
use protocol::message::{Audience, ClientIds, Command, DownlinkFrame, Message, QoS, Selected};
use protocol::trie::validate_topic;

use crate::cluster::{Close, Moved};
use crate::inject::{InjectError, Injector};
use crate::ledger;
use crate::limit::Limit;
use crate::refusal::{GiveBack, Refusal, give_back};
use crate::selecting::Selecting;
use crate::uplink::now_ms;

/// Finds the members of shared subscriptions.
pub(crate) trait Members {
    /// The one whose turn it is of those of the group `<group>/<filter>` that may read the message, with the QoS of its subscription.
    fn next(&mut self, key: &str, message: &Message<'_>) -> Option<(Box<str>, QoS)>;
}

/// What the sidecar has told us to do.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// Connections to close.
    pub(crate) closes: Vec<Close>,
    /// Clients that are on other nodes.
    pub(crate) moves: Vec<Moved>,
    /// Clients that are native bridges between nodes (true), or are none any more.
    pub(crate) carriers: Vec<(String, bool)>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is injected, noted or given back.
    Done,
    /// It can't stand beside what this tick has injected.
    NotNow,
    /// It could neither be injected nor given back.
    Stuck,
}

/// Where frames go.
pub(super) struct Taking<'a, 'm> {
    /// Of the log.
    pub(super) epoch: u64,
    pub(super) selecting: &'a mut Selecting,
    pub(super) selects: bool,
    pub(super) members: Option<&'a mut (dyn Members + 'm)>,
    pub(super) commands: &'a mut Commands,
    pub(super) counters: &'a Counters,
    pub(super) complaints: &'a mut Limit,
}

impl Taking<'_, '_> {
    /// Injects a message, notes a command, or gives back what can't be.
    pub(super) fn take(
        &mut self,
        frame: &Frame<'_>,
        broker: &impl Injector,
        uplink: &mut impl GiveBack,
    ) -> Taken {
        match self.try_take(frame, broker) {
            Ok(taken) => taken,
            Err(refusal) => match self.refuse(frame, &refusal, uplink) {
                true => Taken::Done,
                false => Taken::Stuck,
            },
        }
    }

    /// Every frame ends in exactly one counter: here, or in `refuse`.
    fn try_take(&mut self, frame: &Frame<'_>, broker: &impl Injector) -> Result<Taken, Refusal> {
        let decoded = DownlinkFrame::decode(frame.payload).map_err(Refusal::Unreadable)?;
        let injected = match decoded {
            DownlinkFrame::Message(message)
                if message.retain && left_s(&message, now_ms()).is_none() =>
            {
                match self.clear(message.topic, broker) {
                    Some(_) => Err(InjectError::Expired),
                    None => return Ok(Taken::NotNow),
                }
            }
            DownlinkFrame::Message(message) => {
                // Nobody is asked about one that is for one client.
                if message.client_id.is_empty() && !self.selecting.takes_others() {
                    return Ok(Taken::NotNow);
                }
                inject(&message, broker, now_ms())
            }
            DownlinkFrame::Selected(selected) => match self.select(&selected, broker)? {
                Some(injected) => injected,
                None => return Ok(Taken::NotNow),
            },
            DownlinkFrame::Command(command) => {
                self.note(&command);
                ledger::ended(self.counters, count::DOWNLINK_COMMANDS, frame);
                return Ok(Taken::Done);
            }
        };
        let counter = match injected {
            Ok(()) => count::DOWNLINK_INJECTED,
            Err(InjectError::Expired) => count::DOWNLINK_EXPIRED,
            Err(error) => return Err(Refusal::NotInjected(error)),
        };
        ledger::ended(self.counters, counter, frame);
        Ok(Taken::Done)
    }

    /// Has the broker retain nothing on a topic, as it would if what has expired had come in time. Its subscribers are told nothing. Nothing: not in this tick.
    fn clear(&mut self, topic: &str, broker: &impl Injector) -> Option<Result<(), InjectError>> {
        let message = Message {
            topic,
            retain: true,
            ..Message::default()
        };
        if !self.selects || self.members.is_none() {
            // Its subscribers would be told that there is nothing any more.
            return Some(Ok(()));
        }
        if !self.selecting.takes(&message, ClientIds::NOBODY) {
            return None;
        }
        let injected = inject(&message, broker, now_ms());
        if injected.is_err() {
            self.selecting.take_back();
        }
        Some(injected)
    }

    /// Nothing: not in this tick.
    fn select(
        &mut self,
        selected: &Selected<'_>,
        broker: &impl Injector,
    ) -> Result<Option<Result<(), InjectError>>, Refusal> {
        let message = &selected.message;
        if selected.audience == Audience::Clients(ClientIds::NOBODY) {
            return Ok(self.clear(message.topic, broker));
        }
        if !self.selects {
            return Err(Refusal::CannotSelect);
        }
        match selected.audience {
            Audience::Clients(clients) => {
                if !self.selecting.takes(message, clients) {
                    return Ok(None);
                }
                let injected = inject(message, broker, now_ms());
                if injected.is_err() {
                    self.selecting.take_back();
                }
                Ok(Some(injected))
            }
            Audience::Group(key) => {
                let members = self.members.as_mut();
                let member = members.and_then(|members| members.next(key, message));
                let (client_id, qos) = member.ok_or(Refusal::NobodyTakes)?;
                let message = Message {
                    client_id: &client_id,
                    qos: message.qos.min(qos),
                    ..*message
                };
                Ok(Some(inject(&message, broker, now_ms())))
            }
        }
    }

    fn note(&mut self, command: &Command<'_>) {
        match *command {
            Command::Close {
                client_id,
                login,
                reason,
                ..
            } => self.commands.closes.push(Close {
                client_id: client_id.to_owned(),
                login,
                reason,
            }),
            Command::Moved {
                client_id, login, ..
            } => self.commands.moves.push(Moved {
                client_id: client_id.to_owned(),
                login,
            }),
            Command::Carrier {
                client_id,
                is_carrier,
                ..
            } => self
                .commands
                .carriers
                .push((client_id.to_owned(), is_carrier)),
        }
    }

    /// Gives back what was refused. False when it can't be kept now, and has to be tried again.
    fn refuse(&mut self, frame: &Frame<'_>, refusal: &Refusal, uplink: &mut impl GiveBack) -> bool {
        let kept = give_back(frame, self.epoch, refusal, uplink);
        if kept.is_ok() {
            ledger::ended(self.counters, count::DOWNLINK_FAILED, frame);
        }
        // What no member takes here goes to one elsewhere.
        let is_told = !matches!((refusal, &kept), (Refusal::NobodyTakes, Ok(())));
        if is_told && self.complaints.allows() {
            let decoded = DownlinkFrame::decode(frame.payload).ok();
            let message = decoded.as_ref().and_then(DownlinkFrame::message);
            let topic = message.map_or("", |message| message.topic);
            let position = frame.position;
            match &kept {
                Ok(()) => log::warn!(
                    "a message for `{topic}` (downlink position {position}) becomes a dead letter: {refusal} (further ones are counted, see `status`)"
                ),
                Err(error) => log::error!(
                    "a message for `{topic}` (downlink position {position}) was refused ({refusal}) and can't be given back yet, so those behind it wait: {error}"
                ),
            }
        }
        kept.is_ok()
    }
}

fn inject(message: &Message<'_>, broker: &impl Injector, now_ms: u64) -> Result<(), InjectError> {
    // The broker would take wildcards, and store a retained message under them.
    validate_topic(message.topic).map_err(|_| InjectError::Topic)?;
    let expiry_s = left_s(message, now_ms).ok_or(InjectError::Expired)?;
    broker.inject(message, expiry_s)
}

/// The seconds that it has left to live, if they are bounded. Nothing when it has expired.
fn left_s(message: &Message<'_>, now_ms: u64) -> Option<Option<u32>> {
    let Some(expiry_s) = message.expiry_s else {
        return Some(None);
    };
    let waited_s = now_ms.saturating_sub(message.received_at_ms) / 1000;
    match u64::from(expiry_s).checked_sub(waited_s) {
        None | Some(0) => None,
        Some(left_s) => Some(u32::try_from(left_s).ok()),
    }
}
