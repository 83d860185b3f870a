//! Who may connect, publish and subscribe stays Mosquitto's own business: a broker with the plugin answers as one without.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::mqtt::{Outcome, Refused};
use harness::{
    BrokerSpec, Client, ClientOptions, Mosquitto, Publication, Topic, Version, eventually,
};

const PASSWORD: &str = "right";

/// How a broker guards itself.
#[derive(Debug, Clone, Copy)]
enum Guard {
    Open,
    NoAnonymous,
    Passwords,
    Acl,
    PasswordsAndAcl,
}

const GUARDS: [Guard; 5] = [
    Guard::Open,
    Guard::NoAnonymous,
    Guard::Passwords,
    Guard::Acl,
    Guard::PasswordsAndAcl,
];

fn write_files(dir: &Path) {
    fs::write(
        dir.join("acl"),
        "topic readwrite open/#\n\nuser ann\ntopic readwrite ann/#\ntopic read open/#\n\npattern read of/%u/#\npattern write to/%c/#\n",
    )
    .expect("a file");
    let status = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(dir.join("passwords"))
        .args(["ann", PASSWORD])
        .status()
        .expect("mosquitto_passwd: run scripts/test, which installs it");
    assert!(status.success());
}

fn guarded(spec: BrokerSpec, guard: Guard, dir: &Path) -> BrokerSpec {
    let acl = format!("acl_file {}", dir.join("acl").display());
    let passwords = format!("password_file {}", dir.join("passwords").display());
    match guard {
        Guard::Open => spec,
        Guard::NoAnonymous => spec.no_anonymous(),
        Guard::Passwords => spec.no_anonymous().conf(passwords),
        Guard::Acl => spec.conf(acl),
        Guard::PasswordsAndAcl => spec.no_anonymous().conf(passwords).conf(acl),
    }
}

/// Tries everything, and writes down what came of it.
fn try_everything(port: u16) -> Vec<String> {
    let mut seen = Vec::new();
    for version in Version::ALL {
        for (name, credentials) in [
            ("nobody", None),
            ("ann", Some(("ann", PASSWORD))),
            ("liar", Some(("ann", "wrong"))),
            ("eve", Some(("eve", "x"))),
        ] {
            let options = |role: &str| {
                let options = ClientOptions::new(version, &format!("{name}-{role}"));
                credentials.map_or(options.clone(), |(user, password)| {
                    options.credentials(user, password)
                })
            };
            let who = format!("{name} with {version:?}");
            match Client::try_connect(port, &options("watcher")) {
                Err(Refused(why)) => seen.push(format!("{who}: {why}")),
                Ok(watcher) => try_topics(port, &watcher, &options("client"), &who, &mut seen),
            }
        }
    }
    seen
}

const TOPICS: [&str; 6] = [
    "open/x",
    "ann/x",
    "of/ann/x",
    "to/ann-client/x",
    "to/other/x",
    "other/x",
];

/// Whether the connection is still there, and everything before this is done.
fn is_there(client: &Client) -> bool {
    client.try_subscribe("open/nothing", 0).is_ok()
}

fn try_topics(
    port: u16,
    watcher: &Client,
    options: &ClientOptions,
    who: &str,
    seen: &mut Vec<String>,
) {
    for topic in TOPICS {
        seen.push(format!(
            "{who} subscribes to {topic}: {:?}",
            watcher.try_subscribe(topic, 1)
        ));
    }
    let mut client = Client::connect(port, options);
    for topic in TOPICS {
        for qos in 0..=2 {
            let outcome = match client
                .try_publish(Publication::new(topic, format!("{topic} {qos}")).qos(qos))
            {
                // How the socket's end looks depends on who is faster; an MQTT 5 broker's reason does not.
                Outcome::Closed(how) if !how.contains("ServerDisconnect") => "Closed".to_owned(),
                other => format!("{other:?}"),
            };
            let is_there = is_there(&client);
            // One that is closed for QoS 0 may hear why, or may not.
            let outcome = if qos == 0 { "Sent".to_owned() } else { outcome };
            seen.push(format!(
                "{who} publishes to {topic} with QoS {qos}: {outcome}, stays: {is_there}"
            ));
            if !is_there {
                client = Client::connect(port, options);
            }
        }
    }
    assert!(is_there(watcher), "{who} has only subscribed");
    let mut got = Vec::new();
    while let Some(message) = watcher.try_receive() {
        got.push(format!(
            "{who} receives {} with QoS {}",
            message.text(),
            message.qos
        ));
    }
    got.sort();
    seen.append(&mut got);
}

