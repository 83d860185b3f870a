//! The runs on the nodes of a cluster.

use harness::{Broker, ClusterSpec, Mosquitto, Topic};

use super::{Grounds, QUEUES, check_afterwards, log, tell_the_log};
use crate::fault::{Backbone, Fault, Plan};
use crate::load::{Listeners, UplinkLoad};
use crate::row::Row;
use crate::run::Run;
use crate::verdict::Verdict;

const FILTER: &str = "load/#";

/// Three nodes, and the load between them.
pub(super) fn run_plan(
    fault: &'static Fault,
    mut plan: Plan,
    versions: [Mosquitto; 3],
    backbone: Box<dyn Backbone>,
    grounds: &Grounds,
) -> Vec<Row> {
    let namesrv = backbone.namesrv();
    let own = super::is_own(backbone.as_ref());
    let mut run = start(fault, &mut plan, versions, backbone);
    let addresses = run.addresses();
    run.listeners = Some(Listeners::start([addresses[2], addresses[0]], plan.rate));
    run.uplink = Some(UplinkLoad::start(&addresses[..2], plan.rate));
    run.flow();
    log(
        fault.name,
        &format!("load flows, on Mosquittos {versions:?}"),
    );
    (fault.inject)(&mut run);
    run.flow();
    let published = run.uplink.take().map(UplinkLoad::stop).unwrap_or_default();
    let listeners = run.listeners.as_ref().expect("they were started");
    let verdict = Verdict {
        run: &run,
        repeats_max: plan.repeats_max,
        goal_s: plan.goal_s,
        recovery_limit_s: plan.recovery_limit_s,
        patience: plan.patience,
        strict: grounds.strict,
    };
    let mut rows = vec![
        verdict.uplink(&published),
        verdict.between(&published, listeners),
    ];
    check_afterwards(&mut run.broker, plan.sums, &mut rows);
    for node in run.others.iter_mut().filter(|node| !node.is_gone()) {
        check_afterwards(node, plan.sums, &mut rows);
    }
    if let Some(row) = rows.first_mut() {
        row.notes.extend(run.notes.iter().cloned());
    }
    if rows.iter().any(|row| !row.passed) {
        for (number, node) in std::iter::once(&run.broker).chain(&run.others).enumerate() {
            tell_the_log(&format!("{}-{number}", fault.name), node, grounds);
        }
    }
    drop(run);
    if own {
        harness::probe::forget(&namesrv);
    }
    rows
}

fn start(
    fault: &'static Fault,
    plan: &mut Plan,
    versions: [Mosquitto; 3],
    backbone: Box<dyn Backbone>,
) -> Run {
    let label = fault.name.to_uppercase().replace('-', "_");
    let namesrv = backbone.namesrv();
    let cluster = ClusterSpec::at(&namesrv, &label).share(FILTER);
    let messages = Topic::create(&namesrv, cluster.messages().name(), QUEUES);
    let node = |version| {
        cluster
            .node(version)
            .quiet()
            .without_waiting_for_rocketmq()
            .option("downlink_from", "earliest")
    };
    let configure = std::mem::replace(&mut plan.broker, Box::new(|spec| spec));
    let first = configure(node(versions[0])).start();
    let others: Vec<Broker> = versions[1..]
        .iter()
        .map(|version| node(*version).start())
        .collect();
    for broker in std::iter::once(&first).chain(&others) {
        broker.wait_until_connected();
    }
    let holds = std::mem::take(&mut plan.holds);
    let topics = [messages.clone(), messages];
    let mut run = Run::new(fault.name, (versions[0], first), backbone, topics, holds);
    run.others = others;
    run
}
