//! Drives rumqttc's two event loops, and translates what they say.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5 as five;

use super::{
    ClientOptions, Granted, Outcome, PublishProperties, Received, SharedSlots, qos_v5, qos_v311,
};

const PACKET_BYTES_MAX: u32 = 64 * 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(60);

pub(super) struct Wiring {
    pub(super) slots: SharedSlots,
    pub(super) inbox: Sender<Received>,
    pub(super) connected: Sender<bool>,
    pub(super) killed: tokio::sync::oneshot::Receiver<()>,
}

/// What both versions say, in one vocabulary.
pub(super) enum Said {
    Connected {
        session_present: bool,
    },
    Published {
        packet: u16,
    },
    Subscribing {
        packet: u16,
    },
    Answer {
        packet: u16,
        reason: String,
        is_final: bool,
    },
    Granted {
        packet: u16,
        granted: Granted,
    },
    Message(Received),
    Nothing,
}

pub(super) trait EventLoop: Send + 'static {
    fn poll(&mut self) -> impl Future<Output = Result<Said, String>>;
    /// What had been read before the connection ended, and was not told yet.
    fn left(&mut self) -> Vec<Said>;
}

pub(super) fn options_v311(port: u16, options: &ClientOptions) -> rumqttc::MqttOptions {
    let mut made = rumqttc::MqttOptions::new(&options.id, options.address.to_string(), port);
    made.set_keep_alive(KEEP_ALIVE)
        .set_clean_session(!options.persistent)
        .set_inflight(options.in_flight_max)
        .set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
    if let Some((user, password)) = &options.credentials {
        made.set_credentials(user, password);
    }
    if let Some(will) = &options.will {
        made.set_last_will(rumqttc::LastWill::new(
            &will.topic,
            will.payload.clone(),
            qos_v311(will.qos),
            will.retain,
        ));
    }
    made
}

pub(super) fn options_v5(port: u16, options: &ClientOptions) -> rumqttc::v5::MqttOptions {
    let mut made = rumqttc::v5::MqttOptions::new(&options.id, options.address.to_string(), port);
    made.set_keep_alive(KEEP_ALIVE)
        .set_clean_start(!options.persistent)
        .set_outgoing_inflight_upper_limit(options.in_flight_max)
        .set_max_packet_size(Some(PACKET_BYTES_MAX));
    if options.persistent
        || options
            .will
            .as_ref()
            .is_some_and(|will| will.delay_s.is_some())
    {
        // A delayed will is published at the latest when the session ends.
        made.set_session_expiry_interval(Some(3600));
    }
    if let Some((user, password)) = &options.credentials {
        made.set_credentials(user, password);
    }
    if let Some(will) = &options.will {
        let properties = five::LastWillProperties {
            delay_interval: will.delay_s,
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: will.content_type.clone(),
            response_topic: None,
            correlation_data: None,
            user_properties: will.user_properties.clone(),
        };
        made.set_last_will(five::LastWill::new(
            &will.topic,
            will.payload.clone(),
            qos_v5(will.qos),
            will.retain,
            Some(properties),
        ));
    }
    made
}

/// Runs until the connection ends or the client is killed; returns how it ended.
pub(super) fn run(eventloop: impl EventLoop, wiring: Wiring) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(drive(eventloop, wiring))
}

async fn drive(mut eventloop: impl EventLoop, mut wiring: Wiring) -> String {
    let mut waiting = Waiting::default();
    let end = loop {
        let said = tokio::select! {
            biased;
            _ = &mut wiring.killed => break "killed".to_owned(),
            said = eventloop.poll() => said,
        };
        match said {
            Ok(said) => waiting.tell(said, &wiring),
            Err(end) => {
                for said in eventloop.left() {
                    waiting.tell(said, &wiring);
                }
                break end;
            }
        }
    };
    // Closes the socket.
    drop(eventloop);
    let mut slots = wiring.slots.lock().unwrap_or_else(PoisonError::into_inner);
    slots.subscriptions.clear();
    for slot in waiting
        .publishes
        .into_values()
        .chain(slots.publishes.drain(..))
    {
        drop(slot.send(Outcome::Closed(end.clone())));
    }
    drop(slots);
    end
}

/// Who waits for the answer to which packet.
#[derive(Default)]
struct Waiting {
    publishes: HashMap<u16, Sender<Outcome>>,
    subscriptions: HashMap<u16, Sender<Granted>>,
}

