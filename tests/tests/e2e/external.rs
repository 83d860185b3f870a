//! The sidecar as a service of its own: `plugin_opt_sidecar external`, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::child::ChildGuard;
use harness::environment::sidecar;
use harness::{
    Broker, BrokerSpec, DEADLINE, Mosquitto, Publication, Topic, Version, eventually, proc,
};

fn start_sidecar(spool: &Path) -> ChildGuard {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(spool.with_extension("sidecar.log"))
        .expect("a log file");
    let mut command = Command::new(sidecar());
    command
        .args(["sidecar", "--spool-dir"])
        .arg(spool)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log);
    ChildGuard::spawn(command, libc::SIGKILL).expect("the sidecar")
}

fn sidecar_log(spool: &Path) -> String {
    fs::read_to_string(spool.with_extension("sidecar.log")).unwrap_or_default()
}

fn broker(topic: &Topic, namesrv: &str) -> Broker {
    BrokerSpec::new(Mosquitto::V2_0_11)
        .option("sidecar", "external")
        .option("namesrv", namesrv)
        .uplink(format!("x/# {}", topic.name()))
        .without_waiting_for_rocketmq()
        .start()
}

#[track_caller]
fn terminated(mut process: ChildGuard, spool: &Path) -> Option<i32> {
    process.signal(libc::SIGTERM);
    let status = process.wait_for(Duration::from_secs(20));
    status
        .unwrap_or_else(|| panic!("the sidecar outlives SIGTERM:\n{}", sidecar_log(spool)))
        .code()
}

#[test]
fn an_external_sidecar_is_neither_started_nor_ended_by_the_plugin() {
    let topic = Topic::shared("EXTERNAL", 1);
    let mut broker = broker(&topic, &harness::environment::shared_namesrv());
    let spool = broker.spool_dir();
    let client = broker.client(Version::V311, "x");
    client.publish(Publication::new("x/1", "before it ran"));
    assert_eq!(proc::sidecars(&spool), Vec::<u32>::new());
    let process = start_sidecar(&spool);
    let mut reader = topic.reader();
    reader.wait_for_body(b"before it ran");
    // Mosquitto ends and comes back, and the sidecar goes on with it.
    broker.terminate();
    broker.start();
    broker
        .client(Version::V5, "x")
        .publish(Publication::new("x/2", "after Mosquitto's restart"));
    reader.wait_for_body(b"after Mosquitto's restart");
    assert_eq!(proc::sidecars(&spool), [process.pid()]);
    assert_eq!(
        terminated(process, &spool),
        Some(0),
        "all is sent:\n{}",
        sidecar_log(&spool)
    );
    // And upgraded in flight: another one takes over.
    broker
        .client(Version::V5, "x")
        .publish(Publication::new("x/3", "between two"));
    let _next = start_sidecar(&spool);
    reader.wait_for_body(b"between two");
    assert_eq!(
        reader.texts(),
        ["before it ran", "after Mosquitto's restart", "between two"]
    );
}

#[test]
fn a_sidecar_that_cannot_send_says_so_by_its_exit_code_within_seconds() {
    let nowhere = format!("127.0.0.1:{}", harness::broker::free_port());
    let topic = Topic::named(&nowhere, "NOWHERE");
    let broker = broker(&topic, &nowhere);
    let spool = broker.spool_dir();
    broker
        .client(Version::V311, "x")
        .publish(Publication::new("x/1", "stays in the spool"));
    let process = start_sidecar(&spool);
    eventually("its status answers", || broker.status());
    assert_eq!(
        terminated(process, &spool),
        Some(3),
        "{}",
        sidecar_log(&spool)
    );
}

#[test]
fn a_second_sidecar_on_a_spool_gives_up_with_its_own_exit_code() {
    let topic = Topic::shared("SECOND", 1);
    let broker = broker(&topic, &harness::environment::shared_namesrv());
    let spool = broker.spool_dir();
    let _first = start_sidecar(&spool);
    eventually("the first one's status answers", || broker.status());
    let mut second = start_sidecar(&spool);
    let status = second.wait_for(DEADLINE).expect("it gives up");
    assert_eq!(status.code(), Some(4), "{}", sidecar_log(&spool));
    broker
        .client(Version::V311, "x")
        .publish(Publication::new("x/1", "the first one works"));
    topic.reader().wait_for_body(b"the first one works");
}

#[test]
fn a_sidecar_without_a_configuration_ends_with_the_code_for_that() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = dir.path().join("spool");
    fs::create_dir(&spool).expect("a folder");
    fs::write(spool.join("options.conf"), "namesrv nonsense\n").expect("a file");
    let mut process = start_sidecar(&spool);
    let status = process.wait_for(DEADLINE).expect("it gives up");
    assert_eq!(status.code(), Some(2), "{}", sidecar_log(&spool));
    assert!(
        sidecar_log(&spool).contains("nonsense"),
        "{}",
        sidecar_log(&spool)
    );
}

#[test]
fn a_damaged_message_in_the_spool_costs_itself_alone_and_is_counted() {
    const COUNT: usize = 100;
    let topic = Topic::shared("FLIPPED", 1);
    let mut broker = broker(&topic, &harness::environment::shared_namesrv());
    let spool = broker.spool_dir();
    let client = broker.client(Version::V311, "x");
    let bodies: Vec<String> = (0..COUNT)
        .map(|number| format!("body number {number:03}."))
        .collect();
    for body in &bodies {
        client.publish(Publication::new("x/1", body.clone()));
    }
    broker.terminate();
    let victim = bodies[COUNT / 2].as_bytes();
    let flipped = fs::read_dir(spool.join("uplink"))
        .expect("the log")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
        })
        .any(|path| {
            let mut bytes = fs::read(&path).expect("a segment");
            let Some(at) = bytes
                .windows(victim.len())
                .position(|window| window == victim)
            else {
                return false;
            };
            // One byte alone would be mended.
            for byte in &mut bytes[at..at + victim.len()] {
                *byte ^= 0x55;
            }
            fs::write(&path, bytes).expect("a segment");
            true
        });
    assert!(flipped, "the message is not in the spool");
    broker.start();
    let _process = start_sidecar(&spool);
    let mut reader = topic.reader();
    reader.wait_for(COUNT - 1);
    let expected: Vec<String> = bodies
        .iter()
        .filter(|body| body.as_bytes() != victim)
        .cloned()
        .collect();
    assert_eq!(reader.texts(), expected);
    eventually("the status counts it", || {
        broker
            .status_number("corrupt_frames")
            .filter(|count| *count == 1)
    });
}
