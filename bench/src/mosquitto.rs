//! A real Mosquitto as it is measured: bare, with the do-nothing plugin, or with the bridge.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{self, Guard, Standstill};
use crate::sys;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The sidecar drains when Mosquitto ends, and has a limit of its own for that.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// So much of a log goes with an error.
const LOG_LINES: usize = 15;

/// What Mosquitto loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// No plugin at all.
    Bare,
    /// The plugin of `bench/noop`.
    Noop,
    /// The same, and a thread that sleeps: any plugin with threads makes Mosquitto pay for being a process with several.
    NoopWithThread,
    /// The bridge, with its sidecar.
    Bridge,
}

/// RocketMQ topics of one run. They carry the run's own name, so that a RocketMQ may be used that others use too.
#[derive(Clone)]
pub(crate) struct Topics {
    pub(crate) up: String,
    pub(crate) down: String,
    /// From one node to another.
    pub(crate) through: String,
    pub(crate) load: String,
    /// The same load, by whoever is the reference.
    pub(crate) reference_load: String,
    /// What waits in RocketMQ for devices.
    pub(crate) backlog: String,
    pub(crate) reference: String,
    /// The same beside the cluster.
    pub(crate) cluster_reference: String,
}

impl Topics {
    pub(crate) fn new() -> Self {
        let run = format!("{:x}", sys::unix_nanos() / 1_000_000);
        let name = |what: &str| format!("BENCH_{what}_{run}");
        Topics {
            up: name("UP"),
            down: name("DOWN"),
            through: name("THROUGH"),
            load: name("LOAD"),
            reference_load: name("REFERENCE_LOAD"),
            backlog: name("BACKLOG"),
            reference: name("REFERENCE"),
            cluster_reference: name("CLUSTER_REFERENCE"),
        }
    }

    pub(crate) fn all(&self) -> [&str; 8] {
        [
            &self.up,
            &self.down,
            &self.through,
            &self.load,
            &self.reference_load,
            &self.backlog,
            &self.reference,
            &self.cluster_reference,
        ]
    }
}

/// Built artifacts and places that every broker of a run shares.
pub(crate) struct Setup {
    pub(crate) mosquitto: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) noop: PathBuf,
    pub(crate) sidecar: PathBuf,
    pub(crate) namesrv: String,
    /// RocketMQ's broker, where it is known: for its CPU time.
    pub(crate) rocketmq_pid: Option<u32>,
    pub(crate) jars: Vec<PathBuf>,
    pub(crate) classes: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) topics: Topics,
}

/// A running Mosquitto, with what its plugin started. Both end with this value.
pub(crate) struct Broker {
    guard: Guard,
    pub(crate) port: u16,
    /// From the start of the process until it listened.
    pub(crate) listened_after: Duration,
    spool: PathBuf,
    log: PathBuf,
    sidecars: Vec<u32>,
}

impl Broker {
    /// Starts it on a free port and waits until it accepts connections, with further lines in its configuration (options of the plugin
    /// among them). The bridge may not have reached RocketMQ yet.
    pub(crate) fn start(setup: &Setup, variant: Variant, extra: &[String]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let spool = setup.dir.join(format!("spool-{port}"));
        let config = setup.dir.join(format!("mosquitto-{port}.conf"));
        let mut text = configuration(setup, variant, port, &spool);
        for line in extra {
            text += line;
            text += "\n";
        }
        fs::write(&config, text)?;
        Self::start_as_configured(setup, variant, port)
    }

