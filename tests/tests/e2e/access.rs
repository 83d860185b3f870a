//! Who may connect, publish and subscribe stays Mosquitto's own business: a broker with the plugin answers as one without.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::mqtt::Refused;
use harness::{BrokerSpec, Client, ClientOptions, Mosquitto, Publication, Topic, Version};

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
            let mut options = ClientOptions::new(version, &format!("{name}-client"));
            if let Some((user, password)) = credentials {
                options = options.credentials(user, password);
            }
            let who = format!("{name} with {version:?}");
            match Client::try_connect(port, &options) {
                Err(Refused(why)) => seen.push(format!("{who}: {why}")),
                Ok(client) => try_topics(&client, &who, &mut seen),
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

fn try_topics(client: &Client, who: &str, seen: &mut Vec<String>) {
    for topic in TOPICS {
        seen.push(format!(
            "{who} subscribes to {topic}: {:?}",
            client.try_subscribe(topic, 1)
        ));
    }
    for topic in TOPICS {
        for qos in 0..=2 {
            let outcome =
                client.try_publish(Publication::new(topic, format!("{topic} {qos}")).qos(qos));
            seen.push(format!(
                "{who} publishes to {topic} with QoS {qos}: {outcome:?}"
            ));
        }
    }
    // `open/x` may be read by all, or nobody may write it: the next SUBACK is behind all deliveries.
    seen.push(format!(
        "{who} is still there: {:?}",
        client.try_subscribe("$SYS/broker/none", 0)
    ));
    let mut got = Vec::new();
    while let Some(message) = client.try_receive() {
        // In which order QoS 0, 1 and 2 come is the broker's own affair.
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
            let spec = BrokerSpec::new(version)
                .uplink(format!("# {} prop.run={version:?}-{guard:?}", topic.name()));
            let with_plugin = guarded(spec, guard, dir.path()).start();
            let seen = try_everything(with_plugin.port);
            assert_eq!(seen, expected, "{version:?} {guard:?}");
            // And with what was taken as the only thing that goes up.
            taken += seen
                .iter()
                .filter(|line| {
                    line.contains(" publishes ") && (line.ends_with(": Acknowledged(\"Success\")"))
                })
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
            let client = broker.client(mqtt, "acl");
            for qos in 0..=2 {
                let _ =
                    client.try_publish(Publication::new("closed/x", "must not be seen").qos(qos));
            }
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
