//! Reading `mosquitto.conf`: what this bridge has to know of the broker around it.
//!
//! Read as Mosquitto 2.0 and 2.1 do (`src/conf.c`): one option a line, `#` in the first column for a comment, the
//! option ends at a blank. State that goes from line to line (the listener, the plugin that `plugin_opt_` lines belong
//! to) begins anew in each file of an `include_dir`. What is not listed here is skipped: the broker complains about it.

mod bridges;
mod limits;
mod parse;
mod persistence;

use std::io;
use std::path::{Path, PathBuf};

pub use bridges::{Bridge, BridgeSubscription};
pub use limits::QueueLimits;
pub use persistence::Persistence;

/// File names of this bridge's plugin.
const OUR_FILES: &[&str] = &["mosquitto_rocketmq.so", "libmosquitto_rocketmq.so"];

/// Why a configuration could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MosquittoConfError {
    /// A file or an `include_dir` can't be read.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A line whose value Mosquitto would not take, or would not read as it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is odd.
    pub problem: String,
}

/// What decides who may log in and what they may do, of the whole broker or of one listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// `acl_file`.
    pub acl_file: Option<PathBuf>,
    /// `password_file`.
    pub password_file: Option<PathBuf>,
    /// `psk_file`.
    pub psk_file: Option<PathBuf>,
    /// `allow_anonymous`, where it is given.
    pub allow_anonymous: Option<bool>,
    /// Indices (into [`MosquittoConf::plugins`]) of the plugins used here.
    pub plugins: Vec<usize>,
}

/// A line that loads a plugin, and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginLine {
    /// The `.so`.
    pub path: PathBuf,
    /// Name given by `plugin_load` (Mosquitto 2.1).
    pub name: Option<String>,
    /// Where the line stands.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The `plugin_opt_` and `auth_opt_` lines that belong to it, without their prefix, in their order.
    pub options: Vec<(String, String)>,
}

impl PluginLine {
    /// Whether this is our plugin.
    pub fn is_ours(&self) -> bool {
        self.path
            .file_name()
            .is_some_and(|name| OUR_FILES.iter().any(|ours| name == *ours))
    }
}

/// A listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listener {
    /// TCP port; 0 for a Unix socket.
    pub port: u16,
    /// Address or host name it is bound to; nothing: all.
    pub host: Option<String>,
    /// Unix socket.
    pub unix_socket: Option<PathBuf>,
    /// `protocol`: `mqtt` unless given.
    pub protocol: Option<String>,
    /// Whether it speaks TLS (a certificate or a PSK hint is given).
    pub tls: bool,
    /// `bind_interface`.
    pub bind_interface: Option<String>,
    /// `mount_point`.
    pub mount_point: Option<String>,
    /// Whether the broker expects a PROXY header before MQTT (Mosquitto 2.1).
    pub proxy_protocol: bool,
    /// `use_identity_as_username` or `use_subject_as_username`: the certificate says who a client is, and no plugin is asked.
    pub names_from_certificates: bool,
    /// `max_connections`; nothing or negative: no limit.
    pub max_connections: Option<i64>,
    /// Its own security options, which count with `per_listener_settings` (and in 2.1 also `plugin_use` and
    /// `listener_allow_anonymous` without it).
    pub security: Security,
}

impl Listener {
    /// Whether a plain MQTT connection over TCP can be made to it.
    pub fn is_plain_mqtt(&self) -> bool {
        let mqtt = self
            .protocol
            .as_deref()
            .is_none_or(|protocol| protocol == "mqtt");
        mqtt && self.unix_socket.is_none() && self.port != 0 && !self.tls && !self.proxy_protocol
    }
}

/// The parts of a `mosquitto.conf` that matter to this bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MosquittoConf {
    /// `per_listener_settings`.
    pub per_listener_settings: bool,
    /// Security options of the whole broker.
    pub security: Security,
    /// The listeners. A broker without any gets one on loopback, port 1883, as Mosquitto does.
    pub listeners: Vec<Listener>,
    /// Whether there is no listener of the configuration's own: Mosquitto then serves loopback only, and lets anyone in.
    pub local_only: bool,
    /// All plugins, in the order of their lines.
    pub plugins: Vec<PluginLine>,
    /// What a client's queue holds.
    pub queue_limits: QueueLimits,
    /// Where it saves its sessions.
    pub persistence: Persistence,
    /// Its own bridges to other brokers.
    pub bridges: Vec<Bridge>,
    /// Lines that Mosquitto reads otherwise than they look.
    pub warnings: Vec<Warning>,
}

impl MosquittoConf {
    /// Reads the file and those of its `include_dir`.
    ///
    /// # Errors
    /// When one of them can't be read.
    pub fn read(path: &Path) -> Result<MosquittoConf, MosquittoConfError> {
        let mut reader = parse::Reader::default();
        reader.file(path)?;
        Ok(reader.finish())
    }

    /// Reads text that has no file: `include_dir` is followed all the same.
    ///
    /// # Errors
    /// When a file of an `include_dir` can't be read.
    pub fn parse(text: &str) -> Result<MosquittoConf, MosquittoConfError> {
        let mut reader = parse::Reader::default();
        reader.text(text, Path::new("mosquitto.conf"), true)?;
        Ok(reader.finish())
    }

    /// The lines that load our plugin: there should be one.
    pub fn our_plugins(&self) -> impl Iterator<Item = &PluginLine> {
        self.plugins.iter().filter(|plugin| plugin.is_ours())
    }

    /// The lines that load other plugins: each may decide logins and access.
    pub fn other_plugins(&self) -> impl Iterator<Item = &PluginLine> {
        self.plugins.iter().filter(|plugin| !plugin.is_ours())
    }

    /// The security options that count for a listener.
    pub fn security_of<'a>(&'a self, listener: &'a Listener) -> &'a Security {
        if self.per_listener_settings {
            &listener.security
        } else {
            &self.security
        }
    }

    /// All security options that count, the broker's first.
    pub fn securities(&self) -> impl Iterator<Item = &Security> {
        std::iter::once(&self.security)
            .chain(self.listeners.iter().map(|listener| &listener.security))
    }

    /// Whether an `acl_file` is given anywhere.
    pub fn has_acl_file(&self) -> bool {
        self.securities()
            .any(|security| security.acl_file.is_some())
    }

    /// Whether a `password_file` or `psk_file` is given anywhere.
    pub fn has_password_file(&self) -> bool {
        self.securities()
            .any(|security| security.password_file.is_some() || security.psk_file.is_some())
    }

    /// Whether a listener lets clients in without a user name.
    pub fn allows_anonymous(&self, listener: &Listener) -> bool {
        let of_listener = listener.security.allow_anonymous;
        let given = if self.per_listener_settings {
            of_listener
        } else {
            of_listener.or(self.security.allow_anonymous)
        };
        // A loopback-only broker lets anyone in, but Mosquitto 2.1 heeds an explicit `false` (2.0 does not).
        given.unwrap_or(self.local_only)
    }
}
