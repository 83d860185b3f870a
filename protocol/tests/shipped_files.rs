//! The configurations and the documentation that the repository ships are those of this version.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::PathBuf;

use protocol::config::mosquitto_conf::MosquittoConf;
use protocol::config::{Config, option_names};

fn read(path: &str) -> String {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn config(text: &str) -> Config {
    let conf = MosquittoConf::parse(text).unwrap();
    assert_eq!(conf.warnings, []);
    let ours = conf.our_plugins().next().unwrap();
    let options = ours
        .options
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    Config::from_options(options).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_shipped_configurations_are_right() {
    assert_eq!(config(&read("mosquitto-conf/minimal.conf")).uplink.len(), 1);
    let (a, b) = (
        config(&read("mosquitto-conf/pair-a.conf")),
        config(&read("mosquitto-conf/pair-b.conf")),
    );
    assert_ne!(
        (&a.node_id, &a.spool_dir, &a.group),
        (&b.node_id, &b.spool_dir, &b.group)
    );
    assert_eq!((a.uplink, a.downlink), (b.uplink, b.downlink));
    let node = config(&read("mosquitto-conf/cluster-node.conf"));
    assert_eq!(node.cluster.as_deref(), Some("factory"));
    assert_eq!(node.share.len(), 2);
}

#[test]
fn the_full_configuration_has_every_option_with_its_default() {
    let text = read("mosquitto-conf/full.conf");
    for name in option_names() {
        assert!(
            text.contains(&format!("plugin_opt_{name} ")),
            "{name} is missing"
        );
    }
    // What is not there unless it is given.
    let absent = [
        "#plugin_opt_rules_file",
        "#plugin_opt_sidecar_path",
        "#plugin_opt_cluster_bridge",
    ];
    let lines = text
        .lines()
        .filter(|line| !absent.iter().any(|option| line.starts_with(option)));
    let all: String = lines
        .map(|line| {
            if line.starts_with("#plugin_opt_") {
                &line[1..]
            } else {
                line
            }
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(
        config(&all).effective_options(),
        config(&text).effective_options()
    );
}

#[test]
fn every_option_is_documented_with_its_default() {
    let text = read("docs/configuration.md");
    for name in option_names() {
        assert!(text.contains(&format!("| `{name}` |")), "{name} is missing");
    }
    let defaults =
        config("plugin /mosquitto_rocketmq.so\nplugin_opt_namesrv a:1\nplugin_opt_node_id n\n")
            .effective_options();
    for line in defaults.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').unwrap();
        if ["namesrv", "node_id", "group", "producer_group"].contains(&name) {
            continue;
        }
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")))
            .unwrap();
        assert!(
            row.contains(&format!("| `{value}` |")),
            "{name}: the default is {value}"
        );
    }
}
