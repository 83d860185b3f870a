//! Options: defaults, values, everything that is wrong at once, and the way to the sidecar and back.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::config::{
    Config, ConfigErrors, Layout, Level, SidecarMode, SpoolFull, SpoolSync, StartFrom, Wake,
    parse_options_file,
};

fn config(options: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::from_options(options.iter().copied())
}

/// Options that are right, beside the one under test.
fn with(option: &str, value: &str) -> Result<Config, ConfigErrors> {
    let mut options = vec![(option, value)];
    options.extend(
        [("namesrv", "127.0.0.1:9876"), ("node_id", "n1")]
            .iter()
            .filter(|(name, _)| *name != option),
    );
    config(&options)
}

fn error(option: &str, value: &str) -> String {
    with(option, value).unwrap_err().to_string()
}

fn reread(config: &Config) -> Config {
    let options = parse_options_file(&config.effective_options()).unwrap();
    Config::from_options(
        options
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )
    .unwrap()
}

#[test]
fn what_is_not_given_has_the_documented_default() {
    let config = config(&[("namesrv", "127.0.0.1:9876"), ("node_id", "edge-1")]).unwrap();
    assert_eq!(config.namesrv, ["127.0.0.1:9876"]);
    assert_eq!(config.spool_dir, Path::new("/var/lib/mosquitto/rocketmq"));
    assert_eq!(
        (config.spool_bytes_max, config.spool_segment_bytes),
        (1 << 30, 16 << 20)
    );
    assert_eq!(
        config.spool_sync,
        SpoolSync::Interval(Duration::from_secs(1))
    );
    assert_eq!(config.spool_full, SpoolFull::Refuse);
    assert_eq!(config.spool_high_water, 90);
    assert_eq!(config.downlink_hold, Duration::from_secs(10));
    assert_eq!(
        (config.downlink_bytes_max, config.downlink_segment_bytes()),
        (64 << 20, 8 << 20)
    );
    assert_eq!(
        (config.downlink_per_tick, config.downlink_from),
        (256, StartFrom::Latest)
    );
    assert_eq!(
        (config.sidecar, config.sidecar_path.as_ref()),
        (SidecarMode::Spawn, None)
    );
    assert_eq!((config.wake, config.layout), (Wake::Auto, Layout::Native));
    assert_eq!(
        (config.group.as_str(), config.producer_group.as_str()),
        ("GID_MQTT_edge-1", "PID_MQTT_edge-1")
    );
    assert_eq!(
        (config.batch_bytes_max, config.batch_messages_max),
        (1 << 20, 64)
    );
    assert_eq!(config.in_flight_bytes_max, 16 << 20);
    assert_eq!(
        (config.drain_timeout, config.topic_missing_timeout),
        (Duration::from_secs(5), Duration::from_secs(60))
    );
    assert_eq!(
        (config.replica_timeout, config.dead_letter_bytes_max),
        (Duration::from_secs(10), 64 << 20)
    );
    assert_eq!(
        (config.dead_letter_bytes_max, config.http_listen),
        (64 << 20, None)
    );
    assert_eq!(
        (config.log_level, config.rules_file.as_ref()),
        (Level::Info, None)
    );
    assert!(config.uplink.is_empty() && config.downlink.is_empty());
}

#[test]
fn without_a_node_id_the_host_name_serves() {
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let config = config(&[("namesrv", "a:1")]).unwrap();
    assert_eq!(config.node_id, hostname.trim().replace('.', "-"));
    assert_eq!(config.group, format!("GID_MQTT_{}", config.node_id));
}

#[test]
fn every_option_is_read() {
    let config = config(&[
        ("namesrv", " a.example:1; 10.0.0.2:65535 "),
        ("node_id", "n_1"),
        ("spool_dir", "/tmp/x"),
        ("spool_bytes_max", "1GiB"),
        ("spool_segment_bytes", "64 KiB"),
        ("spool_sync", "interval 250"),
        ("spool_full", "drop"),
        ("spool_high_water", "75 %"),
        ("downlink_hold", "1500ms"),
        ("downlink_release_delay", "5s"),
        ("downlink_bytes_max", "8MiB"),
        ("downlink_per_tick", "1"),
        ("downlink_from", "earliest"),
        ("uplink", "a/# A"),
        ("sidecar", "external"),
        ("sidecar_path", "/usr/bin/x"),
        ("wake", "pingreq"),
        ("layout", "apsara"),
        ("group", "GID_x"),
        ("producer_group", "PID_x"),
        ("batch_bytes_max", "64KiB"),
        ("batch_messages_max", "1"),
        ("in_flight_bytes_max", "64KiB"),
        ("drain_timeout", "1500ms"),
        ("topic_missing_timeout", "0"),
        ("replica_timeout", "3min"),
        ("dead_letter_bytes_max", "1MiB"),
        ("http_listen", "[::1]:8080"),
        ("log_level", "trace"),
        ("uplink", "b/# B"),
        ("downlink", "C c"),
    ])
    .unwrap();
    assert_eq!(config.namesrv, ["a.example:1", "10.0.0.2:65535"]);
    assert_eq!(
        config.spool_sync,
        SpoolSync::Interval(Duration::from_millis(250))
    );
    assert_eq!(
        (config.spool_segment_bytes, config.downlink_segment_bytes()),
        (65536, 65536)
    );
    assert_eq!(
        config
            .uplink
            .iter()
            .map(|rule| rule.text.as_str())
            .collect::<Vec<_>>(),
        ["a/# A", "b/# B"]
    );
    assert_eq!(config.sidecar_path, Some(PathBuf::from("/usr/bin/x")));
    assert_eq!(config.spool_high_water, 75);
    assert_eq!(config.downlink_hold, Duration::from_millis(1500));
    assert_eq!(config.downlink_release_delay, Duration::from_secs(5));
    assert_eq!(
        (config.topic_missing_timeout, config.replica_timeout),
        (Duration::ZERO, Duration::from_secs(180))
    );
    assert_eq!(config.http_listen.unwrap().port(), 8080);
    assert_eq!(
        reread(&config).effective_options(),
        config.effective_options()
    );
}

