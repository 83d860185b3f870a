//! Reading `mosquitto.conf` as Mosquitto does.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use protocol::config::mosquitto_conf::{MosquittoConf, MosquittoConfError};

const OURS: &str = "/usr/lib/mosquitto_rocketmq.so";

fn parse(text: &str) -> MosquittoConf {
    MosquittoConf::parse(text).unwrap()
}

fn options(conf: &MosquittoConf) -> Vec<(&str, &str)> {
    let ours = conf.our_plugins().next().unwrap();
    ours.options
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

#[test]
fn plugin_options_belong_to_the_last_plugin_line() {
    let conf = parse(&format!(
        "# a comment\nplugin /usr/lib/other.so\nplugin_opt_config_file /etc/x\n\nplugin {OURS}\r\n\
         plugin_opt_uplink  a/# A tag=%1\nauth_opt_wake auto\nplugin_opt_uplink b B\n\
         auth_plugin /usr/lib/third.so\nplugin_opt_wake no\n"
    ));
    assert_eq!(
        options(&conf),
        [
            ("uplink", "a/# A tag=%1"),
            ("wake", "auto"),
            ("uplink", "b B")
        ]
    );
    let others: Vec<_> = conf
        .other_plugins()
        .map(|plugin| plugin.path.to_str().unwrap())
        .collect();
    assert_eq!(others, ["/usr/lib/other.so", "/usr/lib/third.so"]);
    assert_eq!(conf.security.plugins, [0, 1, 2]);
    assert_eq!(
        (
            conf.our_plugins().count(),
            conf.our_plugins().next().unwrap().line
        ),
        (1, 5)
    );
    assert!(conf.warnings.is_empty(), "{:?}", conf.warnings);
}

#[test]
fn a_broker_without_listeners_serves_loopback_and_lets_anyone_in() {
    let conf = parse(&format!("plugin {OURS}\n"));
    assert!(conf.local_only);
    assert_eq!(conf.listeners.len(), 1);
    let listener = &conf.listeners[0];
    assert_eq!(
        (listener.port, listener.host.as_deref()),
        (1883, Some("127.0.0.1"))
    );
    assert!(listener.is_plain_mqtt() && conf.allows_anonymous(listener));
    let closed = parse("allow_anonymous false\n");
    assert!(closed.local_only && !closed.allows_anonymous(&closed.listeners[0]));
}

#[test]
fn listeners_have_their_settings() {
    let conf = parse(
        "listener 1884 127.0.0.1\nallow_anonymous true\nmax_connections 10\n\
         listener 8883\ncertfile /x\nkeyfile /y\n\
         listener 9001\nprotocol websockets\n\
         listener 0 /run/mosquitto.sock\n\
         listener 1885 # all addresses\nmount_point m/\nenable_proxy_protocol 2\nmax_connections -1\n",
    );
    let ports: Vec<_> = conf
        .listeners
        .iter()
        .map(|listener| listener.port)
        .collect();
    assert_eq!(ports, [1884, 8883, 9001, 0, 1885]);
    let plain: Vec<_> = conf
        .listeners
        .iter()
        .map(|listener| listener.is_plain_mqtt())
        .collect();
    assert_eq!(plain, [true, false, false, false, false]);
    assert_eq!(conf.listeners[0].host.as_deref(), Some("127.0.0.1"));
    assert_eq!(
        (
            conf.listeners[0].max_connections,
            conf.listeners[4].max_connections
        ),
        (Some(10), None)
    );
    assert_eq!(
        conf.listeners[3].unix_socket,
        Some(PathBuf::from("/run/mosquitto.sock"))
    );
    assert_eq!(
        (
            conf.listeners[4].host.as_deref(),
            conf.listeners[4].mount_point.as_deref()
        ),
        (None, Some("m/"))
    );
    assert!(
        !conf.local_only && conf.allows_anonymous(&conf.listeners[1]),
        "allow_anonymous counts for all"
    );
}

#[test]
fn old_style_listener_lines_make_the_default_listener() {
    let conf = parse("port 1890\nbind_address 127.0.0.1\nlistener 1891\n");
    let places: Vec<_> = conf
        .listeners
        .iter()
        .map(|listener| (listener.port, listener.host.as_deref()))
        .collect();
    assert_eq!(places, [(1891, None), (1890, Some("127.0.0.1"))]);
    let conf = parse("max_connections 5\nlistener 1891\n");
    assert_eq!(
        conf.listeners
            .iter()
            .map(|listener| listener.port)
            .collect::<Vec<_>>(),
        [1891, 1883]
    );
}

#[test]
fn with_per_listener_settings_security_belongs_to_the_listener() {
    let conf = parse(&format!(
        "per_listener_settings true\nlistener 1884\npassword_file /p\nacl_file /a b\nplugin {OURS}\n\
         listener 1885\nallow_anonymous true\n"
    ));
    assert!(conf.per_listener_settings && conf.has_acl_file() && conf.has_password_file());
    assert_eq!(conf.security.password_file, None);
    assert_eq!(
        conf.listeners[0].security.acl_file,
        Some(PathBuf::from("/a b"))
    );
    assert_eq!(conf.listeners[0].security.plugins, [0]);
    assert_eq!(
        conf.security_of(&conf.listeners[1]),
        &conf.listeners[1].security
    );
    let anonymous: Vec<_> = conf
        .listeners
        .iter()
        .map(|listener| conf.allows_anonymous(listener))
        .collect();
    assert_eq!(anonymous, [false, true]);
}

#[test]
fn security_files_of_the_whole_broker_are_found() {
    let conf = parse(
        "listener 1884\npassword_file /p\nlistener 1885\npsk_file /q\nallow_anonymous false\n",
    );
    assert_eq!(conf.security.password_file, Some(PathBuf::from("/p")));
    assert_eq!(conf.security.psk_file, Some(PathBuf::from("/q")));
    assert!(
        conf.has_password_file()
            && !conf.has_acl_file()
            && !conf.allows_anonymous(&conf.listeners[0])
    );
    assert_eq!(conf.security_of(&conf.listeners[0]), &conf.security);
}

#[test]
fn plugins_of_mosquitto_2_1_are_read() {
    let conf = parse(&format!(
        "per_listener_settings true\nglobal_plugin /g.so\nplugin_load rocket {OURS}\nplugin_opt_wake auto\n\
         listener 1884\nplugin_use rocket\nplugin_opt_layout native\nlistener_allow_anonymous true\n\
         listener 1885\nplugin_use nobody\n"
    ));
    assert_eq!(options(&conf), [("wake", "auto"), ("layout", "native")]);
    assert_eq!(conf.security.plugins, [0]);
    assert_eq!(conf.listeners[0].security.plugins, [1]);
    assert!(
        conf.allows_anonymous(&conf.listeners[0]) && !conf.allows_anonymous(&conf.listeners[1])
    );
    assert_eq!(conf.warnings.len(), 1);
    assert_eq!(
        (conf.warnings[0].line, conf.warnings[0].problem.as_str()),
        (10, "plugin_use \"nobody\" names no plugin loaded before")
    );
}

#[test]
fn lines_that_mosquitto_reads_otherwise_are_warned_of() {
    let conf = parse(
        "plugin_opt_wake auto\nplugin\t/x.so\nallow_anonymous yes\nlistener 99999\nplugin /y.so\nplugin_opt_wake \n",
    );
    let lines: Vec<_> = conf.warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 6]);
    assert!(
        conf.warnings[1]
            .problem
            .contains("a tab follows \"plugin\"")
    );
}

