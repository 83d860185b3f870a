//! The master of a pair of brokers dies, and its slave becomes the master.

use harness::eventually;
use harness::rig::RocketMqPair;

use crate::fault::{Backbone, Fault, Plan, Repeats, RocketMq};
use crate::run::Run;

use super::cluster::NODES;

impl Backbone for RocketMqPair {
    fn namesrv(&self) -> String {
        RocketMqPair::namesrv(self)
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

pub(super) static MASTER: Fault = Fault {
    name: "master-switched",
    about: "RocketMQ's master killed, and its slave takes over; the old one comes back as slave, and then takes over itself",
    seconds: 200,
    quick: false,
    plan: || Plan {
        rocketmq: RocketMq::Made(Box::new(|| Box::new(RocketMqPair::start()))),
        repeats_max: Repeats {
            // A master without its slave may be slow to answer until the controller has noticed, and then for `replica_timeout`.
            up: Repeats::unanswered(9).up,
            // A new master may have to be asked again for what the old one had just given: a second's worth.
            down: 100,
        },
        ..Plan::own_rocketmq()
    },
    inject: |run| {
        for _ in 0..2 {
            switch(run);
        }
    },
};

pub(super) static CLUSTER_MASTER: Fault = Fault {
    name: "cluster-master-switched",
    about: "three nodes; one of two name servers killed for good, then RocketMQ's master, and its slave takes over",
    seconds: 160,
    quick: false,
    plan: || {
        let rocketmq =
            || -> Box<dyn Backbone> { Box::new(RocketMqPair::start_with_two_namesrvs()) };
        Plan {
            cluster: Some(NODES),
            rocketmq: RocketMq::Made(Box::new(rocketmq)),
            repeats_max: Repeats {
                down: 100,
                ..Repeats::unanswered(9)
            },
            ..Plan::own_rocketmq()
        }
    },
    inject: |run| {
        let pair: &mut RocketMqPair = run.backbone();
        pair.kill_first_namesrv();
        run.flow();
        switch(run);
    },
};

fn switch(run: &mut Run) {
    let pair: &mut RocketMqPair = run.backbone();
    // Until then, what is acknowledged may be on one broker alone, as RocketMQ's own rules have it.
    pair.wait_until_in_sync();
    let old = eventually("RocketMQ has a master", || pair.master());
    run.begins();
    let pair: &mut RocketMqPair = run.backbone();
    pair.kill_broker(old);
    eventually("the slave has become master", || {
        pair.master().filter(|master| *master != old)
    });
    run.ends_when_rocketmq_answers();
    run.flow();
    let pair: &mut RocketMqPair = run.backbone();
    pair.start_broker(old);
    pair.wait_until_in_sync();
    run.flow();
}
