//! Mosquitto brokers with the plugin.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::child::ChildGuard;
use crate::environment::{plugin, required_path, shared_namesrv, sidecar};
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

/// How a broker is to be started.
#[derive(Debug, Clone)]
pub struct BrokerSpec {
    version: Mosquitto,
    global: Vec<String>,
    conf: Vec<String>,
    options: Vec<(String, String)>,
    with_plugin: bool,
    wait_for_rocketmq: bool,
    environment: Vec<(String, String)>,
    prefix: Vec<String>,
    address: Ipv4Addr,
}

impl BrokerSpec {
    /// A broker with the plugin and the shared RocketMQ.
    pub fn new(version: Mosquitto) -> BrokerSpec {
        BrokerSpec {
            version,
            global: Vec::new(),
            conf: vec!["allow_anonymous true".to_owned()],
            options: Vec::new(),
            with_plugin: true,
            wait_for_rocketmq: true,
            environment: Vec::new(),
            prefix: Vec::new(),
            address: Ipv4Addr::LOCALHOST,
        }
    }

    /// Sets an environment variable of Mosquitto, which its sidecar inherits.
    pub fn environment(mut self, name: &str, value: impl Into<String>) -> BrokerSpec {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it by this command, which has to become Mosquitto rather than start it: `ip netns exec NAMESPACE`.
    pub fn started_by(mut self, command: &[&str]) -> BrokerSpec {
        self.prefix = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Where it listens, other than 127.0.0.1.
    pub fn address(mut self, address: Ipv4Addr) -> BrokerSpec {
        self.address = address;
        self
    }

    /// Sets an option of the plugin, over its default here where it has one (`namesrv`, `node_id`, `spool_dir`, `sidecar_path`).
    pub fn option(mut self, name: &str, value: impl Into<String>) -> BrokerSpec {
        self.options.retain(|(set, _)| set != name);
        self.options.push((name.to_owned(), value.into()));
        self
    }

    /// Leaves out an option that has a default here.
    pub fn without_option(self, name: &str) -> BrokerSpec {
        self.option(name, "")
    }

    /// Adds an uplink rule.
    pub fn uplink(mut self, rule: impl Into<String>) -> BrokerSpec {
        self.options.push(("uplink".to_owned(), rule.into()));
        self
    }

    /// Adds a downlink rule.
    pub fn downlink(mut self, rule: impl Into<String>) -> BrokerSpec {
        self.options.push(("downlink".to_owned(), rule.into()));
        self
    }

    /// Adds a line of mosquitto.conf, behind the listener.
    pub fn conf(mut self, line: impl Into<String>) -> BrokerSpec {
        self.conf.push(line.into());
        self
    }

    /// Adds a line of mosquitto.conf, before the listener.
    pub fn global_conf(mut self, line: impl Into<String>) -> BrokerSpec {
        self.global.push(line.into());
        self
    }

    /// No anonymous clients.
    pub fn no_anonymous(mut self) -> BrokerSpec {
        self.conf
            .retain(|line| !line.starts_with("allow_anonymous"));
        self.conf("allow_anonymous false")
    }

    /// A broker as it is without the plugin.
    pub fn without_plugin(mut self) -> BrokerSpec {
        self.with_plugin = false;
        self
    }

    /// Is up as soon as its port answers, with or without RocketMQ.
    pub fn without_waiting_for_rocketmq(mut self) -> BrokerSpec {
        self.wait_for_rocketmq = false;
        self
    }

    /// Starts it, and waits until it serves (and has reached RocketMQ).
    #[track_caller]
    pub fn start(self) -> Broker {
        self.start_in(tempfile::tempdir().expect("a temporary folder"))
    }

    /// [`BrokerSpec::start`], with its files in this folder.
    #[track_caller]
    pub fn start_in(self, dir: tempfile::TempDir) -> Broker {
        let mut broker = Broker {
            port: free_port(),
            spec: self,
            dir,
            process: None,
        };
        broker.start();
        broker
    }

    /// Starts it in a configuration that has to be refused, and returns its log.
    ///
    /// # Panics
    /// When it starts to serve, or exits with 0.
    #[track_caller]
    pub fn start_refused(self) -> String {
        self.start_refused_in(tempfile::tempdir().expect("a temporary folder"))
    }

    /// [`BrokerSpec::start_refused`], with its files in this folder.
    #[track_caller]
    pub fn start_refused_in(self, dir: tempfile::TempDir) -> String {
        let mut broker = Broker {
            port: free_port(),
            spec: self,
            dir,
            process: None,
        };
        broker.spawn();
        let mut process = broker.process.take().expect("it was started");
        let status = eventually("Mosquitto gives up", || {
            assert!(
                !broker.answers(),
                "Mosquitto serves, with a configuration that it has to refuse"
            );
            process.wait_for(Duration::ZERO)
        });
        let log = broker.log();
        assert!(
            !status.success(),
            "Mosquitto gave up, but with success:\n{log}"
        );
        assert!(
            status.code().is_some(),
            "Mosquitto was killed by a signal ({status}):\n{log}"
        );
        log
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
        match self
            .spec
            .options
            .iter()
            .find(|(name, _)| name == "spool_dir")
        {
            Some((_, dir)) => PathBuf::from(dir),
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

    fn conf(&self) -> String {
        let dir = self.dir().display();
        let mut conf = String::new();
        for line in &self.spec.global {
            writeln!(conf, "{line}").expect("a String takes it");
        }
        write!(
            conf,
            "user root\nlog_dest stderr\nlog_type all\npersistence true\npersistence_location {dir}/\nmax_queued_messages 0\n\
             listener {} {}\n",
            self.port, self.spec.address
        )
        .expect("a String takes it");
        for line in &self.spec.conf {
            writeln!(conf, "{line}").expect("a String takes it");
        }
        if self.spec.with_plugin {
            writeln!(conf, "plugin {}", plugin().display()).expect("a String takes it");
            for (name, value) in self.options() {
                writeln!(conf, "plugin_opt_{name} {value}").expect("a String takes it");
            }
        }
        conf
    }

    fn options(&self) -> Vec<(String, String)> {
        let defaults = [
            ("namesrv", shared_namesrv()),
            (
                "node_id",
                crate::probe::unique("node")
                    .replace('_', "-")
                    .to_lowercase(),
            ),
            ("spool_dir", self.dir().join("spool").display().to_string()),
            ("sidecar_path", sidecar().display().to_string()),
        ];
        let mut options: Vec<(String, String)> = defaults
            .into_iter()
            .filter(|(name, _)| !self.spec.options.iter().any(|(set, _)| set == name))
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        options.extend(
            self.spec
                .options
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .cloned(),
        );
        options
    }

    fn spawn(&mut self) {
        let conf = self.dir().join("mosquitto.conf");
        // A restart is one with the same configuration, node id and all.
        if !conf.exists() {
            fs::write(&conf, self.conf()).expect("a configuration");
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

    /// A number of the status, wherever it stands in it.
    pub fn status_number(&self, name: &str) -> Option<u64> {
        find(&self.status()?, name)?.as_u64()
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
