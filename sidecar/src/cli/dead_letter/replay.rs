//! `mosquitto-rocketmq dead-letter replay`: the running sidecar does it, asked over its socket.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::{ReplayArgs, in_dir};
use crate::dead_letter::each;
use crate::dead_letter::replay::{Answer, IDS_MAX, Request};
use crate::status::{REPLAY, SOCKET};

/// Each letter of a request may wait for RocketMQ, but the first that gets no answer ends it.
const TIMEOUT: Duration = Duration::from_secs(120);
/// More than any answer is.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

pub(super) fn run(spool_dir: &Path, dir: &Path, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let ids = wanted(dir, args)?;
    let (mut delivered, mut failed) = (0, 0);
    let mut stopped = None;
    let mut rest: VecDeque<String> = ids.iter().cloned().collect();
    while !rest.is_empty() && stopped.is_none() {
        let asked: Vec<String> = rest.drain(..rest.len().min(IDS_MAX)).collect();
        let answer = ask(spool_dir, asked.clone())?;
        stopped = answer.stopped;
        if answer.results.is_empty() {
            stopped = stopped.or_else(|| Some("the sidecar has no time for them".to_owned()));
        }
        // Those for which it had no time are asked for again, first of all.
        let tried = |id: &String| answer.results.iter().any(|outcome| outcome.id == *id);
        for id in asked.into_iter().filter(|id| !tried(id)).rev() {
            rest.push_front(id);
        }
        for outcome in answer.results {
            match outcome.error {
                None => delivered += 1,
                Some(error) => {
                    failed += 1;
                    writeln!(io::stderr(), "{}: {error}", outcome.id)?;
                }
            }
        }
    }
    writeln!(io::stdout(), "{delivered} dead letters delivered")?;
    let left = ids.len() - delivered - failed;
    if let Some(reason) = stopped.filter(|_| left > 0) {
        writeln!(io::stderr(), "{left} others were not tried: {reason}")?;
    }
    Ok(if delivered == ids.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn wanted(dir: &Path, args: &ReplayArgs) -> anyhow::Result<Vec<String>> {
    if !args.which.all {
        if args.which.ids.is_empty() {
            bail!("which ones? Give their ids, or --all");
        }
        let mut ids = args.which.ids.clone();
        ids.sort();
        ids.dedup();
        return Ok(ids);
    }
    let filter = args.which.filter.filter();
    let mut ids = Vec::new();
    each(dir, |letter| {
        if filter.wants(&letter) {
            ids.push(letter.id);
        }
        Ok(true)
    })
    .map_err(|error| in_dir(dir, &error))?;
    Ok(ids)
}

fn ask(spool_dir: &Path, ids: Vec<String>) -> anyhow::Result<Answer> {
    let body = serde_json::to_string(&Request { ids })?;
    let socket = spool_dir.join(SOCKET);
    let (code, answer) = match post(&socket, REPLAY, &body) {
        Ok(answer) => answer,
        Err(error) => bail!(
            "{}; the dead letters stay as they are",
            why_not(spool_dir, &error)
        ),
    };
    match code {
        200 => Ok(serde_json::from_str(&answer)?),
        404 => bail!(
            "the sidecar on {} is older than this command",
            spool_dir.display()
        ),
        _ => bail!(
            "the sidecar on {} answers: {}",
            spool_dir.display(),
            answer.trim()
        ),
    }
}

fn why_not(spool_dir: &Path, error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut, WouldBlock};
    let dir = spool_dir.display();
    match error.kind() {
        PermissionDenied => {
            format!("{dir}/{SOCKET}: not permitted; run this as Mosquitto's user or as root")
        }
        NotFound | ConnectionRefused => format!(
            "no sidecar runs on {dir}, and it alone can deliver: is Mosquitto running with the plugin?"
        ),
        WouldBlock | TimedOut => format!("the sidecar on {dir} does not answer"),
        _ => format!("{dir}/{SOCKET}: {error}"),
    }
}

/// The status code and the body.
fn post(socket: &Path, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0 and "close" keep the server from chunking: the body is all that follows.
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: sidecar\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    crate::cli::http::parse(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP answer"))
}