impl Waiting {
    // Whom an answer is for may have given up waiting, so that sending it fails: no error.
    fn tell(&mut self, said: Said, wiring: &Wiring) {
        let slots = || wiring.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Said::Nothing => {}
            Said::Connected { session_present } => drop(wiring.connected.send(session_present)),
            Said::Message(message) => drop(wiring.inbox.send(message)),
            Said::Published { packet } => {
                let slot = slots().publishes.pop_front();
                match slot {
                    Some(slot) if packet == 0 => drop(slot.send(Outcome::Sent)),
                    Some(slot) => drop(self.publishes.insert(packet, slot)),
                    None => {}
                }
            }
            Said::Answer {
                packet,
                reason,
                is_final,
            } => {
                if is_final && let Some(slot) = self.publishes.remove(&packet) {
                    drop(slot.send(Outcome::Acknowledged(reason)));
                }
            }
            Said::Subscribing { packet } => {
                let slot = slots().subscriptions.pop_front();
                if let Some(slot) = slot {
                    self.subscriptions.insert(packet, slot);
                }
            }
            Said::Granted { packet, granted } => {
                if let Some(slot) = self.subscriptions.remove(&packet) {
                    drop(slot.send(granted));
                }
            }
        }
    }
}

impl EventLoop for rumqttc::EventLoop {
    async fn poll(&mut self) -> Result<Said, String> {
        rumqttc::EventLoop::poll(self)
            .await
            .map(Said::from)
            .map_err(|end| format!("{end:?}"))
    }

    fn left(&mut self) -> Vec<Said> {
        self.state.events.drain(..).map(Said::from).collect()
    }
}

impl From<rumqttc::Event> for Said {
    fn from(event: rumqttc::Event) -> Said {
        use rumqttc::{Event, Packet, SubscribeReasonCode};
        let success = || "Success".to_owned();
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => Said::Connected {
                session_present: ack.session_present,
            },
            Event::Incoming(Packet::PubAck(ack)) => Said::Answer {
                packet: ack.pkid,
                reason: success(),
                is_final: true,
            },
            Event::Incoming(Packet::PubComp(ack)) => Said::Answer {
                packet: ack.pkid,
                reason: success(),
                is_final: true,
            },
            Event::Incoming(Packet::SubAck(ack)) => Said::Granted {
                packet: ack.pkid,
                granted: match ack.return_codes.first() {
                    Some(SubscribeReasonCode::Success(qos)) => Ok(*qos as u8),
                    other => Err(format!("{other:?}")),
                },
            },
            Event::Incoming(Packet::Publish(message)) => Said::Message(Received {
                topic: message.topic,
                payload: message.payload.to_vec(),
                qos: message.qos as u8,
                retain: message.retain,
                properties: PublishProperties::default(),
                at: Instant::now(),
            }),
            Event::Outgoing(Outgoing::Publish(packet)) => Said::Published { packet },
            Event::Outgoing(Outgoing::Subscribe(packet)) => Said::Subscribing { packet },
            _ => Said::Nothing,
        }
    }
}

impl EventLoop for rumqttc::v5::EventLoop {
    async fn poll(&mut self) -> Result<Said, String> {
        rumqttc::v5::EventLoop::poll(self)
            .await
            .map(Said::from)
            .map_err(|end| format!("{end:?}"))
    }

    fn left(&mut self) -> Vec<Said> {
        self.state.events.drain(..).map(Said::from).collect()
    }
}

impl From<rumqttc::v5::Event> for Said {
    fn from(event: rumqttc::v5::Event) -> Said {
        use five::{Packet, PubRecReason, SubscribeReasonCode};
        use rumqttc::v5::Event;
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => Said::Connected {
                session_present: ack.session_present,
            },
            Event::Incoming(Packet::PubAck(ack)) => Said::Answer {
                packet: ack.pkid,
                reason: format!("{:?}", ack.reason),
                is_final: true,
            },
            Event::Incoming(Packet::PubRec(ack)) => Said::Answer {
                packet: ack.pkid,
                reason: format!("{:?}", ack.reason),
                // A refusal is the end of the exchange, and no PUBREL follows.
                is_final: !matches!(
                    ack.reason,
                    PubRecReason::Success | PubRecReason::NoMatchingSubscribers
                ),
            },
            Event::Incoming(Packet::PubComp(ack)) => Said::Answer {
                packet: ack.pkid,
                reason: format!("{:?}", ack.reason),
                is_final: true,
            },
            Event::Incoming(Packet::SubAck(ack)) => Said::Granted {
                packet: ack.pkid,
                granted: match ack.return_codes.first() {
                    Some(SubscribeReasonCode::Success(qos)) => Ok(*qos as u8),
                    other => Err(format!("{other:?}")),
                },
            },
            Event::Incoming(Packet::Publish(message)) => Said::Message(Received {
                topic: String::from_utf8_lossy(&message.topic).into_owned(),
                payload: message.payload.to_vec(),
                qos: message.qos as u8,
                retain: message.retain,
                properties: message.properties.unwrap_or_default(),
                at: Instant::now(),
            }),
            Event::Outgoing(Outgoing::Publish(packet)) => Said::Published { packet },
            Event::Outgoing(Outgoing::Subscribe(packet)) => Said::Subscribing { packet },
            _ => Said::Nothing,
        }
    }
}
