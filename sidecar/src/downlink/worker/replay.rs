//! Dead letters that come down again.

use std::sync::Arc;

use handoff::{AppendError, Position};
use protocol::message::DownlinkFrame;
use rocketmq::{Consumer, Incoming};

use super::super::{Again, AgainOutcome};
use super::hand_over::warn;
use super::{POLL, Worker};
use crate::downlink::routes::Route;
use crate::mapping::downlink::{Outcome, map};
use crate::metrics::unix_ms;

/// How often a full log is waited for, [`POLL`] each time.
const TRIES: usize = 5;

impl Worker {
    /// Appends the letters that wait for it.
    pub(super) fn replay(&mut self, mut consumer: Option<&mut dyn Consumer>) {
        while let Some((what, answer)) = self.control.next_replay() {
            if answer.is_closed() {
                // Who asked has given up, and told so: the letter stays where it is.
                continue;
            }
            let outcome = match what {
                Again::Frame(frame) => self.again(&frame),
                Again::Shared(incoming) => match consumer.as_deref_mut() {
                    Some(consumer) => {
                        self.is_again = true;
                        self.hand_over(&[*incoming], consumer);
                        self.is_again = false;
                        Ok(())
                    }
                    None => Err("RocketMQ is not being read".to_owned()),
                },
                Again::Message(incoming, rule) => self.map_again(&incoming, &rule),
            };
            // Who asked may have given up.
            let _ = answer.send(outcome);
        }
    }

    fn again(&mut self, frame: &[u8]) -> AgainOutcome {
        let decoded = DownlinkFrame::decode(frame)
            .map_err(|error| format!("its frame holds no message: {error}"))?;
        if let Some(message) = decoded.message() {
            let age_ms = unix_ms().saturating_sub(message.received_at_ms);
            let is_over = |seconds: u32| age_ms >= u64::from(seconds) * 1000;
            if message.expiry_s.is_some_and(is_over) {
                return Err("it has expired".to_owned());
            }
        }
        self.append_again(frame.len(), |out| out.copy_from_slice(frame))
    }

    fn map_again(&mut self, incoming: &Incoming, rule: &str) -> AgainOutcome {
        if let Some(problem) = &incoming.problem {
            return Err(problem.clone());
        }
        let mut routes = self.routes.matching(incoming);
        if routes.iter().any(|route| route.rule.text == rule) {
            // The others have had it.
            routes.retain(|route| route.rule.text == rule);
        }
        if routes.is_empty() {
            return Err(format!(
                "no downlink rule wants it now (topic {}, tag {})",
                incoming.queue.topic,
                incoming.tag.as_deref().unwrap_or("none")
            ));
        }
        let mapped = routes.iter().map(|route| self.map_one(incoming, route));
        let mapped: Vec<_> = mapped.collect::<Result<_, _>>()?;
        for mapped in mapped {
            let message = mapped.message();
            self.append_again(message.encoded_len(), |out| message.encode_into(out))?;
        }
        Ok(())
    }

    fn map_one(
        &self,
        incoming: &Incoming,
        route: &Arc<Route>,
    ) -> Result<Box<crate::mapping::downlink::Mapped>, String> {
        match map(incoming, &route.rule, &self.context, unix_ms()) {
            Ok(Outcome::Deliver(mapped)) => {
                warn(route, &mapped, incoming);
                Ok(mapped)
            }
            Ok(Outcome::Own) => {
                Err("this node published it on that topic itself: its subscribers have it".into())
            }
            Ok(Outcome::Expired) => Err("it has expired".to_owned()),
            Err(error) => Err(format!("rule {:?}: {error}", route.rule.text)),
        }
    }

    pub(super) fn append_again(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> AgainOutcome {
        self.append_beside(len, fill).map(drop)
    }

    /// The same; gives where the frame begins.
    pub(super) fn append_beside(
        &mut self,
        len: usize,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<Position, String> {
        for _ in 0..TRIES {
            match self.writer.append_with(len, &mut fill) {
                // What could not be synced is in the log all the same.
                Ok(position) | Err(AppendError::NotSynced { position, .. }) => {
                    self.metrics.replayed_down(self.writer.frames());
                    return Ok(position);
                }
                Err(AppendError::Full) => {
                    self.writer.wait_for_room(len, POLL);
                }
                Err(error) => return Err(format!("the downlink log: {error}")),
            }
        }
        Err("the downlink log is full: Mosquitto has not taken what is in it".to_owned())
    }
}
