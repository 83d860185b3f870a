//! The soak: load for long, and every few seconds something that fails, chosen at random; then the account that every fault gets.
//!
//! In the last third nothing of ours is killed, so that the memory of one long life is seen.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harness::rocketmq::Part;
use harness::{Mosquitto, proc};

use crate::engine::{self, Grounds};
use crate::fault::{Fault, Plan, Repeats};
use crate::faults;
use crate::memory;
use crate::row::Row;
use crate::run::{Run, log};

/// How long it takes; setting up and counting come to it.
static LENGTH: OnceLock<Duration> = OnceLock::new();

/// How long a process is stopped.
const STOPPED: Duration = Duration::from_secs(6);
/// Between two acts at least.
const PAUSE: Duration = Duration::from_secs(4);

static SOAK: Fault = Fault {
    name: "soak",
    about: "load for long, with kills, stops, reloads and outages at random",
    seconds: 1800,
    quick: false,
    plan: || {
        Plan {
            // Whichever of its acts repeats most in each direction.
            repeats_max: Repeats {
                up: Repeats::unanswered(9).up,
                ..Repeats::MOSQUITTO_DIED
            },
            patience: Duration::from_secs(120),
            recovery_limit_s: 120.0,
            goal_s: None,
            ..Plan::own_rocketmq()
        }
        .broker(faults::saving)
    },
    inject: soak,
};

/// Runs a soak of this length.
pub fn run(length: Duration, grounds: &Grounds) -> Vec<Row> {
    LENGTH.get_or_init(|| length);
    engine::run(&SOAK, Mosquitto::V2_0_11, grounds)
}

/// Something that happens, and how.
type Act = (&'static str, fn(&mut Run));

/// What may happen. Those before [`GENTLE`] end a process of ours.
const ACTS: [Act; 7] = [
    ("kill -9 of the sidecar", kill_sidecar),
    ("kill -9 of Mosquitto", kill_mosquitto),
    ("kill -9 of both", kill_both),
    ("rules read again", |run| run.broker.hup()),
    ("the sidecar stopped", |run| {
        let pid = run.broker.sidecar_pid();
        stop(pid);
    }),
    ("RocketMQ's broker stopped", |run| {
        run.own_rocketmq().signal(Part::Broker, libc::SIGSTOP);
        std::thread::sleep(STOPPED);
        run.own_rocketmq().signal(Part::Broker, libc::SIGCONT);
    }),
    ("kill -9 of RocketMQ's broker", |run| {
        run.own_rocketmq().kill_part(Part::Broker);
        run.flow_up(100);
        run.own_rocketmq().start_part(Part::Broker);
    }),
];
const GENTLE: usize = 3;

fn soak(run: &mut Run) {
    let length = LENGTH.get().copied().unwrap_or_default();
    let start = Instant::now();
    act_until(run, start + length * 2 / 3, 0);
    memory::watched(run, |run| act_until(run, start + length, GENTLE));
}

fn act_until(run: &mut Run, until: Instant, from: usize) {
    while Instant::now() < until {
        let choice = run.random.below((ACTS.len() - from) as u64);
        let (name, act) = ACTS[from + usize::try_from(choice).unwrap_or(0)];
        log(run.name, name);
        run.begins();
        act(run);
        run.ends_when_rocketmq_answers();
        run.flow();
        std::thread::sleep(PAUSE + Duration::from_millis(run.random.below(8_000)));
    }
}

fn kill_sidecar(run: &mut Run) {
    let old = run.broker.kill_sidecar();
    run.wait_for_another_sidecar(old);
}

fn kill_mosquitto(run: &mut Run) {
    run.broker.kill();
    run.broker.start();
}

fn kill_both(run: &mut Run) {
    let sidecar = run.broker.sidecar_pid();
    proc::signal(sidecar, libc::SIGKILL);
    kill_mosquitto(run);
}

fn stop(pid: u32) {
    assert!(proc::signal(pid, libc::SIGSTOP), "process {pid} is gone");
    std::thread::sleep(STOPPED);
    assert!(proc::signal(pid, libc::SIGCONT), "process {pid} is gone");
}
