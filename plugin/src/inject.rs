//! What the downlink needs of the broker: a trait, so that the draining can be tested without one.

use std::cell::RefCell;

use protocol::message::Message;

use crate::pressure::Pressure;

/// Takes messages into the broker.
pub(crate) trait Injector {
    /// Publishes `message` with `expiry_s` seconds left to live. After `Ok` the broker owns it.
    fn inject(&self, message: &Message<'_>, expiry_s: Option<u32>) -> Result<(), InjectError>;
}

/// Knows what clients may read.
pub(crate) trait Access {
    /// Whether the connected client with this record may.
    fn may_read(&self, client: usize, message: &Message<'_>) -> bool;
}

/// Tells what was injected to who watches over the clients' queues.
pub(crate) struct Noting<'a, B> {
    pub(crate) broker: &'a B,
    pub(crate) pressure: RefCell<&'a mut Pressure>,
}

impl<B: Injector> Injector for Noting<'_, B> {
    fn inject(&self, message: &Message<'_>, expiry_s: Option<u32>) -> Result<(), InjectError> {
        self.broker.inject(message, expiry_s)?;
        self.pressure.borrow_mut().injected(message);
        Ok(())
    }
}

/// Why the broker did not take a message. All but an expired one become dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InjectError {
    /// A C string ends at a zero byte.
    #[error("its {0} contains a zero byte")]
    ZeroByte(&'static str),
    /// The payload does not fit a C int, or the correlation data 65535 bytes.
    #[error("it is larger than Mosquitto can take")]
    TooLarge,
    /// The broker's allocator refused.
    #[error("Mosquitto is out of memory")]
    OutOfMemory,
    /// A property that Mosquitto does not take.
    #[error("Mosquitto refused a property of it (code {0})")]
    Property(i32),
    /// `mosquitto_broker_publish` failed.
    #[error("Mosquitto refused it (code {0})")]
    Refused(i32),
    /// Wildcards, or more than MQTT allows.
    #[error("its topic is not one that a message can have")]
    Topic,
    /// Its expiry passed while it waited in the log.
    #[error("it expired before it was delivered")]
    Expired,
}