#[test]
fn included_files_come_in_mosquittos_order_and_begin_with_no_plugin_and_no_listener() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("conf.d");
    fs::create_dir(&include).unwrap();
    fs::write(include.join("b.conf"), "listener 2\nmount_point b\n").unwrap();
    fs::write(include.join("A.conf"), "listener 1\n").unwrap();
    fs::write(
        include.join("c.conf"),
        format!(
            "plugin_opt_wake auto\nplugin {OURS}\nplugin_opt_layout native\ninclude_dir /nowhere\n"
        ),
    )
    .unwrap();
    fs::write(include.join("ignored.txt"), "listener 9\n").unwrap();
    fs::write(include.join(".conf"), "listener 9\n").unwrap();
    let main = dir.path().join("mosquitto.conf");
    fs::write(
        &main,
        format!(
            "plugin /other.so\nlistener 3\ninclude_dir {}\nplugin_opt_x y\nmount_point m\n",
            include.display()
        ),
    )
    .unwrap();
    let conf = MosquittoConf::read(&main).unwrap();
    let listeners: Vec<_> = conf
        .listeners
        .iter()
        .map(|listener| (listener.port, listener.mount_point.as_deref()))
        .collect();
    assert_eq!(listeners, [(3, Some("m")), (1, None), (2, Some("b"))]);
    assert_eq!(options(&conf), [("layout", "native")]);
    assert_eq!(
        conf.plugins[0].options.len(),
        1,
        "the main file's own option"
    );
    assert_eq!(conf.warnings[0].file, include.join("c.conf"));
}

