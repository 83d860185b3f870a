//! The rules file with its reload, and the way of any configuration to the sidecar.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::config::{Config, ConfigErrors, option_names, parse_options_file};

fn config(options: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::from_options(options.iter().copied())
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

/// A configuration with this rules file.
fn with_rules(dir: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let path = dir.join("rules");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    config(&[
        ("namesrv", "a:1"),
        ("node_id", "n"),
        ("uplink", "first ONE"),
        ("rules_file", path),
    ])
}

#[test]
fn the_rules_file_adds_rules_and_the_effective_options_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(
        dir.path(),
        "# rules\n\n  uplink second\tTWO tag=\"x y\" \r\ndownlink THREE three/%k\n",
    )
    .unwrap();
    assert_eq!(config.uplink[1].text, "second TWO \"tag=x y\"");
    let effective = config.effective_options();
    assert!(!effective.contains("rules_file"), "{effective}");
    let again = reread(&config);
    assert_eq!(again.uplink, config.uplink);
    assert_eq!(again.downlink, config.downlink);
    assert_eq!(again.effective_options(), effective);
}

#[test]
fn errors_of_the_rules_file_name_the_file_and_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = "uplink a A\nnamesrv b:2\nplugin_opt_uplink c C\nuplink d\ndownlink\nnonsense x\n";
    let errors = with_rules(dir.path(), text).unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [Some(2), Some(3), Some(4), Some(5), Some(6)]);
    let text = errors.to_string();
    let path = dir.path().join("rules");
    assert!(
        text.starts_with(&format!(
            "{} line 2: namesrv \"b:2\": is no rule: it belongs into mosquitto.conf",
            path.display()
        )),
        "{text}"
    );
    assert!(
        text.contains(
            "line 3: plugin_opt_uplink \"c C\": stands in a rules file without plugin_opt_"
        ),
        "{text}"
    );
    assert!(text.contains("line 5: downlink: has no value"), "{text}");
}

#[test]
fn a_reload_takes_new_rules_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let old = with_rules(dir.path(), "uplink a A\n").unwrap();
    fs::write(dir.path().join("rules"), "uplink b B\ndownlink D d\n").unwrap();
    let new = old.reload_rules().unwrap();
    let texts: Vec<_> = new.uplink.iter().map(|rule| rule.text.as_str()).collect();
    assert_eq!(texts, ["first ONE", "b B"]);
    assert_eq!((new.downlink.len(), &new.node_id), (1, &old.node_id));
    fs::write(dir.path().join("rules"), "uplink b\n").unwrap();
    assert!(
        new.reload_rules()
            .unwrap_err()
            .to_string()
            .contains("line 1: uplink \"b\": the rule lacks")
    );
    fs::write(dir.path().join("rules"), b"uplink \xff T\n").unwrap();
    assert!(
        new.reload_rules()
            .unwrap_err()
            .to_string()
            .contains("is not UTF-8")
    );
    fs::remove_file(dir.path().join("rules")).unwrap();
    assert!(
        new.reload_rules()
            .unwrap_err()
            .to_string()
            .contains("can't be read")
    );
}

proptest! {
    #[test]
    fn any_options_are_a_configuration_or_errors(
        options in vec((option(), value()), 0..8),
        text in "[ -~\n\t]{0,120}|\\PC{0,60}",
    ) {
        let given = options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        match Config::from_options(given) {
            Ok(config) => prop_assert_eq!(reread(&config).effective_options(), config.effective_options()),
            Err(errors) => {
                prop_assert!(errors.iter().count() > 0);
                prop_assert!(!errors.to_string().chars().any(char::is_control), "{}", errors);
            }
        }
        if let Ok(options) = parse_options_file(&text) {
            prop_assert!(options.iter().all(|(key, value)| !key.is_empty() && !value.is_empty()));
        }
    }

    #[test]
    fn any_good_configuration_reaches_the_sidecar_unchanged(
        (segments, extra, per_tick) in (1u64..1000, 0u64..10_000, 1u32..=100_000),
        (drain, sync) in (0u64..3_600_000, 1u64..600_000),
        dir in "/[a-zA-Z0-9 #äß_-]{0,30}[a-z]",
        rules in proptest::collection::btree_set("[a-z]{1,5}(/\\+)?(/#)? [A-Z]{1,5}( tag=%1)?", 0..5),
    ) {
        let segment = segments * 4096 + 61_440;
        let owned = [
            ("namesrv", "a:1".to_owned()),
            ("node_id", "n".to_owned()),
            ("spool_dir", dir),
            ("spool_segment_bytes", segment.to_string()),
            ("spool_bytes_max", (segment * 3 + extra).to_string()),
            ("downlink_per_tick", per_tick.to_string()),
            ("drain_timeout", format!("{drain}ms")),
            ("spool_sync", format!("interval {sync}")),
        ];
        let options = owned.iter().map(|(key, value)| (*key, value.as_str()));
        let config = Config::from_options(options.chain(rules.iter().map(|rule| ("uplink", rule.as_str())))).unwrap();
        let again = reread(&config);
        prop_assert_eq!(&again.spool_dir, &config.spool_dir);
        prop_assert_eq!((again.spool_bytes_max, again.drain_timeout), (segment * 3 + extra, Duration::from_millis(drain)));
        prop_assert_eq!(&again.uplink, &config.uplink);
        prop_assert_eq!(again.effective_options(), config.effective_options());
    }
}

/// Mostly options that exist.
fn option() -> impl Strategy<Value = String> {
    let known: Vec<&str> = option_names()
        .filter(|name| *name != "rules_file")
        .collect();
    prop_oneof![
        8 => prop::sample::select(known).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,12}(ms|s|KiB|MiB| GiB)?",
        "none|always|interval 5|refuse|drop|auto|native|off|spawn|latest|info",
        "a:1|10.0.0.1:9876;b:2|/a/b|n1|127.0.0.1:80",
        "[a/+#]{1,5} [A-Z]{1,4}( tag=%c)?( qos=1)?",
        "[ -~\t]{0,30}",
        any::<String>(),
    ]
}
