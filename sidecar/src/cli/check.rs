//! `mosquitto-rocketmq check`: what is wrong with a configuration, said before Mosquitto is started with it.

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use protocol::config::mosquitto_conf::{MosquittoConf, QueueLimits};
use protocol::config::{Config, SidecarMode, parse_options_file};
use rocketmq::{Backbone, Settings};

use super::CheckArgs;
use super::publish::SEND_TIMEOUT;

/// What was found, in the order in which it was looked for.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Ok(String),
    /// What is wrong, and what to do.
    Problem(String),
}

impl Findings {
    fn ok(&mut self, what: impl Into<String>) {
        self.0.push(Finding::Ok(what.into()));
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.0.push(Finding::Problem(what.into()));
    }

    fn problems(&self) -> usize {
        self.0
            .iter()
            .filter(|finding| matches!(finding, Finding::Problem(_)))
            .count()
    }

    fn render(&self) -> String {
        let line = |finding: &Finding| match finding {
            Finding::Ok(text) => format!("ok       {}\n", one_line(text)),
            Finding::Problem(text) => format!("PROBLEM  {}\n", one_line(text)),
        };
        let count = self.problems();
        let end = match count {
            0 => "no problems\n".to_owned(),
            1 => "1 problem\n".to_owned(),
            _ => format!("{count} problems\n"),
        };
        self.0.iter().map(line).collect::<String>() + &end
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

pub(crate) async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    let options = match &args.options {
        Some(file) => options_of_file(file, &mut findings),
        None => options_of_mosquitto(&args.config, args.offline, &mut findings),
    };
    let config = options.and_then(|options| config(&options, &mut findings));
    if let (Some(config), None) = (&config, &args.options)
        && let Ok(conf) = MosquittoConf::read(&args.config)
    {
        queue_limits(&conf, config, &mut findings);
    }
    if let Some(config) = config.filter(|_| !args.offline) {
        look_around(&config, &mut findings);
        ask_rocketmq(&config, &mut findings).await;
    }
    std::io::stdout().write_all(findings.render().as_bytes())?;
    Ok(if findings.problems() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

type Options = Vec<(String, String)>;

fn options_of_file(file: &Path, findings: &mut Findings) -> Option<Options> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            findings.problem(format!("{}: {error}", file.display()));
            return None;
        }
    };
    match parse_options_file(&text) {
        Ok(options) => Some(options),
        Err(errors) => {
            errors
                .iter()
                .for_each(|error| findings.problem(format!("{}: {error}", file.display())));
            None
        }
    }
}

fn options_of_mosquitto(file: &Path, offline: bool, findings: &mut Findings) -> Option<Options> {
    let conf = match MosquittoConf::read(file) {
        Ok(conf) => conf,
        Err(error) => {
            findings.problem(format!(
                "{error}; name the configuration of Mosquitto with --config"
            ));
            return None;
        }
    };
    for warning in &conf.warnings {
        findings.problem(format!(
            "{} line {}: {}",
            warning.file.display(),
            warning.line,
            warning.problem
        ));
    }
    if conf.per_listener_settings {
        per_listener(broker_version().filter(|_| !offline), findings);
    }
    let mut ours = conf.our_plugins();
    let Some(plugin) = ours.next() else {
        findings.problem(format!(
            "{}: no line loads mosquitto_rocketmq.so; add: plugin /usr/lib/mosquitto_rocketmq.so (where you installed it)",
            file.display()
        ));
        return None;
    };
    if let Some(second) = ours.next() {
        findings.problem(format!(
            "{} line {}: mosquitto_rocketmq.so is loaded a second time; one line does it",
            second.file.display(),
            second.line
        ));
    }
    let at = format!("{} line {}", plugin.file.display(), plugin.line);
    if offline || plugin.path.is_file() {
        findings.ok(format!("{at}: loads {}", plugin.path.display()));
    } else {
        findings.problem(format!(
            "{at}: there is no file {}; install the plugin there, or correct the path",
            plugin.path.display()
        ));
    }
    Some(plugin.options.clone())
}

/// Mosquitto before 2.0.22 never calls the tick of a plugin when the settings are per listener.
fn per_listener(version: Option<(u32, u32, u32)>, findings: &mut Findings) {
    let todo = "set it to false, or use Mosquitto 2.0.22 or later";
    match version {
        Some(version) if version >= (2, 0, 22) => findings.ok("per_listener_settings true: this Mosquitto supports it with plugins"),
        Some((major, minor, patch)) => findings.problem(format!(
            "per_listener_settings true: Mosquitto {major}.{minor}.{patch} then never calls the plugin back; {todo}"
        )),
        None => findings.problem(format!("per_listener_settings true: Mosquitto before 2.0.22 then never calls the plugin back; {todo}")),
    }
}

fn broker_version() -> Option<(u32, u32, u32)> {
    let output = std::process::Command::new("mosquitto")
        .arg("-h")
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let version = text
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)?;
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn config(options: &Options, findings: &mut Findings) -> Option<Config> {
    match Config::from_options(
        options
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    ) {
        Ok(config) => {
            findings.ok(format!(
                "options: node {}, {} uplink and {} downlink rules",
                config.node_id,
                config.uplink.len(),
                config.downlink.len()
            ));
            if let Some(address) = config
                .http_listen
                .filter(|address| !address.ip().is_loopback())
            {
                findings.problem(format!("http_listen {address}: only loopback addresses (127.0.0.1 or [::1]) in this version"));
            }
            Some(config)
        }
        Err(errors) => {
            errors
                .iter()
                .for_each(|error| findings.problem(error.to_string()));
            None
        }
    }
}

