//! Somebody sets the clock back.

use std::time::Duration;

use harness::Mosquitto;
use harness::rig::Clock;

use crate::fault::{Fault, Plan, Repeats};
use crate::run::Run;

const AN_HOUR: i64 = 3_600;

pub(super) static SET_BACK: Fault = Fault {
    name: "clock-set-back",
    about: "the clock of Mosquitto and the sidecar set back by an hour; then the sidecar killed; then the clock set right",
    seconds: 45,
    quick: true,
    plan,
    inject: set_back,
};

/// The folder of the clock's file goes with it.
struct Held {
    clock: Clock,
    _dir: tempfile::TempDir,
}

fn plan() -> Plan {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Clock::new(dir.path());
    let environment = clock.environment();
    Plan {
        // libfaketime needs the C library of this machine, which the other versions don't run on.
        mosquitto: Some(Mosquitto::V2_0_11),
        holds: vec![Box::new(Held { clock, _dir: dir })],
        // By the sidecar's death, not by the clock: one of the five episodes.
        repeats_max: Repeats {
            up: Repeats::SIDECAR_DIED.up / 5,
            down: 1,
        },
        goal_s: Some(2.0),
        ..Plan::shared()
    }
    .broker(move |spec| {
        environment
            .into_iter()
            .fold(spec, |spec, (name, value)| spec.environment(name, value))
    })
}

fn set_back(run: &mut Run) {
    for seconds in [-AN_HOUR, AN_HOUR, -AN_HOUR] {
        run.begins();
        run.held::<Held>().clock.set(seconds);
        run.ends();
        // Long enough for what is done by the clock every few seconds.
        std::thread::sleep(Duration::from_secs(3));
        run.flow();
    }
    // A new sidecar, which has seen no other time, must not give identities of before once more.
    run.begins();
    let old = run.broker.kill_sidecar();
    run.ends();
    run.wait_for_another_sidecar(old);
    run.flow();
    run.begins();
    run.held::<Held>().clock.set(0);
    run.ends();
    run.flow();
    // That it was set at all.
    let mut reader = run.up_topic.reader();
    reader.poll();
    let hour_ms = AN_HOUR * 1_000;
    let born_early = reader
        .messages
        .iter()
        .filter(|message| message.stored_at_ms - message.born_at_ms > hour_ms / 2)
        .count();
    assert!(born_early > 0, "the sidecar's clock was never set back");
    run.note(format!(
        "{born_early} messages were sent by a clock set back"
    ));
}