#[test]
fn what_is_wrong_is_named_with_option_value_and_what_is_allowed() {
    for (option, value, message) in [
        (
            "namesrv",
            "10.0.0.1",
            "plugin_opt_namesrv \"10.0.0.1\": \"10.0.0.1\" has no port (allowed: host:port",
        ),
        ("namesrv", "a:1;", "has an empty address"),
        ("namesrv", "a:1,b:2", "has no host name or IPv4 address"),
        ("namesrv", "http://a:1", "has no host name"),
        ("namesrv", "a:0", "has a port that is not 1 to 65535"),
        ("namesrv", "a:65536", "has a port that is not 1 to 65535"),
        (
            "node_id",
            "a.b",
            "has the character '.', which can't stand in a RocketMQ group (allowed: 1 to 64 letters",
        ),
        ("node_id", "nöd", "has the character 'ö'"),
        (
            "spool_dir",
            "spool",
            "plugin_opt_spool_dir \"spool\": is not an absolute path",
        ),
        (
            "spool_bytes_max",
            "lots",
            "is not a size (64MiB, 1GiB, 500kB, or a plain number of bytes)",
        ),
        (
            "spool_bytes_max",
            "1KiB",
            "is out of range (allowed: 192KiB to 64TiB",
        ),
        (
            "spool_bytes_max",
            "32MiB",
            "holds less than 3 segments of spool_segment_bytes (16MiB) (allowed: 48MiB and more",
        ),
        ("spool_segment_bytes", "65537", "is not a multiple of 4096"),
        ("spool_segment_bytes", "4KiB", "is out of range"),
        (
            "spool_sync",
            "sometimes",
            "is no sync policy (allowed: none, always, interval",
        ),
        ("spool_sync", "interval 0", "is no sync policy"),
        (
            "spool_full",
            "Drop",
            "is not one of its words; the nearest is \"drop\" (allowed: refuse, drop)",
        ),
        (
            "spool_high_water",
            "0.9",
            "is not a number with a percent sign (allowed: 1% to 100%, such as 90%)",
        ),
        ("spool_high_water", "0%", "is out of range (allowed: 1%"),
        ("spool_high_water", "101%", "is out of range"),
        (
            "spool_high_water",
            "ninety%",
            "is not a whole number in range",
        ),
        ("downlink_hold", "10", "is not a time with its unit"),
        (
            "downlink_release_delay",
            "11min",
            "is out of range (allowed: 0 to 10min",
        ),
        (
            "downlink_hold",
            "1h",
            "is out of range (allowed: 0 to 10min",
        ),
        (
            "downlink_per_tick",
            "0",
            "is out of range (allowed: 1 to 100000)",
        ),
        ("downlink_per_tick", "+5", "is not a whole number"),
        (
            "in_flight_bytes_max",
            "64KiB",
            "is less than one batch (batch_bytes_max, 1MiB)",
        ),
        ("drain_timeout", "5", "is not a time with its unit"),
        ("drain_timeout", "2h", "is out of range"),
        ("http_listen", "8080", "is not an address and a port"),
        ("http_listen", "0.0.0.0:80", "is not a loopback address"),
        ("http_listen", "127.0.0.1:0", "has no port"),
        (
            "group",
            "a b",
            "RocketMQ group \"a b\" has the character ' '",
        ),
        ("sidecar_path", "./x", "is not an absolute path"),
        (
            "log_level",
            "",
            "plugin_opt_log_level: has no value (allowed: error, warn",
        ),
        (
            "wake",
            "a\u{1b}[m",
            "plugin_opt_wake \"a\\u{1b}[m\": has a control character (0x1b)",
        ),
        (
            "uplink",
            "a/#/b T",
            "plugin_opt_uplink \"a/#/b T\": filter \"a/#/b\" has a #",
        ),
        (
            "downlink",
            "a/b x",
            "plugin_opt_downlink \"a/b x\": RocketMQ topic \"a/b\" has the character '/' (allowed: letters",
        ),
        (
            "uplnk",
            "a b",
            "plugin_opt_uplnk \"a b\": unknown option; the nearest known one is plugin_opt_uplink",
        ),
        (
            "plugin_opt_wake",
            "auto",
            "nearest known one is plugin_opt_wake",
        ),
    ] {
        let error = error(option, value);
        assert!(error.contains(message), "{option} {value}: {error}");
        assert!(
            !error.contains('\n') && !error.chars().any(char::is_control),
            "{error}"
        );
    }
}

