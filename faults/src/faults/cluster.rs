//! What befalls the nodes of a cluster: one is lost for good, each is restarted in turn, one is cut off from RocketMQ.

use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use harness::child::ChildGuard;
use harness::rig::Namespace;
use harness::rocketmq::OwnRocketMq;
use harness::wait::comes_true;
use harness::{Broker, DEADLINE, Mosquitto, environment, eventually, proc};

use crate::fault::{Backbone, Fault, Plan, Repeats, RocketMq};
use crate::run::Run;

pub(super) const NODES: [Mosquitto; 3] =
    [Mosquitto::V2_0_21, Mosquitto::V2_0_11, Mosquitto::V2_1_2];

fn plan() -> Plan {
    Plan {
        cluster: Some(NODES),
        goal_s: Some(2.0),
        ..Plan::shared()
    }
}

pub(super) static NODE_LOST: Fault = Fault {
    name: "node-lost",
    about: "kill -9 of a node's Mosquitto and of its sidecar, which was stopped before: for good; its devices turn to another node, its spool is drained later",
    seconds: 30,
    quick: true,
    plan: || Plan {
        // Of what was on its way when the sidecar was stopped, the spool does not know that it arrived.
        repeats_max: Repeats {
            down: 0,
            ..Repeats::SIDECAR_DIED
        },
        ..plan()
    },
    inject: |run| {
        let sidecar = run.others[0].sidecar_pid();
        run.begins();
        // So that there is something in the spool that nobody else has.
        proc::signal(sidecar, libc::SIGSTOP);
        run.flow_up(UNSENT);
        proc::signal(run.others[0].pid(), libc::SIGKILL);
        proc::signal(sidecar, libc::SIGKILL);
        run.others[0].kill();
        run.ends();
        eventually("the killed sidecar is gone", || {
            (!proc::is_alive(sidecar)).then_some(())
        });
        run.flow();
        drain(run);
    },
};

/// How many messages all devices have acknowledged before the node is killed: half of them on that node.
const UNSENT: usize = 200;

/// What the lost node had acknowledged and not yet sent lies in its spool, which its disk has kept: a sidecar without a Mosquitto sends it.
/// It comes behind what its devices have published elsewhere since.
fn drain(run: &mut Run) {
    let waiting = waiting_uplink(&run.others[0]);
    let mut command = Command::new(environment::sidecar());
    command
        .args(["sidecar", "--spool-dir"])
        .arg(run.others[0].spool_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut sidecar = ChildGuard::spawn(command, libc::SIGTERM).expect("a sidecar");
    eventually("the lost node's spool is drained", || {
        (waiting_uplink(&run.others[0]) == 0).then_some(())
    });
    sidecar.signal(libc::SIGTERM);
    assert!(
        comes_true(DEADLINE, || sidecar.wait_for(Duration::ZERO).is_some()),
        "the sidecar that drained the spool outlives SIGTERM"
    );
    assert!(waiting > 0, "nothing lay in the lost node's spool");
    run.late_max = waiting;
    run.note(format!(
        "{waiting} messages lay in the spool of the lost node"
    ));
}

fn waiting_uplink(node: &Broker) -> usize {
    let output = Command::new(environment::sidecar())
        .args(["spool", "status", "--json", "--spool-dir"])
        .arg(node.spool_dir())
        .stdin(Stdio::null())
        .output()
        .expect("spool status");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let logs = status.as_array().expect("a list of logs");
    let log = logs.iter().find(|log| log["direction"] == "uplink");
    let messages = log.and_then(|log| log["waiting_messages"].as_u64());
    usize::try_from(messages.expect("a number of messages")).expect("a small number")
}

pub(super) static ROLLING_RESTART: Fault = Fault {
    name: "rolling-restart",
    about: "each node of a cluster in turn ended by SIGTERM and started; its devices turn to another node meanwhile",
    seconds: 60,
    quick: true,
    plan,
    inject: |run| {
        for number in 0..NODES.len() {
            run.begins();
            let node = match number {
                0 => &mut run.broker,
                _ => &mut run.others[number - 1],
            };
            node.terminate();
            node.start();
            node.wait_until_connected();
            run.ends();
            run.flow();
        }
    },
};

const CUT_OFF: Duration = Duration::from_secs(20);

pub(super) static NODE_PARTITIONED: Fault = Fault {
    name: "node-partitioned",
    about: "a node, in a network namespace, cut off from RocketMQ for 20 s by dropped packets; its devices stay",
    seconds: 80,
    quick: false,
    plan: partitioned,
    inject: |run| {
        run.begins();
        run.held::<Rc<Namespace>>().drop_packets();
        std::thread::sleep(CUT_OFF);
        // Neither its devices nor the others notice.
        run.flow_up(100);
        let dropped = run.held::<Rc<Namespace>>().pass_packets();
        run.ends();
        assert!(dropped > 0, "no packet was dropped");
        run.note(format!("{dropped} packets dropped"));
    },
};

fn partitioned() -> Plan {
    let namespace = Rc::new(Namespace::new());
    let servers = namespace.servers();
    let held = Rc::clone(&namespace);
    Plan {
        cluster: Some(NODES),
        rocketmq: RocketMq::Made(Box::new(move || {
            let mut rocketmq = OwnRocketMq::stopped().address(servers);
            rocketmq.start();
            let backbone: Box<dyn Backbone> = Box::new(rocketmq);
            backbone
        })),
        holds: vec![Box::new(held)],
        repeats_max: Repeats::unanswered(6),
        goal_s: Some(5.0),
        ..Plan::own_rocketmq()
    }
    .broker(move |spec| {
        spec.started_by(&namespace.command())
            .address(namespace.inside())
    })
}
