//! `kill -9` of each process.

use std::time::Duration;

use harness::rocketmq::Part;
use harness::{BrokerSpec, proc};

use crate::fault::{Fault, Plan, Repeats};
use crate::run::Run;

/// How often a process is killed in one run.
const TIMES: usize = 3;
/// How long RocketMQ's processes stay away.
const AWAY: Duration = Duration::from_secs(8);

pub(super) static SIDECAR: Fault = Fault {
    name: "kill-sidecar",
    about: "kill -9 of the sidecar, three times",
    seconds: 30,
    quick: true,
    plan: || Plan {
        repeats_max: Repeats::SIDECAR_DIED,
        goal_s: Some(2.0),
        ..Plan::shared()
    },
    inject: |run| {
        for _ in 0..TIMES {
            kill_sidecar(run);
            run.flow();
        }
    },
};

fn kill_sidecar(run: &mut Run) {
    run.begins();
    let old = run.broker.kill_sidecar();
    run.ends();
    run.wait_for_another_sidecar(old);
}

/// Mosquitto keeps its sessions and queues in memory, and writes them down when told to: without this, what it has taken from
/// RocketMQ for a device that is not here dies with it.
pub(crate) fn saving(spec: BrokerSpec) -> BrokerSpec {
    spec.global_conf("autosave_on_changes true")
        .global_conf("autosave_interval 1")
        .option("downlink_release_delay", "5s")
}

fn mosquitto_plan() -> Plan {
    Plan {
        repeats_max: Repeats::MOSQUITTO_DIED,
        goal_s: Some(2.0),
        ..Plan::shared()
    }
    .broker(saving)
}

pub(super) static MOSQUITTO: Fault = Fault {
    name: "kill-mosquitto",
    about: "kill -9 of Mosquitto, three times, started again at once; it saves its sessions at each change",
    seconds: 40,
    quick: true,
    plan: mosquitto_plan,
    inject: |run| {
        for _ in 0..TIMES {
            run.begins();
            run.broker.kill();
            run.broker.start();
            run.ends();
            run.flow();
        }
    },
};

pub(super) static BOTH: Fault = Fault {
    name: "kill-both",
    about: "kill -9 of Mosquitto and its sidecar at once, three times, started again at once",
    seconds: 40,
    quick: false,
    plan: mosquitto_plan,
    inject: |run| {
        for _ in 0..TIMES {
            let sidecar = run.broker.sidecar_pid();
            run.begins();
            proc::signal(run.broker.pid(), libc::SIGKILL);
            proc::signal(sidecar, libc::SIGKILL);
            run.broker.kill();
            run.broker.start();
            run.ends();
            run.flow();
        }
    },
};

pub(super) static ROCKETMQ_BROKER: Fault = Fault {
    name: "kill-rocketmq-broker",
    about: "kill -9 of RocketMQ's broker, away for 8 s and the time it takes to start",
    seconds: 75,
    quick: true,
    plan: Plan::own_rocketmq,
    inject: |run| away(run, Part::Broker),
};

pub(super) static NAMESRV: Fault = Fault {
    name: "kill-namesrv",
    about: "kill -9 of RocketMQ's name server, away for 8 s and the time it takes to start",
    seconds: 60,
    quick: false,
    plan: Plan::own_rocketmq,
    inject: |run| away(run, Part::NameServer),
};

fn away(run: &mut Run, part: Part) {
    run.begins();
    run.own_rocketmq().kill_part(part);
    std::thread::sleep(AWAY);
    // The devices don't notice.
    run.flow_up(100);
    run.own_rocketmq().start_part(part);
    run.ends_when_rocketmq_answers();
}
