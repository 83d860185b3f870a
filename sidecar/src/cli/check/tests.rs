//! Each finding for its cause.

use super::*;

fn offline(conf: &str) -> Findings {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mosquitto.conf");
    std::fs::write(&file, conf).unwrap();
    let mut findings = Findings::default();
    if let Some(options) = options_of_mosquitto(&file, true, &mut findings)
        && let Some(config) = config(&options, &mut findings)
    {
        let conf = MosquittoConf::read(&file).unwrap();
        queue_limits(&conf, &config, &mut findings);
    }
    findings
}

const GOOD: &str = "listener 1883\nplugin /usr/lib/mosquitto_rocketmq.so\nplugin_opt_namesrv 10.0.0.1:9876\n\
    plugin_opt_node_id edge-1\nplugin_opt_uplink a/# A\n";

#[test]
fn a_good_configuration_has_no_problems() {
    let findings = offline(GOOD);
    assert_eq!(findings.problems(), 0, "{findings:?}");
    assert!(findings.render().ends_with("no problems\n"));
}

#[test]
fn every_problem_has_a_line() {
    let findings = offline(&format!(
        "{GOOD}plugin_opt_uplink a/#/b A\nplugin_opt_nonsense 1\nplugin_opt_http_listen 0.0.0.0:80\n"
    ));
    let text = findings.render();
    assert!(findings.problems() >= 2, "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("PROBLEM"))
            .count(),
        findings.problems()
    );
    assert!(
        text.contains("a/#/b") && text.contains("nonsense"),
        "{text}"
    );
}

#[test]
fn a_queue_that_is_too_short_for_what_rocketmq_sends_is_told() {
    let down = format!("{GOOD}plugin_opt_downlink T down/%k\n");
    for (line, problems) in [
        ("", 0),
        ("max_queued_messages 100\n", 1),
        ("max_queued_messages 0\n", 0),
    ] {
        let findings = offline(&format!("{line}{down}"));
        assert_eq!(findings.problems(), problems, "{line}{findings:?}");
    }
    // Nothing comes down: it doesn't matter.
    assert_eq!(
        offline(&format!("max_queued_messages 100\n{GOOD}")).problems(),
        0
    );
}

#[test]
fn a_broker_without_the_plugin_is_told_how_to_load_it() {
    let findings = offline("listener 1883\n");
    assert!(findings.render().contains("mosquitto_rocketmq.so"));
    assert_eq!(findings.problems(), 1);
    assert_eq!(
        offline(&format!("{GOOD}plugin /other/mosquitto_rocketmq.so\n")).problems(),
        1
    );
}

#[test]
fn per_listener_settings_depend_on_the_version() {
    let problems = |version| {
        let mut findings = Findings::default();
        per_listener(version, &mut findings);
        findings.problems()
    };
    assert_eq!(
        [
            problems(Some((2, 0, 11))),
            problems(Some((2, 0, 22))),
            problems(Some((2, 1, 2))),
            problems(None)
        ],
        [1, 0, 0, 1]
    );
    assert_eq!(
        parse_version("mosquitto version 2.0.11\n\nmosquitto is"),
        Some((2, 0, 11))
    );
    assert_eq!(parse_version("nothing"), None);
}

#[test]
fn a_spool_that_others_can_read_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let problems = |path: &Path| {
        let mut findings = Findings::default();
        spool(path, &mut findings);
        findings.problems()
    };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(problems(dir.path()), 1);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(problems(dir.path()), 0);
    assert_eq!(problems(&dir.path().join("new/deep")), 0);
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert_eq!(problems(&file), 1);
}

#[test]
fn an_options_file_is_checked_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("options.conf");
    std::fs::write(&file, "namesrv\nnode_id\n").unwrap();
    let mut findings = Findings::default();
    assert_eq!(options_of_file(&file, &mut findings), None);
    assert_eq!(findings.problems(), 2, "{findings:?}");
    assert_eq!(
        options_of_file(&dir.path().join("none"), &mut findings),
        None
    );
    assert_eq!(findings.problems(), 3);
}
