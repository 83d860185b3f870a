//! From options to a configuration, gathering every error on the way.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use super::errors::{ConfigError, ConfigErrors};
use super::options::{self, OPTIONS, Problem, Spec};
use super::{Config, lines, nearest, node, units};

/// A configuration in the making.
pub(super) struct Draft {
    config: Config,
    errors: Vec<ConfigError>,
    /// Value of each option given so far, by name.
    given: HashMap<&'static str, String>,
}

impl Draft {
    pub(super) fn read(source: Vec<(String, String)>) -> Result<Config, ConfigErrors> {
        let mut draft = Draft {
            config: options::defaults(),
            errors: Vec::new(),
            given: HashMap::new(),
        };
        for (name, value) in &source {
            draft.option(name, value.trim());
        }
        draft.rules_file();
        draft.fill_in();
        draft.check_sizes();
        draft.check_cluster();
        draft.check_repeated_rules();
        if draft.errors.is_empty() {
            Ok(Config {
                source,
                ..draft.config
            })
        } else {
            Err(ConfigErrors(draft.errors))
        }
    }

    fn option(&mut self, name: &str, value: &str) {
        let Some(spec) = OPTIONS.iter().find(|spec| spec.name == name) else {
            self.errors.push(unknown(name, value));
            return;
        };
        if !spec.repeats
            && let Some(first) = self.given.insert(spec.name, value.to_owned())
        {
            let problem = format!("is given twice, first as \"{first}\"");
            self.errors
                .push(ConfigError::new(name, value, problem, "once"));
            return;
        }
        if let Err(error) = apply(&mut self.config, spec, value) {
            self.errors.push(*error);
        }
    }

    fn rules_file(&mut self) {
        let Some(path) = self.config.rules_file.clone() else {
            return;
        };
        match lines::read("rules_file", &path) {
            Ok(text) => lines::split(&text).for_each(|line| self.rule_line(&path, &line)),
            Err(error) => self.errors.push(*error),
        }
    }

    fn rule_line(&mut self, path: &Path, line: &lines::Line<'_>) {
        const ALLOWED: &str =
            "lines that begin with uplink, downlink or share, and comments that begin with #";
        let outcome = match OPTIONS
            .iter()
            .find(|spec| spec.name == line.key && spec.is_rule())
        {
            Some(spec) => apply(&mut self.config, spec, line.value),
            None => {
                let problem = match line.key.strip_prefix("plugin_opt_") {
                    Some(_) => "stands in a rules file without plugin_opt_",
                    None if options::names().any(|name| name == line.key) => {
                        "is no rule: it belongs into mosquitto.conf"
                    }
                    None => "is no rule",
                };
                Err(Box::new(ConfigError::new(
                    line.key, line.value, problem, ALLOWED,
                )))
            }
        };
        if let Err(error) = outcome {
            self.errors.push(ConfigError {
                file: Some(path.to_owned()),
                line: Some(line.number),
                ..*error
            });
        }
    }

    /// What has no fixed default.
    fn fill_in(&mut self) {
        if !self.given.contains_key("namesrv") {
            let problem = "is missing: without it there is no RocketMQ to send to";
            self.errors
                .push(ConfigError::new("namesrv", "", problem, allowed("namesrv")));
        }
        if !self.given.contains_key("node_id") {
            match node::from_hostname() {
                Ok(node_id) => self.config.node_id = node_id,
                Err(error) => self.errors.push(*error),
            }
        }
        if !self.given.contains_key("group") {
            self.config.group = node::consumer_group(&self.config.node_id);
        }
        if !self.given.contains_key("producer_group") {
            self.config.producer_group = node::producer_group(&self.config.node_id);
        }
    }

