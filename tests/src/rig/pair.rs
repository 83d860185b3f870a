//! A RocketMQ whose broker has a slave: a name server with the controller in it, and two brokers of one name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::broker::free_port;
use crate::child::ChildGuard;
use crate::environment::required_path;
use crate::probe::{Replicas, replicas};
use crate::wait::{comes_true, within};

// JVMs that start beside others on two cores take their time.
const START_LIMIT: Duration = Duration::from_secs(300);
/// A broker that came back is slow to be asked in.
const SYNC_LIMIT: Duration = Duration::from_secs(600);

/// Which of the two brokers; neither is the master by nature.
pub type Number = usize;

/// A name server with a controller and two brokers. What the master acknowledges is on the slave too, as long as that keeps
/// up (`allAckInSyncStateSet`), and only a broker that has everything becomes master.
#[derive(Debug)]
pub struct RocketMqPair {
    dir: tempfile::TempDir,
    namesrv_port: u16,
    controller_port: u16,
    brokers: [BrokerSeat; 2],
    _namesrv: ChildGuard,
    /// A second name server, which stands before the other one in all lists.
    spare: Option<Spare>,
}

#[derive(Debug)]
struct Spare {
    port: u16,
    process: Option<ChildGuard>,
}

#[derive(Debug)]
struct BrokerSeat {
    port: u16,
    process: Option<ChildGuard>,
}

impl RocketMqPair {
    /// Starts all three, and waits until the slave keeps up with the master.
    pub fn start() -> RocketMqPair {
        RocketMqPair::start_all(false)
    }

    /// The same with a second name server.
    pub fn start_with_two_namesrvs() -> RocketMqPair {
        RocketMqPair::start_all(true)
    }

    fn start_all(has_spare: bool) -> RocketMqPair {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (namesrv_port, controller_port) = (free_port(), free_port());
        let namesrv = start_namesrv(dir.path(), "namesrv", namesrv_port, Some(controller_port));
        let spare = has_spare.then(|| {
            let port = free_port();
            let process = Some(start_namesrv(dir.path(), "spare", port, None));
            wait_for_boot(&dir.path().join("spare.log"));
            Spare { port, process }
        });
        let mut pair = RocketMqPair {
            dir,
            namesrv_port,
            controller_port,
            brokers: [(); 2].map(|()| BrokerSeat {
                port: free_port(),
                process: None,
            }),
            _namesrv: namesrv,
            spare,
        };
        wait_for_boot(&pair.dir.path().join("namesrv.log"));
        for number in 0..2 {
            pair.start_broker(number);
        }
        pair.wait_until_in_sync();
        pair
    }

    /// `HOST:PORT` of the name server; of two, with a `;` between them.
    pub fn namesrv(&self) -> String {
        let last = self.lasting_namesrv();
        match &self.spare {
            Some(spare) => format!("127.0.0.1:{};{last}", spare.port),
            None => last,
        }
    }

    fn lasting_namesrv(&self) -> String {
        format!("127.0.0.1:{}", self.namesrv_port)
    }

    /// Kills the first of two name servers with SIGKILL.
    pub fn kill_first_namesrv(&mut self) {
        let spare = self.spare.as_mut().expect("two name servers");
        drop(spare.process.take());
    }

    fn controller(&self) -> String {
        format!("127.0.0.1:{}", self.controller_port)
    }

    fn home(&self, number: Number) -> PathBuf {
        self.dir.path().join(format!("broker-{number}"))
    }

    /// Starts a broker that does not run, with the data of its last run.
    pub fn start_broker(&mut self, number: Number) {
        assert!(self.brokers[number].process.is_none(), "it runs already");
        let home = self.home(number);
        let (namesrv, controller) = (self.namesrv(), self.controller());
        let conf = broker_conf(&home, self.brokers[number].port, &namesrv, &controller);
        fs::create_dir_all(home.join("store")).expect("a folder");
        fs::write(home.join("broker.conf"), conf).expect("a file");
        let log = home.with_extension("log");
        let flags = ["-Xms192m", "-Xmx384m", "-XX:MaxDirectMemorySize=384m"];
        let class = "org.apache.rocketmq.broker.BrokerStartup";
        let process = start_jvm(class, &home, &home.join("broker.conf"), &log, &flags);
        self.brokers[number].process = Some(process);
        wait_for_boot(&log);
    }

    /// Kills a broker with SIGKILL.
    pub fn kill_broker(&mut self, number: Number) {
        drop(self.brokers[number].process.take());
    }

    /// The brokers' state as the controller has it.
    fn replicas(&self) -> Option<Replicas> {
        replicas(&self.lasting_namesrv(), &self.controller(), BROKER_NAME)
    }