#[test]
fn a_socket_in_the_spool_directory_must_have_an_address() {
    assert!(with("spool_dir", &format!("/{}", "d".repeat(93))).is_ok());
    assert!(
        error("spool_dir", &format!("/{}", "d".repeat(94)))
            .contains("too long for the address of a socket")
    );
}

#[test]
fn a_long_value_is_not_repeated_whole() {
    assert!(error("wake", &"x".repeat(100_000)).len() < 500);
}

#[test]
fn every_error_is_told_at_once() {
    let errors = config(&[
        ("nodeid", "x"),
        ("wake", "auto"),
        ("wake", "auto"),
        ("uplink", "a"),
        ("rules_file", "/nowhere/at/all"),
        ("spool_bytes_max", "1MiB"),
    ])
    .unwrap_err();
    let told: Vec<&str> = errors.iter().map(|error| error.option.as_str()).collect();
    assert_eq!(
        told,
        [
            "nodeid",
            "wake",
            "uplink",
            "rules_file",
            "namesrv",
            "spool_bytes_max"
        ]
    );
    let text = errors.to_string();
    assert!(
        text.contains(
            "plugin_opt_wake \"auto\": is given twice, first as \"auto\" (allowed: once); "
        ),
        "{text}"
    );
    assert!(text.contains("plugin_opt_namesrv: is missing"), "{text}");
    assert!(
        text.contains("plugin_opt_rules_file \"/nowhere/at/all\": can't be read: No such file"),
        "{text}"
    );
}

#[test]
fn a_rule_that_stands_twice_is_an_error_also_when_it_is_written_otherwise() {
    let twice = [
        ("namesrv", "a:1"),
        ("uplink", "a  T  order=%c"),
        ("uplink", "a T"),
        ("downlink", "T a"),
    ];
    let errors = config(&twice).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "plugin_opt_uplink \"a T\": the same rule stands there twice (allowed: each rule once)"
    );
}

#[test]
fn a_line_of_an_options_file_without_a_value_is_an_error() {
    let errors = parse_options_file("wake auto\n\n# x\nlayout\n").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "line 4: layout: has no value (allowed: an option, a blank and its value)"
    );
}

#[test]
fn shares_need_a_cluster_and_survive_the_round_trip() {
    let base = [("namesrv", "a:1"), ("node_id", "n")];
    let with = |more: &[(&str, &str)]| config(&[&base, more].concat());
    let good = with(&[
        ("cluster", "factory"),
        ("share", "chat/#"),
        ("share", "+/state"),
        ("cluster_presence", "site/clients/"),
        ("cluster_keep_time", "90min"),
        ("cluster_keep_messages", "7"),
        ("cluster_retained_refresh", "0s"),
    ])
    .unwrap();
    assert_eq!(reread(&good).share, good.share);
    assert_eq!(good.share.len(), 2);
    assert_eq!(good.cluster_presence.as_deref(), Some("site/clients"));
    let kept = (
        reread(&good).cluster_keep_time.as_secs(),
        reread(&good).cluster_keep_messages,
    );
    assert_eq!(kept, (5_400, 7));
    let topics = good.cluster_topics().unwrap();
    assert_eq!(topics.messages, "MQTT_CLUSTER_factory");
    let rule = protocol::rules::ShareRule::uplink(&topics);
    assert_eq!(protocol::rules::UplinkRule::parse(&rule.text), Ok(rule));
    let rule = protocol::rules::ShareRule::downlink(&topics);
    assert_eq!(protocol::rules::DownlinkRule::parse(&rule.text), Ok(rule));
    for (options, complaint) in [
        (vec![("share", "chat/#")], "needs a cluster"),
        (vec![("cluster", "a b")], "is no name for a cluster"),
        (
            vec![("cluster", "c"), ("share", "chat/# T")],
            "a topic filter and nothing else",
        ),
        (
            vec![("cluster", "c"), ("share", "a"), ("share", "a")],
            "stands there twice",
        ),
        (vec![("cluster_presence", "a/#")], "wildcard"),
        (
            vec![("cluster_node_timeout", "10ms")],
            "less than a heartbeat",
        ),
    ] {
        let error = with(&options).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}
