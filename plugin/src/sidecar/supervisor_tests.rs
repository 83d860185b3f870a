//! With shell scripts as sidecars.

use std::path::Path;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

fn until(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !check() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn script(text: &str, patience: Duration) -> Command {
    Command {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), text.into()],
        patience,
    }
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn is_alive(pid: &str) -> bool {
    // A zombie has a directory too, but its command line is gone.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_sidecar_that_dies_at_once_is_started_again_and_leaves_no_zombie() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pids");
    let command = script(
        &format!("echo $$ >> {}; exit 1", file.display()),
        Duration::from_secs(5),
    );
    let mut supervisor = Supervisor::start(command).expect("started");
    until("a third start", || lines(&file).len() >= 3);
    supervisor.stop();
    assert!(supervisor.starts() >= 3);
    let pids = lines(&file);
    for pid in pids {
        assert!(
            !Path::new("/proc").join(&pid).exists(),
            "process {pid} was not reaped"
        );
    }
}

#[test]
fn a_sidecar_is_asked_to_end_by_its_lifeline_and_by_sigterm() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("said");
    // `read` returns at end-of-file; SIGTERM, which comes a moment later, is noted by the trap.
    let text = format!(
        "trap 'echo term >> {0}' TERM; echo $$ >> {0}; read -r line; echo eof >> {0}; n=0; \
         while [ $n -lt 100 ] && ! grep -q term {0}; do sleep 0.1; n=$((n + 1)); done; exit 0",
        file.display()
    );
    let mut supervisor =
        Supervisor::start(script(&text, Duration::from_secs(30))).expect("started");
    until("the start", || !lines(&file).is_empty());
    let began = Instant::now();
    supervisor.stop();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it ended by itself, not by SIGKILL"
    );
    let said = lines(&file);
    assert!(
        said.contains(&"eof".to_owned()) && said.contains(&"term".to_owned()),
        "{said:?}"
    );
}

#[test]
fn a_sidecar_that_does_not_end_is_killed_within_the_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pid");
    let text = format!(
        "trap '' TERM; echo $$ > {}; while :; do sleep 0.1; done",
        file.display()
    );
    let mut supervisor =
        Supervisor::start(script(&text, Duration::from_millis(300))).expect("started");
    until("the start", || !lines(&file).is_empty());
    supervisor.stop();
    assert!(!is_alive(&lines(&file)[0]));
}

#[test]
fn a_sidecar_that_never_stops_writing_is_ended_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pid");
    let text = format!(
        "trap '' TERM; echo $$ > {}; while :; do printf '%04096d' 0; done >&2",
        file.display()
    );
    let mut supervisor =
        Supervisor::start(script(&text, Duration::from_millis(300))).expect("started");
    until("the start", || !lines(&file).is_empty());
    supervisor.stop();
    assert!(!is_alive(&lines(&file)[0]));
}

#[test]
fn what_never_ends_is_read_up_to_a_bound() {
    let mut lines = Lines::default();
    assert!(lines.read(&mut std::io::repeat(b'\n')), "it goes on later");
    assert!(!lines.read(&mut std::io::empty()));
}

#[test]
fn a_sidecar_inherits_no_descriptor_and_no_blocked_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state");
    // A descriptor without close-on-exec, as Mosquitto's sockets are. A high one: the shell's own pipe takes low ones.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    // SAFETY: no pointers.
    let raw = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_DUPFD, 100) };
    assert!(raw >= 100);
    // The mask of grep itself, which is the one that the shell got: around each start of a command the shell blocks all.
    let text = format!(
        "ls /proc/$$/fd | tr '\\n' ' ' > {0}; echo >> {0}; grep SigBlk /proc/self/status >> {0}; \
         echo done >> {0}; read -r line",
        file.display()
    );
    let mut supervisor =
        Supervisor::start(script(&text, Duration::from_secs(10))).expect("started");
    until("the report", || {
        lines(&file).last().is_some_and(|line| line == "done")
    });
    supervisor.stop();
    let report = lines(&file);
    assert!(
        !report[0].split(' ').any(|fd| fd == raw.to_string()),
        "descriptors: {}",
        report[0]
    );
    assert_eq!(
        report[1].split_whitespace().last(),
        Some("0000000000000000"),
        "{report:?}"
    );
}

#[test]
fn the_lines_of_a_sidecar_keep_their_level() {
    assert_eq!(
        level_of("WARN broker is away"),
        (log::Level::Warn, "broker is away")
    );
    assert_eq!(level_of("[INFO] up"), (log::Level::Info, "up"));
    assert_eq!(
        level_of("thread 'main' panicked"),
        (log::Level::Error, "thread 'main' panicked")
    );
    assert_eq!(level_of(""), (log::Level::Error, ""));
}

#[test]
fn an_endless_line_is_cut() {
    let mut lines = Lines::default();
    lines.take(&[b'x'; 10_000]);
    assert_eq!(lines.buffer.len(), LINE_BYTES_MAX);
    lines.take(b"\n");
    assert!(lines.buffer.is_empty());
}
