//! The spool has no room: its disk is full, or it is at its bound.

use std::time::Duration;

use harness::proc;
use harness::rig::disk::SmallDisk;
use harness::rocketmq::Part;

use crate::fault::{Fault, Plan, Repeats};
use crate::load::Rate;
use crate::run::Run;

/// Fills small segments soon.
const BULKY: Rate = Rate {
    burst: 6,
    payload_bytes: 2_000,
    downlink_per_s: 25,
};
const SEGMENT: &str = "256KiB";
const DISK_BYTES: u64 = 24 << 20;

pub(super) static DISK_FULL: Fault = Fault {
    name: "spool-disk-full",
    about: "the spool's disk full, first while RocketMQ takes everything, then with the sidecar stopped until devices are refused",
    seconds: 60,
    quick: true,
    plan: || {
        let disk = SmallDisk::new(DISK_BYTES);
        let spool = disk.dir().join("spool").display().to_string();
        Plan {
            rate: BULKY,
            // The sidecar is stopped: its requests may run out of time.
            repeats_max: Repeats::UNHEARD,
            holds: vec![Box::new(disk)],
            ..Plan::shared()
        }
        .broker(move |spec| {
            spec.option("spool_dir", spool)
                .option("spool_segment_bytes", SEGMENT)
        })
    },
    inject: |run| {
        let before = refused(run);
        run.begins();
        run.held::<SmallDisk>().fill(0);
        std::thread::sleep(Duration::from_secs(5));
        let sidecar = run.broker.sidecar_pid();
        proc::signal(sidecar, libc::SIGSTOP);
        run.wait_until_refused();
        run.held::<SmallDisk>().make_room();
        proc::signal(sidecar, libc::SIGCONT);
        run.ends();
        assert!(refused(run) > before, "the plugin has refused nothing");
    },
};

pub(super) static FULL: Fault = Fault {
    name: "spool-full",
    about: "the spool at its bound of 4 MiB, because RocketMQ's broker is away: refused, and never acknowledged falsely",
    seconds: 90,
    quick: false,
    plan: || {
        Plan {
            rate: BULKY,
            ..Plan::own_rocketmq()
        }
        .broker(|spec| {
            spec.option("spool_bytes_max", "4MiB")
                .option("spool_segment_bytes", SEGMENT)
        })
    },
    inject: |run| {
        let before = refused(run);
        run.begins();
        run.own_rocketmq().kill_part(Part::Broker);
        run.wait_until_refused();
        run.own_rocketmq().start_part(Part::Broker);
        run.ends_when_rocketmq_answers();
        assert!(refused(run) > before, "the plugin has refused nothing");
    },
};

/// How many messages the plugin has refused because the spool is full.
fn refused(run: &Run) -> u64 {
    let refused = run.broker.status_number("uplink_refused");
    refused.expect("the counter of what was refused")
}
