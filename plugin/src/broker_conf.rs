//! What the plugin has to know of the `mosquitto.conf` that loaded it. The API does not tell; the command line does.

use std::path::{Path, PathBuf};

use protocol::config::mosquitto_conf::{MosquittoConf, PluginLine, QueueLimits, Security};

use crate::acl::Deciders;
use crate::events::BrokerVersion;

/// First release that calls the tick with `per_listener_settings true` (`plugin__handle_tick` in each tag).
const TICKS_PER_LISTENER: BrokerVersion = BrokerVersion {
    major: 2,
    minor: 0,
    revision: 15,
};

/// The broker's configuration, as far as it could be read.
#[derive(Debug)]
pub(crate) struct BrokerConf {
    /// The configuration, or why there is none.
    pub(crate) conf: Result<MosquittoConf, String>,
    own_path: Option<PathBuf>,
}

impl BrokerConf {
    /// Of the process that we are in.
    pub(crate) fn of_this_process(own_path: Option<PathBuf>) -> BrokerConf {
        let conf = std::fs::read("/proc/self/cmdline")
            .map_err(|error| format!("/proc/self/cmdline: {error}"))
            .and_then(|line| {
                config_path(&line).ok_or_else(|| "Mosquitto was started without -c".to_owned())
            })
            .and_then(|path| MosquittoConf::read(&path).map_err(|error| error.to_string()));
        BrokerConf { conf, own_path }
    }

    /// The same with the plugins of `start`, which are the ones that are loaded.
    pub(crate) fn with_plugins_of(self, start: &BrokerConf) -> Result<BrokerConf, String> {
        let mut conf = self.conf?;
        if let Ok(start) = &start.conf {
            conf.plugins.clone_from(&start.plugins);
            conf.per_listener_settings = start.per_listener_settings;
        }
        Ok(BrokerConf {
            conf: Ok(conf),
            own_path: self.own_path,
        })
    }

    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> BrokerConf {
        BrokerConf {
            conf: MosquittoConf::parse(text).map_err(|error| error.to_string()),
            own_path: None,
        }
    }

    /// Whether our plugin hears of the clients of all listeners. False where that can't be told.
    pub(crate) fn is_for_all_listeners(&self) -> bool {
        let Ok(conf) = &self.conf else {
            return false;
        };
        let is_ours = |security: &Security| {
            let mut plugins = security.plugins.iter();
            plugins.any(|index| self.is_our_line(&conf.plugins[*index]))
        };
        let mut listeners = conf.listeners.iter();
        // Without per_listener_settings 2.1 asks a listener's own plugins of some things and not of others.
        is_ours(&conf.security)
            || conf.per_listener_settings && listeners.all(|listener| is_ours(&listener.security))
    }

    fn is_our_line(&self, line: &PluginLine) -> bool {
        line.is_ours() || self.own_path.as_deref() == Some(&line.path)
    }

    /// Whether all listeners on this TCP port speak plain MQTT. False for one that is not known.
    pub(crate) fn is_plain_port(&self, port: u16) -> bool {
        let on_it = |conf: &MosquittoConf| {
            let mut known = false;
            let mut all = conf.listeners.iter().filter(|it| it.port == port);
            all.all(|listener| {
                known = true;
                listener.is_plain_mqtt()
            }) && known
        };
        self.conf.as_ref().is_ok_and(on_it)
    }

    /// How much the broker keeps for a client, if that is known.
    pub(crate) fn queue_limits(&self) -> Option<QueueLimits> {
        self.conf.as_ref().ok().map(|conf| conf.queue_limits)
    }

    /// Who else has a say in access checks.
    pub(crate) fn deciders(&self) -> Deciders {
        let conf = match &self.conf {
            Ok(conf) => conf,
            Err(why) => {
                return Deciders {
                    unknown: Some(why.clone()),
                    ..Deciders::default()
                };
            }
        };
        let ours = conf.plugins.iter().position(|line| self.is_our_line(line));
        let Some(ours) = ours else {
            let unknown = Some("our own `plugin` line was not found in it".to_owned());
            return Deciders {
                unknown,
                ..Deciders::default()
            };
        };
        let name = |index: usize| conf.plugins[index].path.display().to_string();
        let other = |index: &usize| !self.is_our_line(&conf.plugins[*index]);
        Deciders {
            acl_file: conf.has_acl_file(),
            before: (0..ours).filter(other).map(name).collect(),
            after: (ours + 1..conf.plugins.len())
                .filter(other)
                .map(name)
                .collect(),
            per_listener: conf.per_listener_settings,
            unknown: None,
        }
    }

