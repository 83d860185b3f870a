//! The command line that people use.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::environment::{plugin, shared_namesrv, sidecar};
use harness::{BrokerSpec, Mosquitto, Publication, Topic, Version, eventually};

fn run(arguments: &[&str]) -> Output {
    Command::new(sidecar())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn status_tells_rules_spool_and_connection_to_people_and_to_programs() {
    let (topic, down) = (
        Topic::shared("CLI_STATUS", 1),
        Topic::shared("CLI_STATUS_DOWN", 1),
    );
    let broker = BrokerSpec::new(Mosquitto::V2_0_11)
        .option("node_id", "cli-status")
        .option("downlink_from", "earliest")
        .uplink(format!("s/# {}", topic.name()))
        .downlink(format!("{} d/x", down.name()))
        .start();
    let client = broker.client(Version::V311, "cli");
    client.subscribe("d/#", 1);
    for number in 0..10 {
        client.publish(Publication::new("s/x", number.to_string()));
    }
    down.produce(&[harness::Produced::new("down")]);
    assert_eq!(client.receive().text(), "down");
    // The counters of both directions follow what happens.
    let status = eventually("the status has counted ten up and one down", || {
        let status = broker.status()?;
        let is_done = status["uplink"]["rules"][0]["sent"] == 10
            && status["downlink"]["rules"][0]["handed_over"] == 1;
        is_done.then_some(status)
    });
    assert_eq!(status["node_id"], "cli-status");
    assert_eq!(status["sidecar_running"], true);
    assert_eq!(status["pid"], broker.sidecar_pid());
    assert_eq!(status["rocketmq"]["connected"], true);
    assert_eq!(status["rocketmq"]["namesrv"][0], shared_namesrv());
    assert_eq!(
        status["uplink"]["rules"][0]["rule"],
        format!("s/# {}", topic.name())
    );
    assert_eq!(status["plugin"]["uplink_appended"], 10);
    assert_eq!(status["plugin"]["downlink_injected"], 1);
    assert_eq!(status["wake"], "eventfd");
    assert_eq!(status["broker_version"], "2.0.11");
    let spool = broker.spool_dir().display().to_string();
    let shown = run(&["status", "--spool-dir", &spool]);
    assert!(shown.status.success(), "{}", text(&shown));
    for word in [
        "cli-status",
        topic.name(),
        down.name(),
        "2.0.11",
        &shared_namesrv(),
    ] {
        assert!(
            text(&shown).contains(word),
            "{word} is not in:\n{}",
            text(&shown)
        );
    }
}

#[test]
fn status_without_a_sidecar_says_so_and_fails() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = dir.path().display().to_string();
    let shown = run(&["status", "--spool-dir", &spool]);
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown));
    assert!(text(&shown).contains(&spool), "{}", text(&shown));
}

fn conf(dir: &Path, options: &str) -> String {
    let path = dir.join("mosquitto.conf");
    let text = format!(
        "listener 18999 127.0.0.1\nallow_anonymous true\nplugin {}\n{options}",
        plugin().display()
    );
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[test]
fn check_passes_a_good_configuration_and_names_what_is_wrong_in_a_bad_one() {
    let topic = Topic::shared("CLI_CHECK", 1);
    let dir = tempfile::tempdir().expect("a folder");
    let options = |namesrv: &str| {
        format!(
            "plugin_opt_namesrv {namesrv}\nplugin_opt_node_id check\nplugin_opt_spool_dir {}\nplugin_opt_sidecar_path {}\n\
             plugin_opt_uplink a/# {}\n",
            dir.path().join("spool").display(),
            sidecar().display(),
            topic.name()
        )
    };
    let good = conf(dir.path(), &options(&shared_namesrv()));
    let checked = run(&["check", "--config", &good]);
    assert!(checked.status.success(), "{}", text(&checked));

    let unreachable = conf(dir.path(), &options("127.0.0.1:1"));
    let checked = run(&["check", "--config", &unreachable]);
    assert!(!checked.status.success(), "{}", text(&checked));
    assert!(text(&checked).contains("127.0.0.1:1"), "{}", text(&checked));
    // Nothing wrong in what is written.
    let checked = run(&["check", "--offline", "--config", &unreachable]);
    assert!(checked.status.success(), "{}", text(&checked));

    let bad = conf(
        dir.path(),
        &format!(
            "{}plugin_opt_wake loudly\nplugin_opt_uplink b/#/c TOPIC\n",
            options("127.0.0.1:1")
        ),
    );
    let checked = run(&["check", "--offline", "--config", &bad]);
    assert!(!checked.status.success(), "{}", text(&checked));
    for word in ["wake", "loudly", "b/#/c"] {
        assert!(
            text(&checked).contains(word),
            "{word} is not in:\n{}",
            text(&checked)
        );
    }
}

#[test]
fn publish_sends_into_rocketmq() {
    let topic = Topic::shared("CLI_PUBLISH", 1);
    let namesrv = shared_namesrv();
    let sent = run(&[
        "publish",
        topic.name(),
        "hello",
        "--namesrv",
        &namesrv,
        "--tag",
        "red",
        "--key",
        "k1",
        "--property",
        "mqtt_qos=2",
        "--property",
        "colour=grün",
        "--client-id",
        "device-1",
        "--count",
        "3",
    ]);
    assert!(sent.status.success(), "{}", text(&sent));
    let mut reader = topic.reader();
    for stored in reader.wait_for(3) {
        assert_eq!(stored.body, b"hello");
        assert_eq!(
            (stored.tag.as_deref(), stored.keys.as_deref()),
            (Some("red"), Some("k1"))
        );
        assert_eq!(stored.property("mqtt_qos"), Some("2"));
        assert_eq!(stored.property("colour"), Some("grün"));
        assert_eq!(stored.property("client_id"), Some("device-1"));
    }
    assert_eq!(reader.messages.len(), 3);
    let failed = run(&["publish", "NO!TOPIC", "hello", "--namesrv", &namesrv]);
    assert!(!failed.status.success(), "{}", text(&failed));
    assert!(text(&failed).contains("NO!TOPIC"), "{}", text(&failed));
}
