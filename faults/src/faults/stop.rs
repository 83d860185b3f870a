//! Each process stopped by SIGSTOP: it is there, and does not answer.

use std::time::Duration;

use harness::proc;
use harness::rocketmq::Part;

use crate::fault::{Fault, Plan, Repeats};
use crate::run::Run;

const STOPPED: Duration = Duration::from_secs(20);

fn stop(pid: u32) {
    assert!(proc::signal(pid, libc::SIGSTOP), "process {pid} is gone");
    std::thread::sleep(STOPPED);
    assert!(proc::signal(pid, libc::SIGCONT), "process {pid} is gone");
}

pub(super) static SIDECAR: Fault = Fault {
    name: "stop-sidecar",
    about: "the sidecar stopped for 20 s",
    seconds: 45,
    quick: false,
    plan: || Plan {
        // Its requests have run out of time meanwhile, and are repeated.
        repeats_max: Repeats::UNHEARD,
        goal_s: Some(2.0),
        ..Plan::shared()
    },
    inject: |run| {
        let pid = run.broker.sidecar_pid();
        run.begins();
        stop(pid);
        run.ends();
    },
};

pub(super) static MOSQUITTO: Fault = Fault {
    name: "stop-mosquitto",
    about: "Mosquitto stopped for 20 s; half of the devices give up and connect again",
    seconds: 45,
    quick: false,
    plan: || Plan {
        goal_s: Some(2.0),
        ..Plan::shared()
    },
    inject: |run| {
        let pid = run.broker.pid();
        run.begins();
        stop(pid);
        run.ends();
    },
};

pub(super) static ROCKETMQ_BROKER: Fault = Fault {
    name: "stop-rocketmq-broker",
    about: "RocketMQ's broker stopped for 20 s",
    seconds: 60,
    quick: true,
    plan: || Plan {
        // After the first request without an answer it is asked whether it answers, until it does.
        repeats_max: Repeats::unanswered(6),
        ..Plan::own_rocketmq()
    },
    inject: |run| stop_part(run, Part::Broker),
};

pub(super) static NAMESRV: Fault = Fault {
    name: "stop-namesrv",
    about: "RocketMQ's name server stopped for 20 s",
    seconds: 60,
    quick: false,
    plan: Plan::own_rocketmq,
    inject: |run| stop_part(run, Part::NameServer),
};

fn stop_part(run: &mut Run, part: Part) {
    run.begins();
    run.own_rocketmq().signal(part, libc::SIGSTOP);
    std::thread::sleep(STOPPED);
    run.own_rocketmq().signal(part, libc::SIGCONT);
    run.ends_when_rocketmq_answers();
}