#[test]
fn every_guard_of_every_mosquitto_answers_as_without_the_plugin() {
    let topic = Topic::shared("ACCESS", 1);
    let dir = tempfile::tempdir().expect("a folder");
    write_files(dir.path());
    let mut taken = 0;
    for version in Mosquitto::ALL {
        for guard in GUARDS {
            let bare =
                guarded(BrokerSpec::new(version).without_plugin(), guard, dir.path()).start();
            let expected = try_everything(bare.port);
            drop(bare);
            // With the PINGREQ connection the plugin has a login check of its own, for that one client.
            for wake in ["eventfd", "pingreq"] {
                let spec = BrokerSpec::new(version)
                    .option("wake", wake)
                    .uplink(format!("# {}", topic.name()))
                    .without_waiting_for_rocketmq();
                let with_plugin = guarded(spec, guard, dir.path()).start();
                let seen = try_everything(with_plugin.port);
                assert_eq!(seen, expected, "{version:?} {guard:?} {wake}");
                eventually("the broker is woken as asked", || {
                    with_plugin.status().filter(|status| status["wake"] == wake)
                });
            }
            taken += expected
                .iter()
                .filter(|line| line.contains(" publishes ") && line.contains("(\"Success\")"))
                .count();
        }
    }
    assert!(taken > 0, "nothing was ever allowed");
}

#[test]
fn what_the_acl_file_denies_does_not_go_up() {
    let topic = Topic::shared("ACL", 1);
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("acl"), "topic readwrite open/#\n").expect("a file");
    let acl = format!("acl_file {}", dir.path().join("acl").display());
    for version in Mosquitto::ALL {
        let broker = BrokerSpec::new(version)
            .uplink(format!("# {}", topic.name()))
            .conf(&acl)
            .start();
        for mqtt in Version::ALL {
            for qos in 0..=2 {
                // Whether it hears of the refusal, and how, is the version's own affair.
                let client = broker.client(mqtt, "acl");
                let denied = Publication::new("closed/x", "must not be seen").qos(qos);
                drop(client.try_publish(denied));
            }
            let client = broker.client(mqtt, "acl");
            client.publish(Publication::new(
                "open/x",
                format!("end of {version:?} {mqtt:?}"),
            ));
        }
        let mut reader = topic.reader();
        reader.wait_for_body(format!("end of {version:?} V5").as_bytes());
        assert!(!reader.texts().contains(&"must not be seen".to_owned()));
    }
}

#[test]
fn sighup_logs_nobody_out() {
    let topic = Topic::shared("ACCESS_HUP", 1);
    let dir = tempfile::tempdir().expect("a folder");
    write_files(dir.path());
    for version in Mosquitto::ALL {
        let spec = BrokerSpec::new(version).uplink(format!("# {}", topic.name()));
        let mut broker = guarded(spec, Guard::PasswordsAndAcl, dir.path()).start();
        let options = ClientOptions::new(Version::V5, "ann-client").credentials("ann", PASSWORD);
        let client = broker.connect(&options);
        broker.hup();
        broker.wait_for_log(&["Reloading config"]);
        let body = format!("after the reload of {version:?}");
        client.publish(Publication::new("ann/x", body.clone()));
        topic.reader().wait_for_body(body.as_bytes());
        // The files are at work as before.
        assert!(
            Client::try_connect(broker.port, &ClientOptions::new(Version::V311, "nobody")).is_err()
        );
        assert!(client.try_subscribe("other/x", 1).is_err() || broker.is_running());
        broker.connect(&ClientOptions::new(Version::V311, "again").credentials("ann", PASSWORD));
    }
}
