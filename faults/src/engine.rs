//! Runs one fault: sets it up, has it done under load, waits until everything has arrived, and counts.

mod cluster;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use harness::probe::{self, unique};
use harness::rocketmq::OwnRocketMq;
use harness::wait::{DEADLINE, comes_true};
use harness::{Broker, BrokerSpec, Mosquitto, Topic, proc, sums};

use crate::fault::{Address, Backbone, Fault, Plan, RocketMq};
use crate::load::{DownlinkLoad, UplinkLoad};
use crate::row::{Direction, Row};
use crate::run::{Run, log};
use crate::verdict::Verdict;

const QUEUES: u32 = 4;

/// What the faults of one ledger share.
pub struct Grounds {
    shared: Mutex<Option<OwnRocketMq>>,
    logs: Option<PathBuf>,
    strict: bool,
}

impl Grounds {
    /// Nothing runs yet. In `logs` are kept the logs of what fails. Where it is `strict`, so is [`Plan::goal_s`].
    pub fn new(logs: Option<PathBuf>, strict: bool) -> Grounds {
        Grounds {
            shared: Mutex::default(),
            logs,
            strict,
        }
    }

    fn keep_log(&self, name: &str, text: &str) -> std::io::Result<()> {
        let Some(logs) = &self.logs else {
            return Ok(());
        };
        std::fs::create_dir_all(logs)?;
        std::fs::write(logs.join(format!("{name}.log")), text)
    }

    /// The name server of the RocketMQ that nobody hurts: the one of the environment, else one that is started at the first call.
    fn shared_namesrv(&self) -> String {
        match std::env::var("MRMQ_NAMESRV") {
            Ok(namesrv) if !namesrv.is_empty() => namesrv,
            _ => self
                .shared
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(OwnRocketMq::started)
                .namesrv(),
        }
    }
}

/// Runs a fault, on its plan's Mosquitto or this one. A row for each direction; what went wrong is in the rows.
pub fn run(fault: &'static Fault, mosquitto: Mosquitto, grounds: &Grounds) -> Vec<Row> {
    let mut directions: &[Direction] = &Direction::ALL;
    let started = Instant::now();
    log(fault.name, "begins");
    let rows = catch_unwind(AssertUnwindSafe(|| {
        // It may mount a disk, which not everybody can.
        let plan = (fault.plan)();
        directions = plan.directions;
        run_plan(fault, plan, mosquitto, grounds)
    }));
    let rows = rows.unwrap_or_else(|panic| {
        let why = message_of(&*panic);
        directions
            .iter()
            .map(|direction| Row {
                notes: vec![why.clone()],
                ..Row::empty(fault.name, *direction)
            })
            .collect()
    });
    for row in rows.iter().filter(|row| !row.passed) {
        for note in &row.notes {
            log(fault.name, &format!("{}: {note}", row.direction.name()));
        }
    }
    let outcome = if rows.iter().all(|row| row.passed) {
        "passed"
    } else {
        "FAILED"
    };
    log(
        fault.name,
        &format!("{outcome} after {:.0} s", started.elapsed().as_secs_f64()),
    );
    rows
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    // What follows a line break is a log.
    text.and_then(|text| text.lines().next())
        .unwrap_or("a panic without a message")
        .to_owned()
}

