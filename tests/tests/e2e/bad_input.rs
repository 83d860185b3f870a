//! Configurations that have to be refused: Mosquitto does not start, and one line of its log says what is wrong, with which
//! value, and what to do.

use std::fs;
use std::path::Path;

use harness::broker::line_with;
use harness::{BrokerSpec, Mosquitto, Publication, Topic, Version, proc};

/// No such thing is asked for RocketMQ: it need not be there.
fn spec() -> BrokerSpec {
    BrokerSpec::new(Mosquitto::V2_0_11).option("namesrv", "127.0.0.1:1")
}

#[track_caller]
fn assert_says(log: &str, words: &[&str]) {
    assert!(
        line_with(log, words).is_some(),
        "no line of the log has all of {words:?}:\n{log}"
    );
}

#[track_caller]
fn assert_refused(spec: BrokerSpec, words: &[&str]) {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = dir.path().join("spool");
    let log = spec.start_refused_in(dir);
    assert_says(&log, words);
    assert_eq!(
        proc::sidecars(&spool),
        Vec::<u32>::new(),
        "a sidecar was started all the same"
    );
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_one() {
    assert_refused(
        spec().option("spool_byte_max", "1GiB"),
        &["spool_byte_max", "1GiB", "spool_bytes_max"],
    );
}

#[test]
fn a_missing_name_server_is_refused() {
    assert_refused(
        spec().without_option("namesrv"),
        &["plugin_opt_namesrv", "host:port"],
    );
}

#[test]
fn wrong_values_are_refused_with_what_is_allowed() {
    for (option, value, allowed) in [
        ("namesrv", "10.0.0.1", "host:port"),
        ("spool_bytes_max", "plenty", "192KiB"),
        ("spool_sync", "sometimes", "interval"),
        ("spool_full", "explode", "refuse, drop"),
        ("downlink_per_tick", "0", "1 to 100000"),
        ("wake", "loudly", "eventfd"),
        ("drain_timeout", "5", "unit"),
        ("sidecar_path", "bin/mosquitto-rocketmq", "absolute"),
        ("node_id", "a node", "node_id"),
    ] {
        assert_refused(
            spec().option(option, value),
            &[&format!("plugin_opt_{option}"), value, allowed],
        );
    }
}

#[test]
fn all_that_is_wrong_stands_in_one_line() {
    let wrong = spec()
        .option("wake", "loudly")
        .option("nonsense", "1")
        .uplink("a/#/b TOPIC");
    assert_refused(wrong, &["plugin_opt_wake", "loudly", "nonsense", "a/#/b"]);
}

#[test]
fn rules_that_cannot_be_parsed_are_refused() {
    for (rule, words) in [
        ("a/#/b TOPIC", vec!["plugin_opt_uplink", "a/#/b"]),
        ("only/a/filter", vec!["plugin_opt_uplink", "only/a/filter"]),
        ("a/# TOPIC colour=red", vec!["plugin_opt_uplink", "colour"]),
        ("a/# TOPIC key=%q", vec!["plugin_opt_uplink", "%q"]),
        ("a/# TOPIC \"key=%c", vec!["plugin_opt_uplink", "\""]),
    ] {
        assert_refused(spec().uplink(rule), &words);
    }
    for (rule, words) in [
        ("TOPIC", vec!["plugin_opt_downlink", "TOPIC"]),
        ("TOPIC d/+/x", vec!["plugin_opt_downlink", "d/+/x"]),
        ("TOPIC d/x qos=3", vec!["plugin_opt_downlink", "qos", "3"]),
        (
            "TOPIC d/x expiry=soon",
            vec!["plugin_opt_downlink", "expiry", "soon"],
        ),
        ("TOPIC d/%c", vec!["plugin_opt_downlink", "%c"]),
    ] {
        assert_refused(spec().downlink(rule), &words);
    }
}

#[test]
fn topic_names_that_rocketmq_refuses_are_refused() {
    let long = "T".repeat(128);
    for name in ["NOT!ALLOWED", "Grüße", "a.b", long.as_str()] {
        assert_refused(
            spec().uplink(format!("a/# {name}")),
            &["plugin_opt_uplink", name],
        );
        assert_refused(
            spec().downlink(format!("{name} a/b")),
            &["plugin_opt_downlink", name],
        );
    }
}

#[test]
fn a_rules_file_with_an_error_is_refused_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let rules = dir.path().join("rules");
    fs::write(&rules, "uplink a/# TOPIC\n\nuplink b/#/c TOPIC\n").expect("a file");
    let path = rules.display().to_string();
    assert_refused(
        spec().option("rules_file", &path),
        &[&path, "line 3", "b/#/c"],
    );
    let missing = dir.path().join("not-there").display().to_string();
    assert_refused(
        spec().option("rules_file", &missing),
        &["rules_file", &missing],
    );
}

