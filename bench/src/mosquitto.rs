//! A real Mosquitto as it is measured: bare, with the do-nothing plugin, or with the bridge.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child::{self, Guard};
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
    pub(crate) load: String,
    pub(crate) reference: String,
}

impl Topics {
    pub(crate) fn new() -> Self {
        let run = format!("{:x}", sys::unix_nanos() / 1_000_000);
        let name = |what: &str| format!("BENCH_{what}_{run}");
        Topics {
            up: name("UP"),
            down: name("DOWN"),
            load: name("LOAD"),
            reference: name("REFERENCE"),
        }
    }

    pub(crate) fn all(&self) -> [&str; 4] {
        [&self.up, &self.down, &self.load, &self.reference]
    }
}

/// Built artifacts and places that every broker of a run shares.
pub(crate) struct Setup {
    pub(crate) mosquitto: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) noop: PathBuf,
    pub(crate) sidecar: PathBuf,
    pub(crate) namesrv: String,
    pub(crate) dir: PathBuf,
    pub(crate) topics: Topics,
}

/// A running Mosquitto, with what its plugin started. Both end with this value.
pub(crate) struct Broker {
    guard: Guard,
    pub(crate) port: u16,
    spool: PathBuf,
    log: PathBuf,
    sidecars: Vec<u32>,
}

impl Broker {
    /// Starts it on a free port and waits until it accepts connections. The bridge may not have reached RocketMQ yet.
    pub(crate) fn start(setup: &Setup, variant: Variant) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let spool = setup.dir.join(format!("spool-{port}"));
        let config = setup.dir.join(format!("mosquitto-{port}.conf"));
        let log = setup.dir.join(format!("mosquitto-{port}.log"));
        fs::write(&config, configuration(setup, variant, port, &spool))?;
        let mut command = Command::new(&setup.mosquitto);
        command
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?);
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
            spool,
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

    /// CPU time of the sidecar so far.
    pub(crate) fn sidecar_cpu_ns(&self) -> Result<u64> {
        self.sidecars
            .iter()
            .map(|pid| child::process_cpu_ns(*pid))
            .sum()
    }

    /// Stops the sidecar in its tracks until the returned value goes.
    pub(crate) fn pause_sidecar(&self) -> Result<Paused> {
        // Made first, so that whatever was stopped goes on, also after an error.
        let paused = Paused {
            pids: self.sidecars.clone(),
        };
        for pid in &self.sidecars {
            sys::kill(*pid, libc::SIGSTOP).context("pausing the sidecar")?;
        }
        Ok(paused)
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
        // Absent without the bridge; and whatever is left goes with the run's directory.
        let _ = fs::remove_dir_all(&self.spool);
    }
}

/// A sidecar that stands still; it goes on when this value is dropped.
pub(crate) struct Paused {
    pids: Vec<u32>,
}

impl Drop for Paused {
    fn drop(&mut self) {
        for pid in &self.pids {
            // If it is gone, its absence shows in what is measured next.
            let _ = sys::kill(*pid, libc::SIGCONT);
        }
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
    let Topics { up, down, load, .. } = &setup.topics;
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
            "plugin_opt_node_id bench".to_owned(),
            format!("plugin_opt_spool_dir {}", spool.display()),
            format!("plugin_opt_sidecar_path {}", setup.sidecar.display()),
            format!("plugin_opt_uplink bench/+/load {load}"),
            format!("plugin_opt_uplink bench/up {up}"),
            format!("plugin_opt_downlink {down} bench/down qos=1"),
        ]),
    }
    lines.join("\n") + "\n"
}
