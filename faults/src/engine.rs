//! Runs one fault: sets it up, has it done under load, waits until everything has arrived, and counts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::probe::{self, Reader, unique};
use harness::rocketmq::OwnRocketMq;
use harness::wait::{DEADLINE, comes_true};
use harness::{Broker, BrokerSpec, Mosquitto, Stored as InRocketMq, Topic, proc, sums};

use crate::count::{self, Acked, Count};
use crate::fault::{Address, Backbone, Fault, Plan, RocketMq};
use crate::load::{Arrival, DownlinkLoad, Published, Stored, UplinkLoad};
use crate::row::{Direction, Row};
use crate::run::{Run, log};

const QUEUES: u32 = 4;
const POLL_PAUSE: Duration = Duration::from_millis(250);
/// After everything has arrived: what comes again comes soon.
const QUIET: Duration = Duration::from_secs(2);

/// What the faults of one ledger share.
pub struct Grounds {
    shared: Mutex<Option<OwnRocketMq>>,
    logs: Option<PathBuf>,
}

impl Grounds {
    /// Nothing runs yet. In `logs` are kept the logs of what fails.
    pub fn new(logs: Option<PathBuf>) -> Grounds {
        Grounds {
            shared: Mutex::default(),
            logs,
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
    let plan = (fault.plan)();
    let directions = plan.directions;
    let started = Instant::now();
    log(fault.name, "begins");
    let rows = catch_unwind(AssertUnwindSafe(|| {
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
    plan: Plan,
    mosquitto: Mosquitto,
    grounds: &Grounds,
) -> Vec<Row> {
    let backbone: Box<dyn Backbone> = match plan.rocketmq {
        RocketMq::Shared => Box::new(Address(grounds.shared_namesrv())),
        RocketMq::Made(make) => make(),
    };
    let own = backbone.as_ref().type_id() != std::any::TypeId::of::<Address>();
    let namesrv = backbone.namesrv();
    let topic = |direction: &str| {
        let label = format!(
            "{}_{direction}",
            fault.name.to_uppercase().replace('-', "_")
        );
        Topic::create(&namesrv, &unique(&label), QUEUES)
    };
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
    let mut run = Run::new(fault.name, broker, backbone, topics, plan.holds);
    if plan.directions.contains(&Direction::Downlink) {
        let mut downlink = DownlinkLoad::listen(run.address(), &run.down_topic, plan.rate);
        downlink.produce();
        run.downlink = Some(downlink);
    }
    if plan.directions.contains(&Direction::Uplink) {
        run.uplink = Some(UplinkLoad::start(run.address(), plan.rate));
    }
    run.flow();
    log(fault.name, &format!("load flows, on Mosquitto {version:?}"));
    (fault.inject)(&mut run);
    run.flow();
    let published = run.uplink.take().map(UplinkLoad::stop);
    let stored = run.downlink.as_mut().map(DownlinkLoad::stop_producing);
    let verdict = Verdict {
        repeats_max: plan.repeats_max * run.episodes.len().max(1),
        goal_s: plan.goal_s,
        recovery_limit_s: plan.recovery_limit_s,
    };
    let mut rows = Vec::new();
    if let Some(published) = &published {
        rows.push(uplink_row(&run, published, plan.patience, &verdict));
    }
    if let (Some(stored), Some(downlink)) = (&stored, &run.downlink) {
        rows.push(downlink_row(
            &run,
            stored,
            downlink,
            plan.patience,
            &verdict,
        ));
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

struct Verdict {
    repeats_max: usize,
    goal_s: Option<f64>,
    recovery_limit_s: f64,
}

/// Polls until nothing is missing, or nothing new has come for `patience`; then until it is quiet.
fn settle(patience: Duration, mut poll: impl FnMut() -> (usize, bool)) {
    let mut last = (0, Instant::now());
    loop {
        let (arrived, complete) = poll();
        if arrived != last.0 {
            last = (arrived, Instant::now());
        }
        if last.1.elapsed() > if complete { QUIET } else { patience } {
            return;
        }
        std::thread::sleep(POLL_PAUSE);
    }
}

/// Whether what was acknowledged then is held against the product.
fn counts(run: &Run, at: i64) -> bool {
    !run.uncounted
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&at))
}

fn as_arrivals(stored: &[InRocketMq]) -> Vec<Arrival> {
    stored
        .iter()
        .filter_map(|message| {
            Some(Arrival {
                number: harness::ledger::number(&message.body)?,
                identity: message.property("mqtt_id").unwrap_or_default().to_owned(),
                again: false,
                at_ms: message.stored_at_ms,
            })
        })
        .collect()
}

fn uplink_row(run: &Run, published: &Published, patience: Duration, verdict: &Verdict) -> Row {
    let acked: Acked = published
        .acked
        .iter()
        .filter(|(_, at)| counts(run, **at))
        .map(|(number, _)| (*number, None))
        .collect();
    let mut reader: Reader = run.up_topic.reader();
    let all = |reader: &Reader| {
        let mut arrivals = as_arrivals(&run.read_before);
        arrivals.extend(as_arrivals(&reader.messages));
        arrivals
    };
    settle(patience, || {
        reader.poll();
        let counted = count::count(&acked, &all(&reader));
        (reader.messages.len(), counted.lost.is_empty())
    });
    let arrivals = all(&reader);
    let counted = count::count(&acked, &arrivals);
    let mut row = row(run, Direction::Uplink, &counted, verdict);
    row.sent = published.sent;
    row.acked = acked.len();
    row.recovery_s = recovery(run, |episode| {
        count::recovery_s(episode, &published.acked, &arrivals)
    });
    let unexplained: Vec<_> = count::identities(&arrivals)
        .into_iter()
        .map(|(number, identities)| {
            let sendings = published.transmissions.get(&number).copied().unwrap_or(1);
            (number, sendings, identities)
        })
        .filter(|(_, sendings, identities)| identities.len() > *sendings as usize)
        .collect();
    if !unexplained.is_empty() {
        let what = "arrived under more identities than the device sent them times; number, times, identities:";
        let some = &unexplained[..unexplained.len().min(4)];
        fail(&mut row, format!("{} {what} {some:?}", unexplained.len()));
    }
    // One that was sent twice may have been taken the first time, and refused when it was sent again.
    let refused: Vec<_> = arrivals
        .iter()
        .filter(|arrival| !published.transmissions.contains_key(&arrival.number))
        .filter_map(|arrival| Some((arrival.number, published.refused.get(&arrival.number)?)))
        .collect();
    if let Some(some) = refused.chunks(4).next() {
        let what = "arrived that the device was told are refused; number, reason:";
        fail(&mut row, format!("{} {what} {some:?}", refused.len()));
    }
    let again: u32 = published
        .transmissions
        .values()
        .map(|times| times - 1)
        .sum();
    log(
        run.name,
        &format!(
            "uplink: {counted}; {} refused; the devices sent {again} again",
            published.refused.len()
        ),
    );
    judge_recovery(run, &mut row, verdict);
    row
}

fn downlink_row(
    run: &Run,
    stored: &Stored,
    downlink: &DownlinkLoad,
    patience: Duration,
    verdict: &Verdict,
) -> Row {
    let acked: Acked = stored
        .acked
        .iter()
        .filter(|(_, (_, at))| counts(run, *at))
        .map(|(number, (attempt, _))| (*number, Some(attempt.clone())))
        .collect();
    settle(patience, || {
        let arrivals = downlink.arrivals();
        let counted = count::count(&acked, &arrivals);
        (arrivals.len(), counted.lost.is_empty())
    });
    let arrivals = downlink.arrivals();
    let counted = count::count(&acked, &arrivals);
    let mut row = row(run, Direction::Downlink, &counted, verdict);
    row.sent = stored.sent;
    row.acked = acked.len();
    let acked_at = stored
        .acked
        .iter()
        .map(|(number, (_, at))| (*number, *at))
        .collect();
    row.recovery_s = recovery(run, |episode| {
        count::recovery_s(episode, &acked_at, &arrivals)
    });
    log(run.name, &format!("downlink: {counted}"));
    judge_recovery(run, &mut row, verdict);
    row
}

/// The longest of all episodes; infinite where it did not go on.
fn recovery(run: &Run, of: impl Fn(count::Episode) -> Option<f64>) -> Option<f64> {
    run.episodes
        .iter()
        .map(|episode| of(*episode).unwrap_or(f64::INFINITY))
        .reduce(f64::max)
}

fn row(run: &Run, direction: Direction, counted: &Count, verdict: &Verdict) -> Row {
    let mut row = Row {
        arrived: counted.arrived,
        lost: counted.lost.len(),
        duplicated: counted.duplicated,
        reordered: counted.reordered,
        passed: true,
        ..Row::empty(run.name, direction)
    };
    if row.lost > 0 {
        let some = &counted.lost[..counted.lost.len().min(8)];
        fail(&mut row, format!("lost are {some:?} …"));
    }
    if row.reordered > 0 {
        fail(&mut row, "not in order");
    }
    if row.duplicated > verdict.repeats_max {
        let max = verdict.repeats_max;
        fail(&mut row, format!("more than {max} repetitions"));
    }
    row
}

fn judge_recovery(run: &Run, row: &mut Row, verdict: &Verdict) {
    let Some(seconds) = row.recovery_s else {
        return;
    };
    if seconds > verdict.recovery_limit_s {
        fail(row, format!("went on after {seconds} s"));
    } else if let Some(goal) = verdict.goal_s.filter(|goal| seconds > *goal) {
        row.notes
            .push(format!("goal missed: to go on within {goal} s"));
    }
    if row.recovery_s.is_some_and(f64::is_infinite) {
        // JSON has no infinity.
        row.recovery_s = None;
    }
    for note in &row.notes {
        log(run.name, &format!("{}: {note}", row.direction.name()));
    }
}

fn fail(row: &mut Row, why: impl Into<String>) {
    row.passed = false;
    row.notes.push(why.into());
}
