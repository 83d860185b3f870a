//! RocketMQ away under a steady load, and what is made up for when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::arrivals::Arrivals;
use crate::backbone::Backbone;
use crate::child::Standstill;
use crate::load::{Load, Shape};
use crate::mosquitto::{Broker, Setup, Variant};
use crate::report::{Figure, Goal};
use crate::sys;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two looks at what has arrived.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// So much of a second's load may be on its way when everything counts as caught up.
const ON_THE_WAY_S: f64 = 0.25;

/// Plan of the outages.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Messages a second, before, during and after.
    pub(crate) rate: f64,
    pub(crate) before: Duration,
    pub(crate) outage: Duration,
    pub(crate) shape: Shape,
}

#[derive(Default)]
struct Series {
    before_per_s: Vec<f64>,
    catching_up_per_s: Vec<f64>,
    before_mib: Vec<f64>,
    after_mib: Vec<f64>,
}

/// A steady load in a thread of its own.
struct Steady {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Steady {
    fn start(mut load: Load, rate: f64) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (theirs, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || load.run_paced(rate, &theirs, &count));
        Steady { stop, sent, thread }
    }

    fn sent(&self) -> f64 {
        self.sent.load(Ordering::Relaxed) as f64
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the load panicked"))?
    }
}

/// Measures so many outages. RocketMQ's broker is stopped in its tracks (SIGSTOP), so that requests hang rather than fail.
pub(crate) fn measure(setup: &Setup, backbone: &mut Backbone, plan: &Plan) -> Result<Vec<Figure>> {
    let Some(rocketmq) = setup.rocketmq_pid else {
        bail!("an outage can be measured only with --rocketmq-pid");
    };
    let mut series = Series::default();
    for round in 0..plan.rounds {
        let broker = Broker::start(setup, Variant::Bridge, &[])?;
        let result = one_outage(setup, backbone, plan, &broker, rocketmq, &mut series);
        broker.explain(result)?;
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        eprintln!(
            "  outage of {:?}, round {} of {}: arriving/s {:.0} before, {:.0} catching up; sidecar {:.1} MiB before, {:.1} after",
            plan.outage,
            round + 1,
            plan.rounds,
            last(&series.before_per_s),
            last(&series.catching_up_per_s),
            last(&series.before_mib),
            last(&series.after_mib),
        );
    }
    Ok(vec![
        Figure::new(
            "catching_up_under_load",
            "msg/s",
            &series.catching_up_per_s,
            ("arriving before the outage", &series.before_per_s),
            Some(Goal::RatioAtLeast(2.0)),
        ),
        Figure::new(
            "memory_after_outage",
            "MiB",
            &series.after_mib,
            ("before it", &series.before_mib),
            Some(Goal::AtMost(64.0)),
        ),
    ])
}

fn one_outage(
    setup: &Setup,
    backbone: &mut Backbone,
    plan: &Plan,
    broker: &Broker,
    rocketmq: u32,
    series: &mut Series,
) -> Result<()> {
    let mut load = Load::connect(broker.port, plan.shape)?;
    let mut arrivals = Arrivals::new(backbone, &setup.topics.load)?;
    let first = load.run(1)?;
    arrivals.wait(first, READY_TIMEOUT)?;
    let steady = Steady::start(load, plan.rate);
    let result = watch(&mut arrivals, plan, broker, rocketmq, &steady, series);
    // The load's own error says more than that nothing arrives.
    steady.stop()?;
    result
}

fn watch(
    arrivals: &mut Arrivals<'_>,
    plan: &Plan,
    broker: &Broker,
    rocketmq: u32,
    steady: &Steady,
    series: &mut Series,
) -> Result<()> {
    // The first second is for connections and caches.
    pause(Duration::from_secs(1))?;
    let (arrived, since) = (arrivals.so_far()? as f64, Instant::now());
    pause(plan.before)?;
    let more = arrivals.so_far()? as f64 - arrived;
    series
        .before_per_s
        .push(more / since.elapsed().as_secs_f64());
    series.before_mib.push(broker.sidecar_mib()?);

    let standstill = Standstill::of(&[rocketmq])?;
    pause(plan.outage)?;
    drop(standstill);
    let back = Instant::now();
    let arrived = arrivals.so_far().context("RocketMQ is back")? as f64;
    loop {
        pause(SAMPLE_INTERVAL)?;
        let now = arrivals.so_far()? as f64;
        if steady.sent() - now <= plan.rate * ON_THE_WAY_S {
            series
                .catching_up_per_s
                .push((now - arrived) / back.elapsed().as_secs_f64());
            break;
        }
        if back.elapsed() > CATCH_UP_TIMEOUT {
            bail!("{} messages are still waiting", steady.sent() - now);
        }
    }
    series.after_mib.push(broker.sidecar_mib()?);
    Ok(())
}

fn pause(duration: Duration) -> Result<()> {
    thread::sleep(duration);
    if sys::terminated() {
        bail!("asked to end");
    }
    Ok(())
}
