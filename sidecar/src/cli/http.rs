//! One GET over the sidecar's socket. Not a general client: it knows the one server it talks to.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// A sidecar that doesn't answer for so long hangs.
const TIMEOUT: Duration = Duration::from_secs(1);
/// More than any status is.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The status code and the body, or `TimedOut` when they are not there in time.
pub(crate) fn get(socket: &Path, path: &str) -> io::Result<(u16, String)> {
    // In a thread of its own: connecting has no time limit, and hangs when a stopped sidecar's queue is full. The thread ends
    // with this process.
    let (sender, receiver) = mpsc::channel();
    let (socket, path): (PathBuf, String) = (socket.to_owned(), path.to_owned());
    std::thread::spawn(move || sender.send(exchange(&socket, &path)));
    receiver
        .recv_timeout(TIMEOUT)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn exchange(socket: &Path, path: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0 and "close" keep the server from chunking: the body is all that follows.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: sidecar\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP answer"))
}

pub(super) fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_code_and_a_body() {
        assert_eq!(
            parse("HTTP/1.0 200 OK\r\na: b\r\n\r\nhi\r\n\r\nthere"),
            Some((200, "hi\r\n\r\nthere".into()))
        );
        assert_eq!(
            parse("HTTP/1.1 404 Not Found\r\n\r\n"),
            Some((404, String::new()))
        );
        assert_eq!(parse("nonsense"), None);
    }
}