#[test]
fn a_missing_sidecar_is_refused() {
    let missing = "/nowhere/mosquitto-rocketmq";
    assert_refused(
        spec().option("sidecar_path", missing),
        &["sidecar_path", missing],
    );
    // There, but no program.
    let dir = tempfile::tempdir().expect("a folder");
    let text = dir.path().join("text");
    fs::write(&text, "no program").expect("a file");
    let text = text.display().to_string();
    assert_refused(
        spec().option("sidecar_path", &text),
        &["sidecar_path", &text],
    );
}

#[test]
fn a_spool_folder_that_cannot_be_written_is_refused() {
    // Root may write everywhere, but even root can make no folder where a file is.
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "a file").expect("a file");
    let in_place = file.display().to_string();
    assert_refused(
        spec().option("spool_dir", &in_place),
        &["spool_dir", &in_place],
    );
    let below = file.join("spool").display().to_string();
    assert_refused(spec().option("spool_dir", &below), &["spool_dir", &below]);
}

#[test]
fn a_spool_of_another_version_is_refused_and_left_alone() {
    let topic = Topic::shared("VERSION", 1);
    let mut broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("v/# {}", topic.name()))
        .start();
    broker
        .client(Version::V311, "v")
        .publish(Publication::new("v/x", "kept"));
    topic.reader().wait_for_body(b"kept");
    broker.terminate();
    let spool = broker.spool_dir();
    for log in ["uplink", "downlink"] {
        let cursor = spool.join(log).join("cursor");
        let old = fs::read(&cursor).expect("the log's cursor page");
        // docs/handoff-format.md: the version is at offset 8 and keeps its place; a change of one byte would be mended.
        let mut other = old.clone();
        other[8..12].copy_from_slice(&9999u32.to_le_bytes());
        fs::write(&cursor, &other).expect("a file");
        let log = spec()
            .option("spool_dir", spool.display().to_string())
            .start_refused();
        assert_says(&log, &[&spool.display().to_string(), "version", "9999"]);
        assert_eq!(
            fs::read(&cursor).expect("it is there"),
            other,
            "a spool that isn't understood must not be touched"
        );
        fs::write(&cursor, &old).expect("a file");
    }
    // As it was, it serves again.
    broker.start();
    broker
        .client(Version::V311, "v")
        .publish(Publication::new("v/x", "again"));
    topic.reader().wait_for_body(b"again");
}

#[test]
fn a_spool_in_use_by_another_broker_is_refused_and_the_other_goes_on() {
    let topic = Topic::shared("IN_USE", 1);
    let first = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("u/# {}", topic.name()))
        .start();
    let spool = first.spool_dir().display().to_string();
    let log = spec().option("spool_dir", &spool).start_refused();
    let holder = format!("process {}", first.pid());
    assert_says(&log, &["spool_dir", &spool, &holder]);
    first
        .client(Version::V5, "u")
        .publish(Publication::new("u/x", "still at work"));
    topic.reader().wait_for_body(b"still at work");
}

#[test]
fn per_listener_settings_are_refused_on_a_mosquitto_that_would_never_tick_and_work_elsewhere() {
    let per_listener = |version| BrokerSpec::new(version).global_conf("per_listener_settings true");
    let log = per_listener(Mosquitto::V2_0_11).start_refused();
    assert_says(&log, &["per_listener_settings", "true", "2.0.11"]);
    let topic = Topic::shared("LISTENERS", 1);
    for version in [Mosquitto::V2_0_21, Mosquitto::V2_1_2] {
        let broker = per_listener(version)
            .uplink(format!("l/# {}", topic.name()))
            .start();
        let body = format!("from {version:?}");
        broker
            .client(Version::V311, "l")
            .publish(Publication::new("l/x", body.clone()));
        topic.reader().wait_for_body(body.as_bytes());
    }
}

#[test]
fn the_spool_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let topic = Topic::shared("MODES", 1);
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .uplink(format!("m/# {}", topic.name()))
        .start();
    broker
        .client(Version::V311, "m")
        .publish(Publication::new("m/x", "x"));
    topic.reader().wait_for_body(b"x");
    let mut pending = vec![broker.spool_dir()];
    let mut seen = 0;
    while let Some(path) = pending.pop() {
        let mode = |path: &Path| {
            fs::symlink_metadata(path).map(|metadata| metadata.permissions().mode() & 0o777)
        };
        // A file may be recycled while this looks.
        let Ok(found) = mode(&path) else { continue };
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found & !wanted, 0, "{} has mode {found:o}", path.display());
        seen += 1;
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .expect("a folder")
                    .filter_map(|entry| Some(entry.ok()?.path())),
            );
        }
    }
    assert!(seen > 8, "only {seen} files and folders in the spool");
}
