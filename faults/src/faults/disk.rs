//! The disk of RocketMQ's broker is full, and has room again later.

use std::rc::Rc;
use std::time::Duration;

use harness::rig::SmallDisk;
use harness::rocketmq::OwnRocketMq;
use harness::wait::within;
use harness::{Produced, Topic};

use crate::fault::{Backbone, Fault, Plan, Repeats, RocketMq};
use crate::run::Run;

const DISK: u64 = 512 << 20;
/// What is left when it is full: the broker itself still writes until it looks, every ten seconds from its first minute on.
const LEFT: u64 = 24 << 20;
const LOOKS_WITHIN: Duration = Duration::from_secs(180);
/// So many refusals in a row mean that it is full.
const REFUSALS: u32 = 10;
const FULL: Duration = Duration::from_secs(20);

pub(super) static FULL_DISK: Fault = Fault {
    name: "rocketmq-disk-full",
    about: "the disk of RocketMQ's broker fills up, it refuses to store for 20 s and more, and gets room again",
    seconds: 160,
    quick: false,
    plan,
    inject: full,
};

fn plan() -> Plan {
    let disk = Rc::new(SmallDisk::new(DISK));
    let store = disk.dir().join("store").display().to_string();
    Plan {
        rocketmq: RocketMq::Made(Box::new(move || {
            let mut rocketmq = OwnRocketMq::stopped()
                .setting(&format!("storePathRootDir={store}"))
                .setting(&format!("storePathCommitLog={store}/commitlog"))
                .setting("diskMaxUsedSpaceRatio=85")
                .setting("diskSpaceWarningLevelRatio=90")
                .setting("diskSpaceCleanForciblyRatio=85")
                // What it has is ours to count.
                .setting("cleanFileForciblyEnable=false");
            rocketmq.start();
            let backbone: Box<dyn Backbone> = Box::new(rocketmq);
            backbone
        })),
        // It is slow before it refuses.
        repeats_max: Repeats::unanswered(6),
        holds: vec![Box::new(disk)],
        ..Plan::own_rocketmq()
    }
}

fn full(run: &mut Run) {
    let probe = Topic::named(&run.own_rocketmq().namesrv(), "LEDGER_PROBE");
    let stores = || probe.try_produce(Produced::new("probe"), Duration::from_secs(3));
    within(Duration::from_secs(60), "RocketMQ stores", || {
        stores().then_some(())
    });
    run.held::<Rc<SmallDisk>>().fill(LEFT);
    let mut refused = 0;
    within(LOOKS_WITHIN, "RocketMQ sees that its disk is full", || {
        std::thread::sleep(Duration::from_millis(500));
        // One that is merely late on a busy machine says nothing.
        refused = if stores() { 0 } else { refused + 1 };
        (refused >= REFUSALS).then_some(())
    });
    run.begins();
    std::thread::sleep(FULL);
    assert!(!stores(), "RocketMQ stores with a full disk");
    // The devices don't notice.
    run.flow_up(100);
    run.held::<Rc<SmallDisk>>().make_room();
    run.ends_when_rocketmq_answers();
}
