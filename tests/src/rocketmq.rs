//! A RocketMQ of a test's own, for the tests that take it away.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::child::ChildGuard;
use crate::environment::required_path;
use crate::proc;
use crate::wait::comes_true;

// A JVM that starts beside five others on two cores takes its time.
const START_LIMIT: Duration = Duration::from_secs(150);

/// A name server and a broker whose data outlive [`OwnRocketMq::kill`].
#[derive(Debug)]
pub struct OwnRocketMq {
    dir: tempfile::TempDir,
    port: u16,
    address: Ipv4Addr,
    arguments: Vec<String>,
    running: Option<(ChildGuard, ChildStdin)>,
}

impl OwnRocketMq {
    /// One that does not run yet; its address is chosen.
    pub fn stopped() -> OwnRocketMq {
        OwnRocketMq {
            dir: tempfile::tempdir().expect("a temporary folder"),
            port: crate::broker::free_port(),
            address: Ipv4Addr::LOCALHOST,
            arguments: Vec::new(),
            running: None,
        }
    }

    /// Clients reach it by this address of the machine rather than by 127.0.0.1.
    pub fn address(mut self, address: Ipv4Addr) -> OwnRocketMq {
        self.address = address;
        self.arguments
            .extend(["--address".to_owned(), address.to_string()]);
        self
    }

    /// Adds a line of broker.conf, `KEY=VALUE`.
    pub fn setting(mut self, line: &str) -> OwnRocketMq {
        self.arguments.push(line.to_owned());
        self
    }

    /// Its folder. `broker.log` and the broker's `store` are in there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The broker's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn broker_pid(&self) -> u32 {
        read_pid(&self.dir.path().join("broker.pid")).expect("the broker runs")
    }

    /// One that runs.
    pub fn started() -> OwnRocketMq {
        let mut rocketmq = OwnRocketMq::stopped();
        rocketmq.start();
        rocketmq
    }

    /// `HOST:PORT` of the name server.
    pub fn namesrv(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    fn script() -> PathBuf {
        required_path("MRMQ_SCRIPTS").join("rocketmq")
    }

    /// Starts it, with the data of the last run, and waits until it serves.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "RocketMQ runs already");
        let log = std::fs::File::create(self.dir.path().join("script.log")).expect("a log file");
        let mut command = Command::new(Self::script());
        command
            .arg("--dir")
            .arg(self.dir.path())
            .args(["--port", &self.port.to_string()])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut process = ChildGuard::spawn(command, libc::SIGTERM).expect("scripts/rocketmq");
        let input = process.child.stdin.take().expect("a pipe");
        let output = process.child.stdout.take().expect("a pipe");
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with("ready ") {
                    // Nobody waits any more when it came too late.
                    let _ = ready.send(line);
                }
            }
        });
        let line = is_ready.recv_timeout(START_LIMIT).unwrap_or_else(|_| {
            let log =
                std::fs::read_to_string(self.dir.path().join("script.log")).unwrap_or_default();
            panic!("RocketMQ is not ready within {START_LIMIT:?}:\n{log}")
        });
        assert_eq!(line, format!("ready {}", self.namesrv()));
        self.running = Some((process, input));
    }

    /// Starts it where it does not run.
    pub fn ensure_started(&mut self) {
        if self.running.is_none() {
            self.start();
        }
    }

    /// Kills the broker and the name server at once, as a power cut would. Their data stay for the next start.
    ///
    /// There is no end in order: with clients connected that takes RocketMQ half a minute.
    pub fn kill(&mut self) {
        for name in ["broker.pid", "namesrv.pid"] {
            if let Some(pid) = read_pid(&self.dir.path().join(name)) {
                proc::signal(pid, libc::SIGKILL);
                assert!(
                    comes_true(Duration::from_secs(20), || !proc::is_alive(pid)),
                    "{name} {pid} outlived SIGKILL"
                );
            }
        }
        // With both gone the script has nothing left to end.
        drop(self.running.take());
    }
}

impl Drop for OwnRocketMq {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_pid(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
