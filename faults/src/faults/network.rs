//! The network between the sidecar and RocketMQ swallows packets, which is worse than refusing them: nobody is told.

use std::rc::Rc;
use std::time::Duration;

use harness::Mosquitto;
use harness::rig::Namespace;
use harness::rocketmq::OwnRocketMq;

use crate::fault::{Backbone, Fault, Plan, Repeats, RocketMq};

const DROPPING: Duration = Duration::from_secs(30);

pub(super) static PACKETS_DROPPED: Fault = Fault {
    name: "packets-dropped",
    about: "packets dropped, not refused, for 30 s between the sidecar, in a network namespace, and RocketMQ",
    seconds: 80,
    quick: false,
    plan,
    inject: |run| {
        run.begins();
        run.held::<Rc<Namespace>>().drop_packets();
        std::thread::sleep(DROPPING);
        // The devices don't notice.
        run.flow_up(100);
        let dropped = run.held::<Rc<Namespace>>().pass_packets();
        run.ends();
        assert!(dropped > 0, "no packet was dropped");
        run.note(format!("{dropped} packets dropped"));
    },
};

fn plan() -> Plan {
    let namespace = Rc::new(Namespace::new());
    let servers = namespace.servers();
    let held = Rc::clone(&namespace);
    Plan {
        rocketmq: RocketMq::Made(Box::new(move || {
            let mut rocketmq = OwnRocketMq::stopped().address(servers);
            rocketmq.start();
            let backbone: Box<dyn Backbone> = Box::new(rocketmq);
            backbone
        })),
        holds: vec![Box::new(held)],
        // RocketMQ's own producers go on meanwhile. What has come together is then more at once than 2.0.11 can send to a
        // client of MQTT 5 and QoS 2: it sends more than the client's receive maximum, plugin or not, and the client leaves.
        mosquitto: Some(Mosquitto::V2_0_21),
        // What was swallowed is not stored, and what waits in the kernel goes with its connection.
        repeats_max: Repeats::unanswered(6),
        // RocketMQ itself was never away, so the client's time-outs and TCP's own waiting count here.
        goal_s: Some(5.0),
        ..Plan::own_rocketmq()
    }
    .broker(move |spec| {
        spec.started_by(&namespace.command())
            .address(namespace.inside())
    })
}