    /// The `acl_file`, if it alone decides who may write.
    pub(crate) fn only_acl_file(&self) -> Option<&Path> {
        let conf = self
            .conf
            .as_ref()
            .ok()
            .filter(|conf| !conf.per_listener_settings)?;
        let deciders = self.deciders();
        let alone =
            deciders.before.is_empty() && deciders.after.is_empty() && deciders.unknown.is_none();
        conf.security.acl_file.as_deref().filter(|_| alone)
    }

    /// Whether this broker would never call the tick, and so never deliver anything from RocketMQ.
    pub(crate) fn never_ticks(&self, version: BrokerVersion) -> bool {
        version < TICKS_PER_LISTENER
            && self
                .conf
                .as_ref()
                .is_ok_and(|conf| conf.per_listener_settings)
    }
}

/// The value of `-c` (or `--config-file`) in a command line as /proc has it: each argument ends with a zero byte.
fn config_path(cmdline: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut arguments = cmdline.split(|byte| *byte == 0).skip(1);
    let mut found = None;
    while let Some(argument) = arguments.next() {
        if argument == b"-c" || argument == b"--config-file" {
            found = arguments.next();
        }
    }
    found
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> BrokerConf {
        BrokerConf {
            conf: MosquittoConf::parse(text).map_err(|error| error.to_string()),
            own_path: Some("/opt/bridge.so".into()),
        }
    }

    #[test]
    fn the_last_config_file_of_the_command_line_counts() {
        assert_eq!(
            config_path(b"mosquitto\0-c\0/etc/m.conf\0"),
            Some("/etc/m.conf".into())
        );
        assert_eq!(
            config_path(b"mosquitto\0-v\0--config-file\0a\0-c\0b\0"),
            Some("b".into())
        );
        assert_eq!(config_path(b"mosquitto\0-p\0port\0"), None);
        assert_eq!(config_path(b"mosquitto\0-c\0"), None);
    }

    #[test]
    fn plugins_before_and_after_ours_are_told_apart() {
        let conf = with(
            "plugin /a.so\nplugin /usr/lib/mosquitto_rocketmq.so\nplugin /b.so\nacl_file /f\n",
        );
        let deciders = conf.deciders();
        assert_eq!(
            (deciders.before, deciders.after),
            (vec!["/a.so".to_owned()], vec!["/b.so".to_owned()])
        );
        assert!(deciders.acl_file);
        assert!(with("plugin /opt/bridge.so\n").deciders().nobody());
        assert!(with("plugin /elsewhere.so\n").deciders().unknown.is_some());
    }

    #[test]
    fn a_port_is_plain_when_every_listener_on_it_is_known_to_be() {
        let conf = with(
            "listener 1883 10.0.0.1\nlistener 1883 10.0.0.2\nlistener 8883\ncertfile /c\nlistener 8080\n\
             protocol websockets\nlistener 1884 10.0.0.1\nlistener 1884 10.0.0.2\npsk_hint x\nlistener 0 /s\n",
        );
        assert!(conf.is_plain_port(1883));
        for port in [8883, 8080, 1884, 0, 1999] {
            assert!(!conf.is_plain_port(port), "{port}");
        }
    }

    #[test]
    fn versions_before_2_0_15_never_tick_with_per_listener_settings() {
        let version = |revision| BrokerVersion {
            major: 2,
            minor: 0,
            revision,
        };
        let listeners = with("per_listener_settings true\n");
        assert!(listeners.never_ticks(version(11)));
        assert!(!listeners.never_ticks(version(21)));
        assert!(!with("per_listener_settings false\n").never_ticks(version(11)));
    }
}
