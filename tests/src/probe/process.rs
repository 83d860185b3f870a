//! The Java process behind the probe: one for all tests, a question and an answer a line.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::child::ChildGuard;
use crate::environment::required_path;

const ANSWER_LIMIT: Duration = Duration::from_secs(90);

struct Probe {
    input: ChildStdin,
    next: u64,
    // Held for its drop at the end of the process; the parent-death signal does the work.
    _process: ChildGuard,
    _home: tempfile::TempDir,
}

type Waiting = Mutex<HashMap<u64, mpsc::Sender<Value>>>;

fn waiting() -> MutexGuard<'static, HashMap<u64, mpsc::Sender<Value>>> {
    static WAITING: OnceLock<Waiting> = OnceLock::new();
    WAITING
        .get_or_init(Waiting::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn probe() -> MutexGuard<'static, Probe> {
    static PROBE: OnceLock<Mutex<Probe>> = OnceLock::new();
    PROBE
        .get_or_init(|| Mutex::new(start()))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Probe {
    let home = tempfile::tempdir().expect("a temporary folder");
    let class_path = format!(
        "{}/*:{}",
        required_path("MRMQ_ROCKETMQ_LIB").display(),
        required_path("MRMQ_JAVA_CLASSES").display()
    );
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-Djava.net.preferIPv4Stack=true",
        ])
        // RocketMQ's client writes its logs below the home folder.
        .arg(format!("-Duser.home={}", home.path().display()))
        .args(["-cp", &class_path, "Probe", "serve"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = ChildGuard::spawn(command, libc::SIGKILL)
        .expect("java: run scripts/test, which installs a JDK");
    let input = process.child.stdin.take().expect("a pipe");
    let output = process.child.stdout.take().expect("a pipe");
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(answer) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if let Some(asker) = answer["id"].as_u64().and_then(|id| waiting().remove(&id)) {
                // It has given up waiting.
                let _ = asker.send(answer);
            }
        }
    });
    Probe {
        input,
        next: 0,
        _process: process,
        _home: home,
    }
}

/// Asks, and waits for the answer.
pub(super) fn try_ask(mut question: Value) -> Result<Value, String> {
    let (asker, answer) = mpsc::channel();
    {
        let mut probe = probe();
        probe.next += 1;
        let id = probe.next;
        question["id"] = json!(id);
        waiting().insert(id, asker);
        writeln!(probe.input, "{question}")
            .map_err(|problem| format!("the Java probe has ended: {problem}"))?;
    }
    let answer = answer
        .recv_timeout(ANSWER_LIMIT)
        .map_err(|_| format!("no answer from the Java probe to {}", question["op"]))?;
    match answer["error"].as_str() {
        Some(problem) => Err(problem.to_owned()),
        None => Ok(answer),
    }
}

/// The same, for what has to succeed.
#[track_caller]
pub(super) fn ask(question: Value) -> Value {
    let what = format!("{} {}", question["op"], question["topic"]);
    try_ask(question).unwrap_or_else(|problem| panic!("the Java probe, {what}: {problem}"))
}
