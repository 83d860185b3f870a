//! The faults, one file for each kind.

mod away;
mod backlog;
mod busy;
mod clock;
mod cluster;
mod disk;
mod flip;
mod kill;
mod network;
mod outage_kill;
mod power;
mod service;
mod spool;
mod stop;
mod switch;
mod topic;

use crate::fault::Fault;

pub(crate) use kill::saving;
pub(crate) use outage_kill::SIDECAR as KILL_SIDECAR_IN_OUTAGE;

/// All of them, in the order of the table. The rotation of Mosquitto's versions goes by it, too.
pub static ALL: &[&Fault] = &[
    &kill::SIDECAR,
    &kill::MOSQUITTO,
    &kill::BOTH,
    &outage_kill::SIDECAR,
    &kill::ROCKETMQ_BROKER,
    &kill::NAMESRV,
    &stop::SIDECAR,
    &stop::MOSQUITTO,
    &stop::ROCKETMQ_BROKER,
    &stop::NAMESRV,
    &spool::DISK_FULL,
    &spool::FULL,
    &flip::STOPPED,
    &flip::RUNNING,
    &power::CUT,
    &service::UPGRADED,
    &service::RELOADED,
    &service::STORM,
    &backlog::BACKLOG_50000,
    &network::PACKETS_DROPPED,
    &away::MINUTE,
    &away::TEN_MINUTES,
    &busy::SLOW_AND_BUSY,
    &switch::MASTER,
    &topic::DELETED,
    &topic::AUTO_CREATED,
    &disk::FULL_DISK,
    &clock::SET_BACK,
    &cluster::NODE_LOST,
    &cluster::ROLLING_RESTART,
    &cluster::NODE_PARTITIONED,
    &switch::CLUSTER_MASTER,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn each_name_is_there_once() {
        let names: BTreeSet<_> = ALL.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
