//! Much waits in RocketMQ, and nobody is there to take it.

use std::time::{Duration, Instant};

use harness::wait::within;

use crate::fault::{Fault, Plan, Repeats};
use crate::load::Rate;
use crate::row::Direction;
use crate::run::Run;

const BACKLOG: u64 = 50_000;
/// Where it is interrupted, counted in messages that the sidecar has handed over.
const KILLED_AT: [u64; 2] = [6_000, 16_000];
const LIMIT: Duration = Duration::from_secs(300);

pub(super) static BACKLOG_50000: Fault = Fault {
    name: "backlog-50000",
    about: "50,000 messages wait in RocketMQ, sessions offline; the sidecar is killed twice while Mosquitto takes them",
    seconds: 150,
    quick: false,
    plan: || Plan {
        directions: &[Direction::Downlink],
        rate: Rate {
            downlink_per_s: 10,
            ..Rate::default()
        },
        repeats_max: Repeats::SIDECAR_DIED,
        // Measured here, through a command that takes a second while no sidecar answers, on a machine that works off the backlog.
        recovery_limit_s: LIMIT.as_secs_f64(),
        ..Plan::shared()
    },
    inject: |run| {
        let address = run.address();
        let mut downlink = run.downlink.take().expect("the plan has it");
        // Nothing may be on its way to a device that goes: mosquitto_sub takes its half of an exchange at QoS 2 with it.
        downlink.pause_producing();
        downlink.wait_until_all_has_arrived();
        let [handed_over, injected] = counters(run).expect("the counters");
        downlink.disconnect();
        // In order, so that it writes its sessions down.
        run.broker.terminate();
        downlink.backlog(usize::try_from(BACKLOG).expect("a small number"));
        run.broker.start();
        run.broker.wait_until_connected();
        for at in KILLED_AT {
            within(LIMIT, "some of the backlog is handed over", || {
                (counters(run)?[0] >= handed_over + at).then_some(())
            });
            kill_within(run, handed_over + BACKLOG);
        }
        within(LIMIT, "the backlog is in Mosquitto", || {
            (counters(run)?[1] >= injected + BACKLOG).then_some(())
        });
        downlink.connect(address);
        downlink.produce();
        run.downlink = Some(downlink);
    },
};

/// Kills the sidecar before it has handed over all, and waits until the next one goes on with it. The devices are away, so their
/// arrivals say nothing of that.
fn kill_within(run: &mut Run, all: u64) {
    let there = within(LIMIT, "the sidecar answers", || counters(run))[0];
    assert!(there < all, "all of the backlog was handed over already");
    run.broker.kill_sidecar();
    let killed = Instant::now();
    // What the old one did until it died is in the new one's first answer.
    let there = within(LIMIT, "another sidecar answers", || counters(run))[0];
    within(LIMIT, "it goes on", || {
        let now = counters(run)?[0];
        (now > there || now >= all).then_some(())
    });
    run.went_on_after(killed.elapsed());
}

/// How many messages were ever put into the downlink's log, and how many of them Mosquitto has.
fn counters(run: &Run) -> Option<[u64; 2]> {
    let status = run.broker.status()?;
    let number = |path: &str| status.pointer(path)?.as_u64();
    Some([
        number("/downlink/log/messages")?,
        number("/plugin/downlink_injected")?,
    ])
}
