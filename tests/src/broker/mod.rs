//! Mosquitto brokers with the plugin.

mod spec;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use self::spec::BrokerSpec;
use crate::child::ChildGuard;
use crate::environment::{required_path, sidecar};
use crate::mqtt::{Client, ClientOptions, Version};
use crate::proc;
use crate::wait::{DEADLINE, comes_true, eventually};

/// The Mosquitto versions that the plugin supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mosquitto {
    /// Debian bookworm.
    V2_0_11,
    /// Debian bookworm-backports.
    V2_0_21,
    /// Debian sid.
    V2_1_2,
}

impl Mosquitto {
    /// All of them.
    pub const ALL: [Mosquitto; 3] = [Mosquitto::V2_0_11, Mosquitto::V2_0_21, Mosquitto::V2_1_2];

    fn program(self) -> PathBuf {
        required_path(match self {
            Mosquitto::V2_0_11 => "MRMQ_MOSQUITTO_2_0_11",
            Mosquitto::V2_0_21 => "MRMQ_MOSQUITTO_2_0_21",
            Mosquitto::V2_1_2 => "MRMQ_MOSQUITTO_2_1_2",
        })
    }
}

/// A port of loopback that is free now.
pub fn free_port() -> u16 {
    // Below the range from which outgoing connections take theirs, and another one each time: a port that a test gave back
    // for a restart is not handed to the next.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let number = 10_000 + (std::process::id().wrapping_mul(61) + step * 7) % 9_000;
        let port = u16::try_from(number).expect("below 19,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A broker.
#[derive(Debug)]
pub struct Broker {
    /// Its port on [`Broker::address`].
    pub port: u16,
    spec: BrokerSpec,
    dir: tempfile::TempDir,
    process: Option<ChildGuard>,
}

impl Broker {
    /// Where it listens: 127.0.0.1, unless its [`BrokerSpec`] says otherwise.
    pub fn address(&self) -> Ipv4Addr {
        self.spec.address
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its spool.
    pub fn spool_dir(&self) -> PathBuf {
        match self.spec.set("spool_dir") {
            Some(dir) => PathBuf::from(dir),
            None => self.dir().join("spool"),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("mosquitto.log")
    }

    /// Everything it has logged since the folder was made.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of the log that holds all of these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &[&str]) -> String {
        let found = comes_true(DEADLINE, || line_with(&self.log(), words).is_some());
        assert!(
            found,
            "no line of Mosquitto's log has {words:?}:\n{}",
            self.log()
        );
        line_with(&self.log(), words).expect("just seen")
    }

    fn spawn(&mut self) {
        let conf = self.dir().join("mosquitto.conf");
        // A restart is one with the same configuration, node id and all.
        if !conf.exists() {
            fs::write(&conf, self.spec.file(self.dir(), self.port)).expect("a configuration");
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file");
        let program = self.spec.version.program();
        let mut command = match self.spec.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .arg("-c")
            .arg(&conf)
            .envs(self.spec.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        self.process = Some(ChildGuard::spawn(command, libc::SIGKILL).expect("Mosquitto"));
    }

    /// Starts it again, with the same configuration, port and files.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.spawn();
        eventually("Mosquitto serves", || {
            let ended = self
                .process
                .as_mut()
                .and_then(|process| process.wait_for(Duration::ZERO));
            assert!(
                ended.is_none(),
                "Mosquitto ended with {ended:?}:\n{}",
                self.log()
            );
            self.answers().then_some(())
        });
        if self.spec.with_plugin && self.spec.wait_for_rocketmq {
            self.wait_until_connected();
        }
    }

    fn answers(&self) -> bool {
        let address = SocketAddr::from((self.spec.address, self.port));
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    }

    /// Whether the sidecar says that it has reached RocketMQ.
    pub fn is_connected(&self) -> bool {
        self.status()
            .is_some_and(|status| find(&status, "connected") == Some(&Value::Bool(true)))
    }

    /// Waits until the sidecar says that it has reached RocketMQ.
    #[track_caller]
    pub fn wait_until_connected(&self) {
        if !comes_true(DEADLINE, || self.is_connected()) {
            panic!(
                "the sidecar has not reached RocketMQ; status: {:?}; log:\n{}",
                self.status(),
                self.log()
            );
        }
    }

    /// `mosquitto-rocketmq status --json`, while there is a sidecar that answers.
    pub fn status(&self) -> Option<Value> {
        let output = Command::new(sidecar())
            .args(["status", "--json", "--spool-dir"])
            .arg(self.spool_dir())
            .stdin(Stdio::null())
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).ok())?
    }

    /// `mosquitto-rocketmq clients ID --json`: where this node says that a client of its cluster is, or was; nothing while it knows of none.
    pub fn whereabouts(&self, client_id: &str) -> Option<Value> {
        let output = Command::new(sidecar())
            .args(["clients", client_id, "--json", "--spool-dir"])
            .arg(self.spool_dir())
            .stdin(Stdio::null())
            .output()
            .ok()?;
        // The exit code says whether it is connected.
        serde_json::from_slice(&output.stdout).ok()
    }

    /// A number of the status, wherever it stands in it.
    pub fn status_number(&self, name: &str) -> Option<u64> {
        // The command waits a second for the sidecar, which may take longer beside builds.
        let status = (0..20).find_map(|_| self.status())?;
        find(&status, name)?.as_u64()
    }

    /// Mosquitto's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the broker runs").pid()
    }

    /// The sidecar's process id.
    #[track_caller]
    pub fn sidecar_pid(&self) -> u32 {
        let pid = eventually("a sidecar runs", || {
            match proc::sidecars(&self.spool_dir())[..] {
                [pid] => Some(pid),
                _ => None,
            }
        });
        assert_eq!(
            proc::read(pid).map(|process| process.parent),
            Some(self.pid()),
            "the sidecar is Mosquitto's child"
        );
        pid
    }

    /// Kills the sidecar with SIGKILL; returns the process id that it had.
    #[track_caller]
    pub fn kill_sidecar(&self) -> u32 {
        let pid = self.sidecar_pid();
        assert!(proc::signal(pid, libc::SIGKILL), "no sidecar {pid}");
        pid
    }

    /// Has it read its files again.
    pub fn hup(&self) {
        proc::signal(self.pid(), libc::SIGHUP);
    }

    /// Kills it with SIGKILL, as the kernel does when memory is short.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Ends it with SIGTERM; returns its exit status and how long it took.
    #[track_caller]
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut process = self.process.take().expect("the broker runs");
        let start = Instant::now();
        process.signal(libc::SIGTERM);
        let status = process.wait_for(DEADLINE);
        let status =
            status.unwrap_or_else(|| panic!("Mosquitto outlives SIGTERM:\n{}", self.log()));
        (status, start.elapsed())
    }

    /// Whether it was ended here, and not started again.
    pub fn is_gone(&self) -> bool {
        self.process.is_none()
    }

    /// Whether Mosquitto still runs.
    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.wait_for(Duration::ZERO).is_none())
    }

    /// Connects a client with a clean session.
    #[track_caller]
    pub fn client(&self, version: Version, id: &str) -> Client {
        self.connect(&ClientOptions::new(version, id))
    }

    /// Connects a client.
    #[track_caller]
    pub fn connect(&self, options: &ClientOptions) -> Client {
        Client::connect(self.port, &options.clone().address(self.spec.address))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The folder goes with the test, and its log is what tells why.
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of {}:", self.log_path().display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
            if let Some(status) = self.status() {
                eprintln!("--- its status: {status}");
            }
        }
        self.kill();
        // Before the folder goes, so that no sidecar is left to write there.
        let spool_dir = self.spool_dir();
        if !comes_true(Duration::from_secs(15), || {
            proc::sidecars(&spool_dir).is_empty()
        }) {
            for pid in proc::sidecars(&spool_dir) {
                proc::signal(pid, libc::SIGKILL);
            }
        }
    }
}

/// The first line of a log that holds all of these words.
pub fn line_with(log: &str, words: &[&str]) -> Option<String> {
    log.lines()
        .find(|line| words.iter().all(|word| line.contains(word)))
        .map(str::to_owned)
}

/// The first value of this name, in the object or in one inside it.
pub fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields
            .get(name)
            .or_else(|| fields.values().find_map(|field| find(field, name))),
        Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        _ => None,
    }
}