/// Mosquitto drops what comes for a client beyond its queue: what RocketMQ has kept for a client that is away as well.
fn queue_limits(conf: &MosquittoConf, config: &Config, findings: &mut Findings) {
    let limit = conf.queue_limits.messages;
    if (config.downlink.is_empty() && config.share.is_empty()) || limit == 0 {
        return;
    }
    if limit < QueueLimits::default().messages {
        findings.problem(format!(
            "max_queued_messages {limit}: while a client is away Mosquitto drops what RocketMQ sends it beyond that (counted \
             as downlink_queue_dropped); raise it to what may come for a client in that time, or set it to 0 for no limit"
        ));
    } else {
        findings.ok(format!(
            "max_queued_messages {limit}: so many wait in Mosquitto for a client that is away"
        ));
    }
}

/// The files and directories that the configuration names.
fn look_around(config: &Config, findings: &mut Findings) {
    spool(&config.spool_dir, findings);
    if config.sidecar == SidecarMode::External {
        return;
    }
    match &config.sidecar_path {
        Some(path) => match std::fs::metadata(path) {
            Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => {
                findings.ok(format!("sidecar {}", path.display()))
            }
            Ok(_) => findings.problem(format!(
                "sidecar_path {}: is not an executable file; name the binary mosquitto-rocketmq",
                path.display()
            )),
            Err(error) => findings.problem(format!(
                "sidecar_path {}: {error}; name the binary mosquitto-rocketmq",
                path.display()
            )),
        },
        None => {
            let places = ["/usr/bin", "/usr/local/bin", "/usr/libexec"]
                .map(|dir| PathBuf::from(dir).join("mosquitto-rocketmq"));
            match places.iter().find(|path| path.is_file()) {
                Some(path) => findings.ok(format!("sidecar {}", path.display())),
                // Beside the .so is looked first, and only the plugin knows where that is in the end.
                None => findings.ok("sidecar: must stand beside mosquitto_rocketmq.so, as it is not in /usr/bin, /usr/local/bin or /usr/libexec"),
            }
        }
    }
}

fn spool(dir: &Path, findings: &mut Findings) {
    let shown = dir.display();
    let existing = dir.ancestors().find(|path| path.exists());
    match existing {
        Some(path) if path == dir => match std::fs::metadata(dir) {
            Ok(data) if !data.is_dir() => findings.problem(format!("spool_dir {shown}: is no directory; name another")),
            Ok(data) if data.mode() & 0o077 != 0 => findings.problem(format!(
                "spool_dir {shown}: others can look into it (mode {:o}); chmod 700 it, messages and keys of clients are in there",
                data.mode() & 0o777
            )),
            Ok(_) => match try_to_write(dir) {
                Ok(()) => findings.ok(format!("spool_dir {shown} can be written")),
                Err(error) => findings.problem(format!("spool_dir {shown}: {error}; it must belong to Mosquitto's user (run this check as that user)")),
            },
            Err(error) => findings.problem(format!("spool_dir {shown}: {error}")),
        },
        Some(parent) => match try_to_write(parent) {
            Ok(()) => findings.ok(format!("spool_dir {shown} can be made by this user; Mosquitto's must be able to as well")),
            Err(error) => findings.problem(format!(
                "spool_dir {shown}: can't be made in {}: {error}; make it, owned by Mosquitto's user with mode 700",
                parent.display()
            )),
        },
        None => findings.problem(format!("spool_dir {shown}: no part of this path exists")),
    }
}

fn try_to_write(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".check-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}

async fn ask_rocketmq(config: &Config, findings: &mut Findings) {
    let namesrv = config.namesrv.join(";");
    let settings = Settings {
        namesrv: namesrv.clone(),
        producer_group: config.producer_group.clone(),
        instance: format!("check-{}", std::process::id()),
        send_timeout: SEND_TIMEOUT,
    };
    let backbone = match rocketmq::connect(settings) {
        Ok(backbone) => backbone,
        Err(error) => return findings.problem(format!("namesrv {namesrv}: {error}")),
    };
    match backbone.probe().await {
        Ok(()) => {
            findings.ok(format!("RocketMQ at {namesrv} answers"));
            ask_topics(&backbone, config, findings).await;
        }
        Err(error) => findings.problem(format!(
            "namesrv {namesrv}: {error}; is RocketMQ running, and can this machine reach it?"
        )),
    }
    backbone.shutdown().await;
}

async fn ask_topics(backbone: &Arc<dyn Backbone>, config: &Config, findings: &mut Findings) {
    let up = config
        .uplink
        .iter()
        .filter_map(|rule| rule.topic.as_literal())
        .map(|topic| ("uplink", topic));
    let down = config
        .downlink
        .iter()
        .map(|rule| ("downlink", rule.topic.as_str()));
    let mut topics: Vec<(&str, &str)> = up.chain(down).collect();
    topics.sort_unstable_by_key(|(_, topic)| *topic);
    topics.dedup_by_key(|(_, topic)| *topic);
    for (direction, topic) in topics {
        match backbone.write_queues(topic).await {
            Ok(queues) => findings.ok(format!(
                "{direction} topic {topic} has {} queues",
                queues.len()
            )),
            Err(error @ rocketmq::Error::TopicMissing { .. }) => {
                findings.problem(format!("{direction} topic {topic}: {error}; make it with: mqadmin updateTopic -n {} -c <cluster> -t {topic}", config.namesrv.join(";")));
            }
            Err(error) => findings.problem(format!("{direction} topic {topic}: {error}")),
        }
    }
}
