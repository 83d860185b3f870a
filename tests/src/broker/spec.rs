//! How a broker is to be started: its `mosquitto.conf`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::{Broker, Mosquitto, free_port};
use crate::environment::{plugin, shared_namesrv, sidecar};
use crate::probe::unique;
use crate::wait::eventually;

const LOUD: &str = "log_type all\n";
const QUIET: &str = "log_type error\nlog_type warning\nlog_type notice\nlog_type information\n";

/// How a broker is to be started.
#[derive(Debug, Clone)]
pub struct BrokerSpec {
    pub(super) version: Mosquitto,
    pub(super) global: Vec<String>,
    pub(super) conf: Vec<String>,
    pub(super) options: Vec<(String, String)>,
    pub(super) with_plugin: bool,
    pub(super) wait_for_rocketmq: bool,
    quiet: bool,
    pub(super) environment: Vec<(String, String)>,
    pub(super) prefix: Vec<String>,
    pub(super) address: Ipv4Addr,
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
            quiet: false,
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

    /// Adds a share rule.
    pub fn share(mut self, filter: impl Into<String>) -> BrokerSpec {
        self.options.push(("share".to_owned(), filter.into()));
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

    /// Does not log each packet: for load that goes on for long.
    pub fn quiet(mut self) -> BrokerSpec {
        self.quiet = true;
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

    /// `mosquitto.conf` for a broker in this folder at this port.
    pub(super) fn file(&self, dir: &Path, port: u16) -> String {
        let folder = dir.display();
        let mut conf = String::new();
        for line in &self.global {
            writeln!(conf, "{line}").expect("a String takes it");
        }
        write!(
            conf,
            "user root\nlog_dest stderr\npersistence true\npersistence_location {folder}/\nmax_queued_messages 0\n\
             {}listener {port} {}\n",
            if self.quiet { QUIET } else { LOUD },
            self.address
        )
        .expect("a String takes it");
        for line in &self.conf {
            writeln!(conf, "{line}").expect("a String takes it");
        }
        if self.with_plugin {
            writeln!(conf, "plugin {}", plugin().display()).expect("a String takes it");
            for (name, value) in self.options(dir) {
                writeln!(conf, "plugin_opt_{name} {value}").expect("a String takes it");
            }
        }
        conf
    }

    fn options(&self, dir: &Path) -> Vec<(String, String)> {
        let node_id = || unique("node").replace('_', "-").to_lowercase();
        let spool_dir = || dir.join("spool").display().to_string();
        let sidecar_path = || sidecar().display().to_string();
        let defaults: [(&str, &dyn Fn() -> String); 4] = [
            ("namesrv", &shared_namesrv),
            ("node_id", &node_id),
            ("spool_dir", &spool_dir),
            ("sidecar_path", &sidecar_path),
        ];
        // Made only where it isn't set: not every user of this has a RocketMQ that all share.
        let mut options: Vec<(String, String)> = defaults
            .into_iter()
            .filter(|(name, _)| self.set(name).is_none())
            .map(|(name, value)| (name.to_owned(), value()))
            .collect();
        options.extend(
            self.options
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .cloned(),
        );
        options
    }

    /// What an option was set to here.
    pub(super) fn set(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(set, _)| set == name)
            .map(|(_, value)| value.as_str())
    }
}
