//! The reader of `mosquitto.conf`.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::bridges::Bridge;
use super::{Listener, MosquittoConf, MosquittoConfError, PluginLine, Security, Warning};

/// Options that, before any `listener` line, make Mosquitto 2.0 open its default listener on port 1883.
const DEFAULT_LISTENER: &[&str] = &[
    "port",
    "bind_address",
    "bind_interface",
    "protocol",
    "socket_domain",
    "mount_point",
    "max_connections",
    "max_qos",
    "cafile",
    "capath",
    "certfile",
    "keyfile",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "dhparamfile",
    "psk_hint",
    "require_certificate",
    "tls_version",
    "tls_engine",
    "tls_keyform",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
];

/// Which listener a line belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Current {
    /// The one that Mosquitto makes from lines before the first `listener`.
    Default,
    Listener(usize),
}

/// State that begins anew in each file.
struct File<'p> {
    path: &'p Path,
    listener: Current,
    plugin: Option<usize>,
    bridge: Option<usize>,
}

/// Gathers the lines of all files.
#[derive(Default)]
pub(super) struct Reader {
    conf: MosquittoConf,
    default_listener: Listener,
    default_listener_used: bool,
}

impl Reader {
    pub(super) fn file(&mut self, path: &Path) -> Result<(), MosquittoConfError> {
        self.read(path, true)
    }

    fn read(&mut self, path: &Path, may_include: bool) -> Result<(), MosquittoConfError> {
        let bytes = std::fs::read(path).map_err(|source| MosquittoConfError::Io {
            path: path.to_owned(),
            source,
        })?;
        self.text(&String::from_utf8_lossy(&bytes), path, may_include)
    }

    pub(super) fn text(
        &mut self,
        text: &str,
        path: &Path,
        may_include: bool,
    ) -> Result<(), MosquittoConfError> {
        let mut file = File {
            path,
            listener: Current::Default,
            plugin: None,
            bridge: None,
        };
        for (index, line) in text.split('\n').enumerate() {
            // Only a `#` in the first column makes a comment, and only blanks (not tabs) end the option.
            let line = line.trim_end_matches('\r').trim_start_matches(' ');
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            if key == "include_dir" {
                if may_include {
                    self.include_dir(Path::new(value.trim()))?;
                }
                continue;
            }
            let place = |problem: String| Warning {
                file: path.to_owned(),
                line: index + 1,
                problem,
            };
            if let Some((option, _)) = key.split_once('\t') {
                let problem =
                    format!("a tab follows \"{option}\"; Mosquitto ends an option only at a blank");
                self.conf.warnings.push(place(problem));
                continue;
            }
            if let Err(problem) = self.line(&mut file, index + 1, key, value) {
                self.conf.warnings.push(place(problem));
            }
        }
        Ok(())
    }

    /// All `*.conf` of a directory, in Mosquitto's order.
    fn include_dir(&mut self, dir: &Path) -> Result<(), MosquittoConfError> {
        let fail = |source| MosquittoConfError::Io {
            path: dir.to_owned(),
            source,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path
                .file_name()
                .map(|name| name.as_encoded_bytes())
                .unwrap_or_default();
            if name.len() > ".conf".len() && name.ends_with(b".conf") {
                files.push(path);
            }
        }
        files.sort_by(|a, b| {
            mosquitto_order(
                a.as_os_str().as_encoded_bytes(),
                b.as_os_str().as_encoded_bytes(),
            )
        });
        files.iter().try_for_each(|path| self.read(path, false))
    }

