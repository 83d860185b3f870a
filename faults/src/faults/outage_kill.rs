//! Two faults at once: the sidecar killed while RocketMQ does not answer, with messages of devices in its hands.
//!
//! It is also what the ledger itself is tried on ([`crate::self_test`]): a sidecar that gives messages back to the spool before
//! RocketMQ has answered loses here, each time.

use std::time::Duration;

use harness::rocketmq::Part;

use crate::fault::{Fault, Plan, Repeats};
use crate::run::Run;

/// How many messages are acknowledged into the outage before the sidecar is killed, and after it.
const IN_HAND: usize = 400;

pub(crate) static SIDECAR: Fault = Fault {
    name: "kill-sidecar-in-outage",
    about: "kill -9 of the sidecar while RocketMQ's broker is stopped",
    seconds: 50,
    quick: true,
    plan: || Plan {
        repeats_max: Repeats {
            down: Repeats::SIDECAR_DIED.down,
            ..Repeats::unanswered(20)
        },
        ..Plan::own_rocketmq()
    },
    inject: kill_in_outage,
};

fn kill_in_outage(run: &mut Run) {
    run.begins();
    run.own_rocketmq().signal(Part::Broker, libc::SIGSTOP);
    run.flow_up(IN_HAND);
    let old = run.broker.kill_sidecar();
    run.wait_for_another_sidecar(old);
    run.flow_up(IN_HAND);
    // Long enough for requests to have run out of time.
    std::thread::sleep(Duration::from_secs(5));
    run.own_rocketmq().signal(Part::Broker, libc::SIGCONT);
    run.ends_when_rocketmq_answers();
}
