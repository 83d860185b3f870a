//! A broker under a load of its own, beside others: in short slices that take turns. Whatever else works on the machine, the sidecar and
//! RocketMQ too, then slows all alike, and the difference is the callbacks' own.

use anyhow::Result;

use crate::load::{Load, Outcome, Shape};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::report::median;

/// Slices of each side in a round.
pub(crate) const SLICES: u64 = 20;

/// One of the brokers that are compared.
pub(crate) struct Side {
    pub(crate) broker: Broker,
    pub(crate) load: Load,
    slices: Vec<f64>,
}

impl Side {
    pub(crate) fn start(
        setup: &Setup,
        variant: Variant,
        shape: Shape,
        extra: &[String],
    ) -> Result<Self> {
        let broker = Broker::start(setup, variant, extra)?;
        let load = Load::connect(broker.port, shape)?;
        Ok(Side {
            broker,
            load,
            slices: Vec::new(),
        })
    }

    /// Publishes so many messages and notes the time that the broker's thread spent on each.
    pub(crate) fn slice(&mut self, messages: u64) -> Result<Outcome> {
        let before = self.broker.thread_cpu_ns()?;
        let outcome = self.load.run(messages)?;
        let spent = self.broker.thread_cpu_ns()? - before;
        self.slices.push(spent as f64 / messages as f64);
        Ok(outcome)
    }

    /// Nanoseconds a message: the median of the slices since the last call.
    pub(crate) fn take_median(&mut self) -> f64 {
        median(&std::mem::take(&mut self.slices))
    }
}