fn run_plan(
    fault: &'static Fault,
    mut plan: Plan,
    mosquitto: Mosquitto,
    grounds: &Grounds,
) -> Vec<Row> {
    let rocketmq = std::mem::replace(&mut plan.rocketmq, RocketMq::Shared);
    let backbone: Box<dyn Backbone> = match rocketmq {
        RocketMq::Shared => Box::new(Address(grounds.shared_namesrv())),
        RocketMq::Made(make) => make(),
    };
    let own = is_own(backbone.as_ref());
    let namesrv = backbone.namesrv();
    let topic = |direction: &str| {
        let label = format!(
            "{}_{direction}",
            fault.name.to_uppercase().replace('-', "_")
        );
        Topic::create(&namesrv, &unique(&label), QUEUES)
    };
    if let Some(versions) = plan.cluster {
        return cluster::run_plan(fault, plan, versions, backbone, grounds);
    }
    let topics = [topic("UP"), topic("DOWN")];
    let version = plan.mosquitto.unwrap_or(mosquitto);
    let spec = BrokerSpec::new(version)
        .quiet()
        .without_waiting_for_rocketmq()
        .option("namesrv", &namesrv)
        .option("downlink_from", "earliest")
        .uplink(format!("load/+ {} key=%c", topics[0].name()))
        .downlink(format!("{} down/%k qos=2", topics[1].name()));
    let broker = (plan.broker)(spec).start();
    broker.wait_until_connected();
    let mut run = Run::new(fault.name, (version, broker), backbone, topics, plan.holds);
    if plan.directions.contains(&Direction::Downlink) {
        let mut downlink = DownlinkLoad::listen(run.address(), &run.down_topic, plan.rate);
        downlink.produce();
        run.downlink = Some(downlink);
    }
    if plan.directions.contains(&Direction::Uplink) {
        run.uplink = Some(UplinkLoad::start(&[run.address()], plan.rate));
    }
    run.flow();
    log(fault.name, &format!("load flows, on Mosquitto {version:?}"));
    (fault.inject)(&mut run);
    run.flow();
    let published = run.uplink.take().map(UplinkLoad::stop);
    let stored = run.downlink.as_mut().map(DownlinkLoad::stop_producing);
    let verdict = Verdict {
        run: &run,
        repeats_max: plan.repeats_max,
        goal_s: plan.goal_s,
        recovery_limit_s: plan.recovery_limit_s,
        patience: plan.patience,
        strict: grounds.strict,
    };
    let mut rows = Vec::new();
    if let Some(published) = &published {
        rows.push(verdict.uplink(published));
    }
    if let (Some(stored), Some(downlink)) = (&stored, &run.downlink) {
        rows.push(verdict.downlink(stored, downlink));
    }
    check_afterwards(&mut run.broker, plan.sums, &mut rows);
    if let Some(row) = rows.first_mut() {
        row.notes.extend(run.notes.iter().cloned());
    }
    if rows.iter().any(|row| !row.passed) {
        tell_the_log(fault.name, &run.broker, grounds);
    }
    drop(run);
    if own {
        probe::forget(&namesrv);
    }
    rows
}

fn is_own(backbone: &dyn Backbone) -> bool {
    backbone.type_id() != std::any::TypeId::of::<Address>()
}

/// Processes, and the counters: every message is in exactly one of them.
fn check_afterwards(broker: &mut Broker, sums: bool, rows: &mut [Row]) {
    let mut problems = Vec::new();
    if broker.is_running() {
        let zombies = proc::zombies_of(broker.pid());
        if !zombies.is_empty() {
            problems.push(format!("Mosquitto has not waited for {zombies:?}"));
        }
    } else {
        problems.push("Mosquitto has ended".to_owned());
    }
    if sums {
        problems.extend(wrong_sums(broker));
    }
    for problem in problems {
        for row in rows.iter_mut() {
            row.passed = false;
            row.notes.push(problem.clone());
        }
    }
}

/// What does not add up once nothing waits any more.
fn wrong_sums(broker: &Broker) -> Vec<String> {
    let mut wrong = Vec::new();
    comes_true(DEADLINE, || {
        let Some(status) = broker.status() else {
            wrong = vec!["no sidecar answers".to_owned()];
            return false;
        };
        wrong = sums::unequal(&status);
        let waiting = sums::waiting(&status);
        if waiting != 0 {
            wrong.push(format!("{waiting} messages wait"));
        }
        wrong.is_empty()
    });
    wrong
}

fn tell_the_log(name: &str, broker: &Broker, grounds: &Grounds) {
    let log_text = broker.log();
    if let Err(problem) = grounds.keep_log(name, &log_text) {
        log(name, &format!("the log can't be kept: {problem}"));
    }
    let lines: Vec<&str> = log_text
        .lines()
        .filter(|line| !line.contains("Saving in-memory database"))
        .collect();
    let from = lines.len().saturating_sub(30);
    for line in &lines[from..] {
        log(name, &format!("mosquitto's log: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NO_DISK: Fault = Fault {
        name: "no-disk",
        about: "",
        seconds: 1,
        quick: false,
        plan: || panic!("mount: only root can do that"),
        inject: |_| {},
    };

    #[test]
    fn a_fault_that_cannot_be_set_up_fails_its_rows_and_no_others() {
        let rows = run(&NO_DISK, Mosquitto::V2_0_11, &Grounds::new(None, false));
        assert_eq!(rows.len(), 2);
        for row in rows {
            assert!(!row.passed);
            assert_eq!(row.notes, ["mount: only root can do that"]);
        }
    }
}
