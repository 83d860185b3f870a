//! RocketMQ away, all of it: for a minute, and for longer than any client's patience.

use std::time::Duration;

use crate::fault::{Fault, Plan};
use crate::memory;
use crate::run::Run;

pub(super) static MINUTE: Fault = Fault {
    name: "rocketmq-away-60s",
    about: "RocketMQ's broker and name server killed, and away for 60 s",
    seconds: 130,
    quick: false,
    plan: Plan::own_rocketmq,
    inject: |run| away(run, Duration::from_secs(60)),
};

pub(super) static TEN_MINUTES: Fault = Fault {
    name: "rocketmq-away-10min",
    about: "RocketMQ away for 10 minutes under load, longer than its client's patience; memory stays flat",
    seconds: 720,
    quick: false,
    plan: || Plan {
        // What waited is sent first, in order, and is a lot.
        patience: Duration::from_secs(120),
        ..Plan::own_rocketmq()
    },
    inject: |run| memory::watched(run, |run| away(run, Duration::from_secs(600))),
};

fn away(run: &mut Run, length: Duration) {
    run.begins();
    run.own_rocketmq().kill();
    let until = std::time::Instant::now() + length;
    while std::time::Instant::now() < until {
        // The devices don't notice.
        run.flow_up(200);
        std::thread::sleep(Duration::from_secs(1));
    }
    run.own_rocketmq().start();
    run.ends_when_rocketmq_answers();
}