#[test]
fn the_limits_of_a_clients_queue_are_read() {
    let defaults = parse("").queue_limits;
    assert_eq!((defaults.messages, defaults.bytes), (1000, 0));
    let limits =
        parse("max_queued_messages 7\nmax_queued_bytes 8\nmax_inflight_bytes 9\n").queue_limits;
    assert_eq!(
        (limits.messages, limits.bytes, limits.inflight_bytes),
        (7, 8, 9)
    );
    let none = parse("max_queued_messages -1\nmax_queued_bytes many\n");
    assert_eq!(
        (none.queue_limits.messages, none.queue_limits.bytes),
        (0, 0)
    );
    assert_eq!(
        none.warnings[0].problem,
        "max_queued_bytes \"many\" is not a number"
    );
}

#[test]
fn a_file_that_can_not_be_read_is_named() {
    let error = MosquittoConf::read(Path::new("/nowhere/mosquitto.conf")).unwrap_err();
    let MosquittoConfError::Io { path, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(path, Path::new("/nowhere/mosquitto.conf"));
    assert!(
        error
            .to_string()
            .starts_with("/nowhere/mosquitto.conf: No such file")
    );
    assert!(MosquittoConf::parse("include_dir /nowhere\n").is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(
        lines in proptest::collection::vec("(listener|port|plugin|plugin_load|plugin_use|plugin_opt_|auth_opt_x|acl_file|per_listener_settings|protocol|max_connections)? ?[ -~\t]{0,12}", 0..12),
    ) {
        let text: String = lines.iter().filter(|line| !line.contains("include_dir")).map(|line| format!("{line}\n")).collect();
        let conf = parse(&text);
        prop_assert!(!conf.listeners.is_empty());
    }
}

#[test]
fn the_database_is_where_mosquitto_looks_for_it() {
    let path = |text: &str| parse(text).persistence.path();
    let named = "persistence_location /var/lib/mosquitto\npersistence_file x.db\n";
    assert_eq!(path(named), None);
    let on = "persistence true\n";
    assert_eq!(path(on), Some("mosquitto.db".into()));
    assert_eq!(
        path(&format!("{named}{on}")),
        Some("/var/lib/mosquitto/x.db".into())
    );
    assert_eq!(
        path(&format!("{on}persistence_location /var/lib/mosquitto/\n")),
        Some("/var/lib/mosquitto//mosquitto.db".into())
    );
    let odd = parse("persistence maybe\n");
    assert_eq!(odd.warnings.len(), 1);
}

#[test]
fn bridges_subscribe_to_what_goes_out() {
    let conf = parse(
        "topic lost #\nconnection one\naddress 10.0.0.1\ntopic # out 1 local/ remote/\n\
         topic both/+ BOTH  2\ntopic in in 2\ntopic plain\ntopic \"\" both 0 exact other\n\
         topic c out # 2 x/\ntopic d out 1 \"\" r/\ntopic e out 7\n\
         connection two\nremote_clientid far\ntopic x both 0 # a comment\n\
         connection three\nclientid far\nlocal_clientid near\n",
    );
    let [one, two, three] = conf.bridges.as_slice() else {
        panic!("{:?}", conf.bridges)
    };
    let local = |index: usize| -> Vec<(&str, u8)> {
        let all = conf.bridges[index].subscriptions.iter();
        all.map(|it| (it.filter.as_str(), it.qos)).collect()
    };
    assert_eq!(
        local(0),
        [
            ("local/#", 1),
            ("both/+", 2),
            ("plain", 0),
            ("exact", 0),
            ("c", 0),
            ("d", 1)
        ]
    );
    assert_eq!(local(1), [("x", 0)]);
    assert_eq!(one.client_id("host"), "local.host.one");
    assert_eq!(two.client_id("host"), "local.far");
    assert_eq!(three.client_id("host"), "near");
    assert_eq!(one.remote_id("host"), "host.one");
    assert_eq!(two.remote_id("host"), "far");
    assert_eq!(
        (one.addresses.as_str(), two.addresses.as_str()),
        ("10.0.0.1", "")
    );
    assert_eq!([one.remaps, two.remaps, three.remaps], [true, false, false]);
    assert_eq!(conf.warnings.len(), 1, "{:?}", conf.warnings);
}