    /// Kills it and its sidecar at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        for pid in self.sidecars.drain(..).filter(|pid| child::is_alive(*pid)) {
            sys::kill(pid, libc::SIGKILL).context("killing the sidecar")?;
            if !child::all_end(&[pid], STOP_TIMEOUT) {
                bail!("the sidecar lives on after SIGKILL");
            }
        }
        self.guard.stop(libc::SIGKILL);
        Ok(())
    }

    /// Kills it and its sidecar, unless they are dead already, and starts it again with what they left behind.
    pub(crate) fn restart_after_kill(mut self, setup: &Setup) -> Result<Self> {
        let port = self.port;
        self.kill()?;
        // What it left is the next one's.
        self.spool = PathBuf::new();
        drop(self);
        Self::start_as_configured(setup, Variant::Bridge, port)
    }

    fn start_as_configured(setup: &Setup, variant: Variant, port: u16) -> Result<Self> {
        let log = setup.dir.join(format!("mosquitto-{port}.log"));
        let mut command = Command::new(&setup.mosquitto);
        command
            .arg("-c")
            .arg(setup.dir.join(format!("mosquitto-{port}.conf")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?);
        let started = Instant::now();
        let mut guard = Guard::spawn("mosquitto", &mut command, STOP_TIMEOUT)?;
        child::wait_for("Mosquitto listening", START_TIMEOUT, || {
            guard.check().with_context(|| {
                format!("its log: {}", fs::read_to_string(&log).unwrap_or_default())
            })?;
            Ok(TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        let mut broker = Broker {
            guard,
            port,
            listened_after: started.elapsed(),
            spool: setup.dir.join(format!("spool-{port}")),
            log,
            sidecars: Vec::new(),
        };
        if variant == Variant::Bridge {
            let pid = broker.pid();
            let sidecars =
                child::wait_for("the plugin starting its sidecar", START_TIMEOUT, || {
                    Ok(Some(child::children_of(pid)).filter(|pids| !pids.is_empty()))
                })?;
            broker.sidecars = sidecars;
        }
        Ok(broker)
    }

    /// Its spool.
    pub(crate) fn spool(&self) -> &Path {
        &self.spool
    }

    pub(crate) fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Adds the end of the broker's log, which has the sidecar's lines too, to an error.
    pub(crate) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
            format!(
                "with this at the end of Mosquitto's log:\n{}\n",
                end.join("\n")
            )
        })
    }

    /// CPU time of the broker's thread so far: the main thread, whose id is the process's.
    pub(crate) fn thread_cpu_ns(&self) -> Result<u64> {
        child::thread_cpu_ns(self.pid(), self.pid())
    }

    /// The sidecar's processes.
    pub(crate) fn sidecars(&self) -> &[u32] {
        &self.sidecars
    }

    /// The most memory that the sidecar ever had, in MiB.
    pub(crate) fn sidecar_peak_mib(&self) -> Result<f64> {
        let peaks = self.sidecars.iter().map(|pid| child::peak_mib(*pid));
        peaks.sum()
    }

    /// Memory of the sidecar now, in MiB.
    pub(crate) fn sidecar_mib(&self) -> Result<f64> {
        let sizes = self.sidecars.iter().map(|pid| child::resident_mib(*pid));
        sizes.sum()
    }

    /// Stops the sidecar in its tracks until the returned value goes.
    pub(crate) fn pause_sidecar(&self) -> Result<Standstill> {
        Standstill::of(&self.sidecars)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.guard.stop(libc::SIGTERM);
        if !child::all_end(&self.sidecars, STOP_TIMEOUT) {
            eprintln!(
                "warning: the sidecar was still there {STOP_TIMEOUT:?} after Mosquitto's end, and was killed"
            );
            for pid in &self.sidecars {
                // It may have ended at last.
                let _ = sys::kill(*pid, libc::SIGKILL);
            }
        }
        if self.spool.as_os_str().is_empty() {
            return;
        }
        // Absent without the bridge; and whatever is left goes with the run's directory.
        let _ = fs::remove_dir_all(&self.spool);
    }
}

fn configuration(setup: &Setup, variant: Variant, port: u16, spool: &std::path::Path) -> String {
    let mut lines = vec![
        format!("listener {port} 127.0.0.1"),
        "allow_anonymous true".to_owned(),
        "persistence false".to_owned(),
        "log_dest stderr".to_owned(),
        "log_type error".to_owned(),
        "log_type warning".to_owned(),
        "log_type notice".to_owned(),
    ];
    if sys::is_root() {
        // The files of a run are readable by their owner only.
        lines.push("user root".to_owned());
    }
    let Topics {
        up,
        down,
        through,
        load,
        ..
    } = &setup.topics;
    match variant {
        Variant::Bare => {}
        Variant::Noop => lines.push(format!("plugin {}", setup.noop.display())),
        Variant::NoopWithThread => lines.extend([
            format!("plugin {}", setup.noop.display()),
            "plugin_opt_idle_thread true".to_owned(),
        ]),
        Variant::Bridge => lines.extend([
            format!("plugin {}", setup.plugin.display()),
            format!("plugin_opt_namesrv {}", setup.namesrv),
            // A node of its own each time: its group has never read anything.
            format!("plugin_opt_node_id bench-{port}"),
            format!("plugin_opt_spool_dir {}", spool.display()),
            format!("plugin_opt_sidecar_path {}", setup.sidecar.display()),
            format!("plugin_opt_uplink bench/+/load {load}"),
            format!("plugin_opt_uplink bench/up {up}"),
            format!("plugin_opt_uplink bench/through {through}"),
            format!("plugin_opt_downlink {down} bench/down qos=1"),
        ]),
    }
    lines.join("\n") + "\n"
}
