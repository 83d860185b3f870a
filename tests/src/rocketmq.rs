//! A RocketMQ of a test's own, for the tests that take it away, whole or in part.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::child::ChildGuard;
use crate::environment::required_path;
use crate::proc;
use crate::wait::comes_true;

// JVMs that start beside builds on two cores take their time; longer than the script, which knows the reason, gives them.
const START_LIMIT: Duration = Duration::from_secs(600);

/// The two processes of a RocketMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The name server.
    NameServer,
    /// The broker.
    Broker,
}

impl Part {
    /// Both.
    pub const ALL: [Part; 2] = [Part::Broker, Part::NameServer];

    /// As `scripts/rocketmq` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Part::NameServer => "namesrv",
            Part::Broker => "broker",
        }
    }
}

/// A name server and a broker whose data outlive [`OwnRocketMq::kill`].
#[derive(Debug)]
pub struct OwnRocketMq {
    dir: tempfile::TempDir,
    port: u16,
    address: Ipv4Addr,
    arguments: Vec<String>,
    running: Option<Running>,
}

/// `scripts/rocketmq --controlled`.
#[derive(Debug)]
struct Running {
    lines: mpsc::Receiver<String>,
    input: ChildStdin,
    // Last, so that the script has heard of the end of its input when it is killed.
    _script: ChildGuard,
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

    /// One that runs.
    pub fn started() -> OwnRocketMq {
        let mut rocketmq = OwnRocketMq::stopped();
        rocketmq.start();
        rocketmq
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

    /// `HOST:PORT` of the name server.
    pub fn namesrv(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Its folder. `broker.log` and the broker's `store` are in there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn script() -> PathBuf {
        required_path("MRMQ_SCRIPTS").join("rocketmq")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("script.log")).unwrap_or_default()
    }

    /// Starts it, with the data of the last run, and waits until it serves.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "RocketMQ runs already");
        let log = std::fs::File::create(self.dir.path().join("script.log")).expect("a log file");
        let mut command = Command::new(Self::script());
        command
            .arg("--dir")
            .arg(self.dir.path())
            .args(["--port", &self.port.to_string(), "--controlled"])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut script = ChildGuard::spawn(command, libc::SIGTERM).expect("scripts/rocketmq");
        let input = script.child.stdin.take().expect("a pipe");
        let output = script.child.stdout.take().expect("a pipe");
        let (line, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for said in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody waits any more when it came too late.
                let _ = line.send(said);
            }
        });
        let running = Running {
            lines,
            input,
            _script: script,
        };
        let line = self.wait_for_line(&running);
        assert_eq!(line, format!("ready {}", self.namesrv()));
        self.running = Some(running);
    }

    fn wait_for_line(&self, running: &Running) -> String {
        running.lines.recv_timeout(START_LIMIT).unwrap_or_else(|_| {
            panic!(
                "RocketMQ is not ready within {START_LIMIT:?}:\n{}",
                self.log()
            )
        })
    }

    /// Starts it where it does not run, or not the whole of it.
    pub fn ensure_started(&mut self) {
        if self.running.is_none() {
            self.start();
        }
        for part in Part::ALL {
            if self.pid(part).is_none() {
                self.start_part(part);
            }
        }
    }

    /// The process id of one of its two processes, while it runs.
    pub fn pid(&self, part: Part) -> Option<u32> {
        let path = self.dir.path().join(format!("{}.pid", part.name()));
        let pid = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        let process = proc::read(pid).filter(|process| process.state != 'Z')?;
        // The number of one that has ended may be anybody's by now.
        is_at_home(&process, self.dir.path()).then_some(pid)
    }

    /// The broker's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn broker_pid(&self) -> u32 {
        self.pid(Part::Broker).expect("the broker runs")
    }

    /// Sends a signal to one of its two processes.
    ///
    /// # Panics
    /// When that does not run.
    pub fn signal(&self, part: Part, signal: i32) {
        let pid = self.pid(part);
        let sent = pid.is_some_and(|pid| proc::signal(pid, signal));
        assert!(sent, "RocketMQ's {} does not run", part.name());
    }

    /// Kills one of its two processes with SIGKILL; the other one stays.
    pub fn kill_part(&self, part: Part) {
        if let Some(pid) = self.pid(part) {
            proc::signal(pid, libc::SIGKILL);
            assert!(
                comes_true(Duration::from_secs(20), || !proc::is_alive(pid)),
                "{} {pid} outlived SIGKILL",
                part.name()
            );
        }
    }

    /// Starts the one of its two processes that was killed, with the same address and data; waits until it is up.
    ///
    /// # Panics
    /// When the other one was not started by [`OwnRocketMq::start`].
    pub fn start_part(&mut self, part: Part) {
        let mut running = self.running.take().expect("RocketMQ was started");
        writeln!(running.input, "{}", part.name()).expect("scripts/rocketmq listens");
        let line = self.wait_for_line(&running);
        assert_eq!(line, format!("up {}", part.name()));
        self.running = Some(running);
    }

    /// Kills the broker and the name server at once, as a power cut would. Their data stay for the next start.
    ///
    /// There is no end in order: with clients connected that takes RocketMQ half a minute.
    pub fn kill(&mut self) {
        for part in Part::ALL {
            self.kill_part(part);
        }
        // With both gone the script has nothing left to end.
        drop(self.running.take());
    }
}

/// Whether a process is one of RocketMQ's in this folder, as `scripts/rocketmq` starts them.
fn is_at_home(process: &proc::Process, dir: &Path) -> bool {
    process
        .arguments
        .iter()
        .filter_map(|argument| argument.strip_prefix("-Drocketmq.home.dir="))
        .any(|home| {
            let homes = [Path::new(home), dir].map(|path| path.canonicalize().ok());
            homes[0].is_some() && homes[0] == homes[1]
        })
}

impl Drop for OwnRocketMq {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_its_own_folder_is_its_part() {
        let dir = tempfile::tempdir().expect("a folder");
        let process = |home: &str| proc::Process {
            pid: 2,
            parent: 1,
            state: 'S',
            arguments: vec!["java".to_owned(), format!("-Drocketmq.home.dir={home}")],
        };
        let home = dir.path().display().to_string();
        assert!(is_at_home(&process(&home), dir.path()));
        assert!(!is_at_home(&process("/elsewhere"), dir.path()));
        // Whatever runs here is not RocketMQ, though its number stands in the file.
        let rocketmq = OwnRocketMq::stopped();
        let own = std::process::id().to_string();
        std::fs::write(rocketmq.dir().join("broker.pid"), own).expect("a file");
        assert_eq!(rocketmq.pid(Part::Broker), None);
    }
}
