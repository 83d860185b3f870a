//! Somebody deletes the topics.

use std::time::{Duration, Instant};

use harness::rocketmq::OwnRocketMq;
use harness::{Topic, proc};

use crate::fault::{Backbone, Fault, Plan, RocketMq};
use crate::run::Run;

/// Shorter than `topic_missing_timeout`, after which a message of a topic that nobody creates again is a dead letter.
const MISSING: Duration = Duration::from_secs(20);
const QUEUES: u32 = 4;

pub(super) static DELETED: Fault = Fault {
    name: "topic-deleted",
    about: "both topics deleted, and created again after 20 s, within topic_missing_timeout",
    seconds: 90,
    quick: false,
    plan: || Plan {
        rocketmq: RocketMq::Made(Box::new(|| made("autoCreateTopicEnable=false"))),
        ..Plan::own_rocketmq()
    },
    inject: |run| {
        run.begins();
        delete(run);
        std::thread::sleep(MISSING);
        // The devices don't notice.
        run.flow_up(100);
        let namesrv = run.own_rocketmq().namesrv();
        for topic in [&run.up_topic, &run.down_topic] {
            Topic::create(&namesrv, topic.name(), QUEUES);
        }
        run.ends();
    },
};

pub(super) static AUTO_CREATED: Fault = Fault {
    name: "topic-auto-created",
    about: "both topics deleted, where RocketMQ creates what is missing by itself",
    seconds: 80,
    quick: false,
    plan: || Plan {
        rocketmq: RocketMq::Made(Box::new(|| made("autoCreateTopicEnable=true"))),
        ..Plan::own_rocketmq()
    },
    inject: |run| {
        run.begins();
        delete(run);
        run.ends();
    },
};

fn made(setting: &str) -> Box<dyn Backbone> {
    // Without its timer wheel, RocketMQ 5.5.0 fails to delete a topic, by a null pointer.
    let mut rocketmq = OwnRocketMq::stopped()
        .setting(setting)
        .setting("timerWheelEnable=true");
    rocketmq.start();
    Box::new(rocketmq)
}

/// Deletes both topics under load. What lies in a topic goes with it, which is no loss of ours: so everything is read before,
/// in a moment in which nothing new is written. The devices publish on meanwhile.
fn delete(run: &mut Run) {
    let sidecar = run.broker.sidecar_pid();
    let waiting = run.downlink.as_ref().expect("the plan has a downlink");
    let paused = waiting.pause();
    waiting.wait_until_all_has_arrived();
    assert!(proc::signal(sidecar, libc::SIGSTOP), "no sidecar {sidecar}");
    let read = read_until_quiet(&run.up_topic);
    run.up_topic.delete();
    run.down_topic.delete();
    assert!(proc::signal(sidecar, libc::SIGCONT), "no sidecar {sidecar}");
    drop(paused);
    run.read_before = read;
}

fn read_until_quiet(topic: &Topic) -> Vec<harness::Stored> {
    const QUIET: Duration = Duration::from_secs(2);
    let mut reader = topic.reader();
    let mut last = Instant::now();
    while last.elapsed() < QUIET {
        if reader.poll() > 0 || reader.last_error.is_some() {
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    reader.messages
}
