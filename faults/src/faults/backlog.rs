//! Much waits in RocketMQ, and nobody is there to take it.

use std::time::{Duration, Instant};

use harness::eventually;
use harness::wait::within;

use crate::fault::{Fault, Plan};
use crate::load::Rate;
use crate::row::Direction;
use crate::run::Run;

const BACKLOG: usize = 50_000;
/// Where it is interrupted, counted in messages that Mosquitto has.
const KILLED_AT: [u64; 2] = [8_000, 20_000];
const QUIET: Duration = Duration::from_secs(5);

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
        // What was injected and not committed comes again.
        repeats_max: 4_000,
        ..Plan::shared()
    },
    inject: |run| {
        let address = run.address();
        let mut downlink = run.downlink.take().expect("the plan has it");
        downlink.disconnect();
        // In order, so that it writes its sessions down.
        run.broker.terminate();
        downlink.backlog(BACKLOG);
        run.broker.start();
        run.broker.wait_until_connected();
        let before = injected(run).unwrap_or(0);
        for at in KILLED_AT {
            eventually("some of the backlog is in Mosquitto", || {
                (injected(run)? >= before.saturating_add(at)).then_some(())
            });
            run.begins();
            run.broker.kill_sidecar();
            run.ends();
        }
        let mut last = (0, Instant::now());
        within(
            Duration::from_secs(300),
            "the backlog is in Mosquitto",
            || {
                let now = injected(run)?;
                if now != last.0 {
                    last = (now, Instant::now());
                }
                (last.1.elapsed() > QUIET).then_some(())
            },
        );
        downlink.connect(address);
        downlink.produce();
        run.downlink = Some(downlink);
    },
};

fn injected(run: &Run) -> Option<u64> {
    run.broker.status_number("downlink_injected")
}