    /// Bounds that depend on each other.
    fn check_sizes(&mut self) {
        let Config {
            spool_bytes_max,
            spool_segment_bytes,
            in_flight_bytes_max,
            batch_bytes_max,
            ..
        } = self.config;
        let least = spool_segment_bytes * 3;
        if spool_bytes_max < least {
            let (least, segment) = (
                units::format_size(least),
                units::format_size(spool_segment_bytes),
            );
            let problem = format!("holds less than 3 segments of spool_segment_bytes ({segment})");
            self.errors.push(ConfigError::new(
                "spool_bytes_max",
                &units::format_size(spool_bytes_max),
                problem,
                format!("{least} and more, or a smaller spool_segment_bytes"),
            ));
        }
        if in_flight_bytes_max < batch_bytes_max {
            let batch = units::format_size(batch_bytes_max);
            self.errors.push(ConfigError::new(
                "in_flight_bytes_max",
                &units::format_size(in_flight_bytes_max),
                format!("is less than one batch (batch_bytes_max, {batch})"),
                format!("{batch} and more, or a smaller batch_bytes_max"),
            ));
        }
    }

    fn check_cluster(&mut self) {
        if self.config.cluster.is_none()
            && let Some(rule) = self.config.share.first()
        {
            let problem = "needs a cluster to share with";
            let allowed = "share rules beside a plugin_opt_cluster";
            self.errors
                .push(ConfigError::new("share", &rule.text, problem, allowed));
        }
        if self.config.cluster_node_timeout < Duration::from_secs(1) {
            let text = units::format_duration(self.config.cluster_node_timeout);
            let allowed = allowed("cluster_node_timeout");
            self.errors.push(ConfigError::new(
                "cluster_node_timeout",
                &text,
                "is less than a heartbeat",
                allowed,
            ));
        }
    }

    /// A rule that stands twice would send nothing twice: it is a slip of the pen, likely of another rule.
    fn check_repeated_rules(&mut self) {
        let uplink = self
            .config
            .uplink
            .iter()
            .map(|rule| ("uplink", rule.text.as_str()));
        let downlink = self
            .config
            .downlink
            .iter()
            .map(|rule| ("downlink", rule.text.as_str()));
        let share = self
            .config
            .share
            .iter()
            .map(|rule| ("share", rule.text.as_str()));
        let mut seen = HashSet::new();
        let repeated: Vec<_> = uplink
            .chain(downlink)
            .chain(share)
            .filter(|rule| !seen.insert(*rule))
            .collect();
        let errors = repeated.iter().map(|(name, text)| {
            ConfigError::new(
                name,
                text,
                "the same rule stands there twice",
                "each rule once",
            )
        });
        self.errors.extend(errors.collect::<Vec<_>>());
    }
}

fn apply(config: &mut Config, spec: &Spec, value: &str) -> Result<(), Box<ConfigError>> {
    let error = |problem: String, allowed: &str| {
        Box::new(ConfigError::new(spec.name, value, problem, allowed))
    };
    if value.is_empty() {
        return Err(error("has no value".to_owned(), spec.allowed));
    }
    if let Some(c) = value.chars().find(|c| c.is_control() && *c != '\t') {
        return Err(error(
            format!("has a control character ({:#04x})", u32::from(c)),
            spec.allowed,
        ));
    }
    (spec.apply)(config, value).map_err(|problem| match problem {
        Problem::Text(problem) => error(problem, spec.allowed),
        Problem::Rule(rule) => error(rule.problem, &rule.allowed),
    })
}

fn allowed(name: &str) -> &'static str {
    OPTIONS
        .iter()
        .find(|spec| spec.name == name)
        .map_or("", |spec| spec.allowed)
}

fn unknown(name: &str, value: &str) -> ConfigError {
    let bare = name.strip_prefix("plugin_opt_").unwrap_or(name);
    let nearest = nearest::nearest(bare, options::names()).unwrap_or_default();
    let problem = format!("unknown option; the nearest known one is plugin_opt_{nearest}");
    ConfigError::new(name, value, problem, "the options in docs/configuration.md")
}
