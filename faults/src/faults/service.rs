//! What operators do while it runs, an upgrade of the sidecar and reloads; and what devices do then: all come back at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use harness::probe::unique;
use harness::{Topic, Version, environment, eventually, proc};

use crate::fault::{Fault, Plan, Repeats};
use crate::mqtt::Link;
use crate::run::Run;

pub(super) static UPGRADED: Fault = Fault {
    name: "sidecar-upgraded",
    about: "the sidecar's binary replaced and the sidecar told to end, three times: the way to upgrade it",
    seconds: 30,
    quick: true,
    plan: || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let binary = folder.path().join("mosquitto-rocketmq");
        install(&binary);
        let path = binary.display().to_string();
        Plan {
            // What its drain could not finish is sent again.
            repeats_max: Repeats::SIDECAR_DIED,
            goal_s: Some(2.0),
            holds: vec![Box::new(folder), Box::new(binary)],
            ..Plan::shared()
        }
        .broker(move |spec| spec.option("sidecar_path", path))
    },
    inject: |run| {
        for _ in 0..3 {
            upgrade(run);
            run.flow();
        }
    },
};

/// A new file in the place of the old one, as package managers do it: one that runs can't be written over.
fn install(binary: &Path) {
    let new = binary.with_extension("new");
    fs::copy(environment::sidecar(), &new).expect("a copy of the sidecar");
    fs::rename(&new, binary).expect("the new binary takes its place");
}

fn upgrade(run: &mut Run) {
    let old = run.broker.sidecar_pid();
    install(run.held::<PathBuf>());
    let new = fs::metadata(run.held::<PathBuf>()).expect("the new binary");
    run.begins();
    proc::signal(old, libc::SIGTERM);
    run.ends();
    eventually("the new sidecar runs, from the new binary", || {
        let pid = proc::sidecars(&run.broker.spool_dir())
            .into_iter()
            .find(|pid| *pid != old)?;
        let runs = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        (runs.ino() == new.ino()).then_some(())
    });
}

pub(super) static RELOADED: Fault = Fault {
    name: "mosquitto-reloaded",
    about: "100 times SIGHUP to Mosquitto, each time with other rules in the rules file",
    seconds: 40,
    quick: true,
    plan: || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rules = folder.path().join("rules");
        fs::write(&rules, "").expect("a rules file");
        let path = rules.display().to_string();
        Plan {
            holds: vec![Box::new(folder), Box::new(rules)],
            ..Plan::shared()
        }
        .broker(move |spec| spec.option("rules_file", path))
    },
    inject: reload,
};

const RELOADS: u64 = 100;

fn reload(run: &mut Run) {
    let other = Topic::create(&run.namesrv(), &unique("RELOADED_TOO"), 1);
    let rules = run.held::<PathBuf>().clone();
    for round in 0..RELOADS {
        // A second rule for what one device sends comes and goes, and a third one never matches.
        let second = match round % 2 {
            0 => format!("uplink load/0 {}\n", other.name()),
            _ => String::new(),
        };
        let text = format!("{second}uplink never/{round} {}\n", other.name());
        let new = rules.with_extension("new");
        fs::write(&new, text).expect("a rules file");
        fs::rename(&new, &rules).expect("a rules file");
        run.broker.hup();
        std::thread::sleep(Duration::from_millis(120));
    }
    // Some may have come while the one before was worked on.
    eventually("half of the reloads have been done", || {
        (run.broker.status_number("reloads_ok")? >= RELOADS / 2).then_some(())
    });
    let mut reader = other.reader();
    eventually("a message by a rule of the rules file", || {
        reader.poll();
        (!reader.messages.is_empty()).then_some(())
    });
}

const CLIENTS: usize = 2_000;
/// Of a thread that opens one connection.
const STACK_BYTES: usize = 256 * 1024;

pub(super) static STORM: Fault = Fault {
    name: "reconnect-storm",
    about: "2,000 clients that lose their connections and connect again in the same moment, twice",
    seconds: 60,
    quick: false,
    plan: Plan::shared,
    inject: |run| {
        let mut links = storm(run);
        for _ in 0..2 {
            run.begins();
            drop(links);
            let started = Instant::now();
            links = storm(run);
            run.ends();
            let seconds = started.elapsed().as_secs_f64();
            run.note(format!("{CLIENTS} clients were back after {seconds:.1} s"));
            run.flow();
        }
    },
};

/// Connects all at the same moment, with the sessions that they had.
fn storm(run: &Run) -> Vec<Link> {
    let address = run.address();
    let start = Barrier::new(CLIENTS);
    let connect = |number: usize| {
        start.wait();
        let id = format!("storm-{number}");
        // Mosquitto accepts no more at once than the kernel keeps for it; whoever is turned away tries again, as devices do.
        eventually("a client of the storm is connected", || {
            Link::open(address, Version::ALL[number % 2], &id).ok()
        })
        .0
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                std::thread::Builder::new()
                    .stack_size(STACK_BYTES)
                    .spawn_scoped(scope, move || connect(number))
                    .expect("a thread")
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client of the storm"))
            .collect()
    })
}