    fn line(
        &mut self,
        file: &mut File<'_>,
        number: usize,
        key: &str,
        value: &str,
    ) -> Result<(), String> {
        if file.listener == Current::Default && DEFAULT_LISTENER.contains(&key) {
            self.default_listener_used = true;
        }
        let text = value.trim();
        if let Some(option) = key
            .strip_prefix("plugin_opt_")
            .or_else(|| key.strip_prefix("auth_opt_"))
        {
            return self.plugin_option(file, option, value);
        }
        match key {
            "per_listener_settings" => self.conf.per_listener_settings = boolean(key, text)?,
            "acl_file" => self.security(file).acl_file = Some(path_value(key, text)?),
            "password_file" => self.security(file).password_file = Some(path_value(key, text)?),
            "psk_file" => self.security(file).psk_file = Some(path_value(key, text)?),
            "allow_anonymous" => self.security(file).allow_anonymous = Some(boolean(key, text)?),
            "listener_allow_anonymous" => {
                self.listener(file).security.allow_anonymous = Some(boolean(key, text)?)
            }
            "plugin" | "auth_plugin" | "global_plugin" => self.plugin(file, number, key, text)?,
            "plugin_load" => self.plugin_load(file, number, text)?,
            "plugin_use" => self.plugin_use(file, text)?,
            "listener" => self.add_listener(file, text)?,
            "port" => {
                self.default_listener.port = port(text)?;
                // Mosquitto 2.1 goes on with the default listener from here.
                file.listener = Current::Default;
            }
            "bind_address" => self.default_listener.host = Some(first_word(text).to_owned()),
            "connection" => {
                file.bridge = Some(self.conf.bridges.len());
                self.conf.bridges.push(Bridge::new(first_word(text)));
            }
            _ if self.conf.queue_limits.line(key, text)? => {}
            _ if self.conf.persistence.line(key, text)? => {}
            _ if self.bridge_line(file, key, text)? => {}
            _ => return self.listener_option(file, key, text),
        }
        Ok(())
    }

    fn bridge_line(&mut self, file: &File<'_>, key: &str, text: &str) -> Result<bool, String> {
        match file.bridge {
            Some(index) => self.conf.bridges[index].line(key, text),
            None => Ok(false),
        }
    }

    fn listener_option(&mut self, file: &File<'_>, key: &str, text: &str) -> Result<(), String> {
        let listener = self.listener(file);
        match key {
            "protocol" => listener.protocol = Some(first_word(text).to_owned()),
            "certfile" | "psk_hint" => listener.tls = true,
            "bind_interface" => listener.bind_interface = Some(text.to_owned()),
            "mount_point" => listener.mount_point = Some(text.to_owned()),
            "use_identity_as_username" | "use_subject_as_username" => {
                listener.names_from_certificates |= boolean(key, text)?;
            }
            "enable_proxy_protocol" => listener.proxy_protocol = true,
            "max_connections" => {
                let number = first_word(text)
                    .parse::<i64>()
                    .map_err(|_| format!("{key} \"{text}\" is not a number"))?;
                listener.max_connections = Some(number).filter(|number| *number >= 0);
            }
            // Everything else is the broker's own business.
            _ => {}
        }
        Ok(())
    }

    fn listener(&mut self, file: &File<'_>) -> &mut Listener {
        match file.listener {
            Current::Listener(index) => &mut self.conf.listeners[index],
            Current::Default => &mut self.default_listener,
        }
    }

    /// Security options belong to the broker, or with `per_listener_settings` to the listener.
    fn security(&mut self, file: &File<'_>) -> &mut Security {
        if !self.conf.per_listener_settings {
            return &mut self.conf.security;
        }
        if file.listener == Current::Default {
            self.default_listener_used = true;
        }
        &mut self.listener(file).security
    }

    fn add_listener(&mut self, file: &mut File<'_>, text: &str) -> Result<(), String> {
        let (number, rest) = text.split_once(' ').unwrap_or((text, ""));
        let address = Some(first_word(rest))
            .filter(|address| !address.is_empty() && !address.starts_with('#'));
        let mut listener = Listener {
            port: if number == "0" { 0 } else { port(number)? },
            ..Listener::default()
        };
        if listener.port == 0 {
            listener.unix_socket = Some(PathBuf::from(
                address.ok_or("a listener on port 0 names no Unix socket")?,
            ));
        } else {
            listener.host = address.map(str::to_owned);
        }
        file.listener = Current::Listener(self.conf.listeners.len());
        self.conf.listeners.push(listener);
        Ok(())
    }