    /// The broker that is master now, as the controller and the name server have it.
    pub fn master(&self) -> Option<Number> {
        let master = self.replicas()?.master?;
        self.brokers
            .iter()
            .position(|broker| master.ends_with(&format!(":{}", broker.port)))
    }

    /// Waits until there is a master, and the other one has all that the master has.
    pub fn wait_until_in_sync(&self) {
        let mut seen = None;
        let in_sync = comes_true(SYNC_LIMIT, || {
            seen = self.replicas();
            seen.as_ref().is_some_and(|seen| seen.in_sync == 2) && self.master().is_some()
        });
        assert!(
            in_sync,
            "both brokers are not in sync within {SYNC_LIMIT:?}: {seen:?}"
        );
    }
}

const BROKER_NAME: &str = "broker-a";

fn start_namesrv(dir: &Path, name: &str, port: u16, controller: Option<u16>) -> ChildGuard {
    let home = dir.join(name);
    fs::create_dir_all(&home).expect("a folder");
    let store = home.display();
    let mut conf = format!(
        "listenPort={port}\nkvConfigPath={store}/kvConfig.json\nconfigStorePath={store}/namesrv.properties\n"
    );
    if let Some(controller) = controller {
        conf += &format!(
            "enableControllerInNamesrv=true\ncontrollerDLegerGroup=group1\ncontrollerDLegerPeers=n0-127.0.0.1:{controller}\n\
             controllerDLegerSelfId=n0\ncontrollerStorePath={store}/controller\nmappedFileSize=10485760\n\
             enableElectUncleanMaster=false\nnotifyBrokerRoleChanged=true\nscanNotActiveBrokerInterval=1000\n"
        );
    }
    fs::write(home.join("ns.conf"), conf).expect("a file");
    let class = "org.apache.rocketmq.namesrv.NamesrvStartup";
    let flags = ["-Xms64m", "-Xmx256m", "-XX:MaxDirectMemorySize=256m"];
    let log = home.with_extension("log");
    start_jvm(class, &home, &home.join("ns.conf"), &log, &flags)
}

fn broker_conf(home: &Path, port: u16, namesrv: &str, controller: &str) -> String {
    let home = home.display();
    format!(
        "brokerClusterName=DefaultCluster\nbrokerName={BROKER_NAME}\nbrokerIP1=127.0.0.1\nnamesrvAddr={namesrv}\n\
         listenPort={port}\nstorePathRootDir={home}/store\nstorePathCommitLog={home}/store/commitlog\n\
         mappedFileSizeCommitLog=67108864\nmappedFileSizeConsumeQueue=600000\nmappedFileSizeTimerLog=10485760\n\
         maxHashSlotNum=100000\nmaxIndexNum=400000\nwarmMapedFileEnable=false\ndiskMaxUsedSpaceRatio=95\n\
         diskSpaceWarningLevelRatio=0.97\ndiskSpaceCleanForciblyRatio=0.95\ntimerWheelEnable=false\n\
         autoCreateTopicEnable=true\nautoCreateSubscriptionGroup=true\n\
         enableControllerMode=true\ncontrollerAddr={controller}\nstorePathEpochFile={home}/store/epoch\n\
         storePathBrokerIdentity={home}/store/identity\ninSyncReplicas=2\nminInSyncReplicas=1\nallAckInSyncStateSet=true\n\
         brokerHeartbeatInterval=500\ncontrollerHeartBeatTimeoutMills=5000\nhaSendHeartbeatInterval=1000\n"
    )
}

fn start_jvm(class: &str, home: &Path, conf: &Path, log: &Path, flags: &[&str]) -> ChildGuard {
    let lib = required_path("MRMQ_ROCKETMQ_LIB");
    let log = fs::File::create(log).expect("a log file");
    let mut command = Command::new("java");
    command
        .args([
            "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
            "--add-opens=java.base/java.nio=ALL-UNNAMED",
            "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
            "--add-opens=java.base/java.util=ALL-UNNAMED",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-Djava.net.preferIPv4Stack=true",
        ])
        .args(flags)
        .arg(format!("-Drocketmq.home.dir={}", home.display()))
        .arg(format!("-Duser.home={}", home.display()))
        .arg(format!("-Djava.io.tmpdir={}", home.display()))
        .args(["-cp", &format!("{}/*", lib.display()), class, "-c"])
        .arg(conf)
        .env("ROCKETMQ_HOME", home)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log);
    ChildGuard::spawn(command, libc::SIGKILL).expect("java")
}

/// An open port alone is too early.
fn wait_for_boot(log: &Path) {
    let what = format!("`boot success` in {}", log.display());
    within(START_LIMIT, &what, || {
        let said = fs::read_to_string(log).ok()?;
        said.contains("boot success").then_some(())
    });
}
