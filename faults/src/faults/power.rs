//! The power goes: what is on the disk is a copy of the spool, taken while it was in use.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use harness::proc;

use super::flip::files;
use crate::fault::{Fault, Plan, Repeats};
use crate::load::now_ms;
use crate::random::Random;
use crate::run::Run;

const ROUNDS: usize = 3;
/// Where a log's cursor page holds the boot of the machine that wrote it (docs/handoff-format.md).
const BOOT_AT: u64 = 192;

/// With `spool_sync always`, what was acknowledged is on the disk. A copy can't be taken at one moment, so what was
/// acknowledged while it was taken is not counted; what was before is, whether RocketMQ had it by then or it is in the copy.
pub(super) static CUT: Fault = Fault {
    name: "power-cut",
    about: "a copy of the spool, taken file after file under load, started from after both were killed; spool_sync always",
    seconds: 60,
    quick: false,
    plan: || {
        Plan {
            // While the copy was taken, some went to RocketMQ.
            repeats_max: Repeats {
                up: 1_000,
                ..Repeats::MOSQUITTO_DIED
            },
            sums: false,
            ..Plan::shared()
        }
        .broker(|spec| {
            super::kill::saving(spec)
                .option("spool_sync", "always")
                .option("spool_segment_bytes", "256KiB")
        })
    },
    inject: |run| {
        for round in 0..ROUNDS {
            cut(run, round);
            run.flow();
        }
    },
};

fn cut(run: &mut Run, round: usize) {
    let sidecar = run.broker.sidecar_pid();
    std::thread::sleep(Duration::from_millis(run.random.below(1_500)));
    // Every other time there is more in the log than what is on its way.
    if round % 2 == 1 {
        proc::signal(sidecar, libc::SIGSTOP);
        run.flow_up(300);
    }
    let spool = run.broker.spool_dir();
    let copy = spool.with_extension("copy");
    let since = now_ms();
    run.begins();
    copy_of(&spool, &copy, &mut run.random);
    proc::signal(run.broker.pid(), libc::SIGKILL);
    proc::signal(sidecar, libc::SIGKILL);
    run.broker.kill();
    fs::remove_dir_all(&spool).expect("the spool goes");
    fs::rename(&copy, &spool).expect("the copy takes its place");
    // Whoever was about to be acknowledged when Mosquitto died has heard it by now.
    std::thread::sleep(Duration::from_millis(200));
    run.does_not_count_since(since);
    run.broker.start();
    run.ends();
}

/// Copies one file after the other, in any order.
fn copy_of(from: &Path, to: &Path, random: &mut Random) {
    let mut all = files(from);
    random.shuffle(&mut all);
    for path in all {
        let relative = path.strip_prefix(from).expect("a file of the spool");
        let target = to.join(relative);
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        // One that is gone by now was no longer needed.
        if fs::copy(&path, &target).is_ok() && relative.ends_with("cursor") {
            another_boot(&target);
        }
    }
}

/// As if the machine had been started since.
fn another_boot(cursor: &Path) {
    let file = fs::File::options().read(true).write(true).open(cursor);
    let file = file.expect("the copied cursor");
    let mut boot = [0; 8];
    file.read_exact_at(&mut boot, BOOT_AT)
        .expect("a cursor page");
    file.write_all_at(&boot.map(|byte| !byte), BOOT_AT)
        .expect("a cursor page");
}