    fn add_plugin(
        &mut self,
        file: &mut File<'_>,
        number: usize,
        name: Option<&str>,
        path: &str,
    ) -> Result<usize, String> {
        let plugin = PluginLine {
            path: path_value("plugin", path)?,
            name: name.map(str::to_owned),
            file: file.path.to_owned(),
            line: number,
            options: Vec::new(),
        };
        self.conf.plugins.push(plugin);
        let index = self.conf.plugins.len() - 1;
        file.plugin = Some(index);
        Ok(index)
    }

    fn plugin(
        &mut self,
        file: &mut File<'_>,
        number: usize,
        key: &str,
        path: &str,
    ) -> Result<(), String> {
        let index = self.add_plugin(file, number, None, path)?;
        let security = if key == "global_plugin" {
            &mut self.conf.security
        } else {
            self.security(file)
        };
        security.plugins.push(index);
        Ok(())
    }

    /// Mosquitto 2.1: `plugin_load <name> <path>`; the listeners that use it say `plugin_use <name>`.
    fn plugin_load(
        &mut self,
        file: &mut File<'_>,
        number: usize,
        text: &str,
    ) -> Result<(), String> {
        let (name, path) = text
            .split_once(' ')
            .ok_or_else(|| format!("plugin_load \"{text}\" has no path"))?;
        self.add_plugin(file, number, Some(name), path.trim())
            .map(|_| ())
    }

    fn plugin_use(&mut self, file: &mut File<'_>, name: &str) -> Result<(), String> {
        let found = self
            .conf
            .plugins
            .iter()
            .position(|plugin| plugin.name.as_deref() == Some(name));
        let index =
            found.ok_or_else(|| format!("plugin_use \"{name}\" names no plugin loaded before"))?;
        file.plugin = Some(index);
        self.listener(file).security.plugins.push(index);
        Ok(())
    }

    fn plugin_option(&mut self, file: &File<'_>, option: &str, value: &str) -> Result<(), String> {
        // Mosquitto takes the blanks before the value away and leaves those behind it.
        let value = value.trim_start_matches([' ', '\t']);
        let index = file.plugin.ok_or_else(|| {
            format!("plugin_opt_{option} stands before any plugin line of its file")
        })?;
        if option.is_empty() || value.is_empty() {
            return Err(format!("plugin_opt_{option} has no value"));
        }
        self.conf.plugins[index]
            .options
            .push((option.to_owned(), value.to_owned()));
        Ok(())
    }

    pub(super) fn finish(self) -> MosquittoConf {
        let Reader {
            mut conf,
            mut default_listener,
            default_listener_used,
        } = self;
        conf.local_only = conf.listeners.is_empty() && !default_listener_used;
        if default_listener_used || conf.local_only {
            if default_listener.port == 0 {
                default_listener.port = 1883;
            }
            if conf.local_only {
                // Unless `-p` on the command line names other ports.
                default_listener.host = Some("127.0.0.1".to_owned());
            }
            conf.listeners.push(default_listener);
        }
        conf
    }
}

/// Without regard to case first, then with (`scmp_p` in `conf_includedir.c`).
fn mosquitto_order(a: &[u8], b: &[u8]) -> Ordering {
    for (x, y) in a.iter().zip(b) {
        let order = x
            .to_ascii_uppercase()
            .cmp(&y.to_ascii_uppercase())
            .then(x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn first_word(text: &str) -> &str {
    text.split(' ').find(|word| !word.is_empty()).unwrap_or("")
}

pub(super) fn boolean(key: &str, text: &str) -> Result<bool, String> {
    match first_word(text) {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("{key} \"{other}\" is neither true nor false")),
    }
}

fn port(text: &str) -> Result<u16, String> {
    let word = first_word(text);
    word.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("port \"{word}\" is not 1 to 65535"))
}

pub(super) fn path_value(key: &str, text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        Err(format!("{key} has no value"))
    } else {
        Ok(PathBuf::from(text))
    }
}
