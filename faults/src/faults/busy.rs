//! RocketMQ's broker is there and answers, but slowly, and "system busy".

use std::time::{Duration, Instant};

use harness::rocketmq::{OwnRocketMq, Part};
use harness::{Mosquitto, proc};

use crate::fault::{Backbone, Fault, Plan, Repeats, RocketMq};
use crate::run::Run;

const LENGTH: Duration = Duration::from_secs(45);
/// In turns, so that what comes meanwhile waits for longer than the broker lets it wait.
const STOPPED: Duration = Duration::from_millis(700);
const RUNNING: Duration = Duration::from_millis(300);

/// As the sidecar words RocketMQ's answer.
const BUSY: &str = "RocketMQ is busy";

pub(super) static SLOW_AND_BUSY: Fault = Fault {
    name: "broker-slow-busy",
    about: "RocketMQ's broker runs three tenths of each second for 45 s, with short queues: slow answers, and \"busy\" ones",
    seconds: 100,
    quick: false,
    plan: || Plan {
        rocketmq: RocketMq::Made(Box::new(|| {
            let mut rocketmq = OwnRocketMq::stopped()
                .setting("waitTimeMillsInSendQueue=20")
                .setting("sendThreadPoolQueueCapacity=4")
                .setting("osPageCacheBusyTimeOutMills=5");
            rocketmq.start();
            let backbone: Box<dyn Backbone> = Box::new(rocketmq);
            backbone
        })),
        // Not 2.0.11, for the reason that `packets-dropped` has.
        mosquitto: Some(Mosquitto::V2_1_2),
        // It is never away for as long as a request may take, but two such times may fall together on a busy machine.
        repeats_max: Repeats::unanswered(6),
        ..Plan::own_rocketmq()
    },
    inject: slow_and_busy,
};

fn slow_and_busy(run: &mut Run) {
    let busy = |run: &Run| run.broker.log().matches(BUSY).count();
    let before = busy(run);
    let broker = run.own_rocketmq().pid(Part::Broker).expect("it runs");
    run.begins();
    let until = Instant::now() + LENGTH;
    while Instant::now() < until {
        proc::signal(broker, libc::SIGSTOP);
        std::thread::sleep(STOPPED);
        proc::signal(broker, libc::SIGCONT);
        std::thread::sleep(RUNNING);
    }
    run.ends_when_rocketmq_answers();
    let times = busy(run) - before;
    assert!(times > 0, "RocketMQ never said that it is busy");
    run.note(format!(
        "the sidecar began {times} times to wait because RocketMQ was busy"
    ));
}
