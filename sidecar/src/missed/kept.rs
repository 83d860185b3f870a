//! `cluster.missed` in the spool: what is yet to be read for clients and for the broker, so that it outlives the sidecar.
//!
//! A line of JSON each, in the order in which they came. The file is written anew, without them, when those that came first are served. A line that can't be read
//! (the last one of a sidecar that was killed) is left out: the event that it followed from is still in its log.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Request, Want};

const FILE: &str = "cluster.missed";

/// What of a request is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Client(Want),
    Retained(u64),
}

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: File,
    unserved: VecDeque<Line>,
    is_failing: bool,
}

/// Whether the request is one of those that are kept.
pub(super) fn is_kept(request: &Request) -> bool {
    !matches!(request, Request::Group(_))
}

fn line_of(request: &Request) -> Option<Line> {
    match request {
        Request::Client(want) => Some(Line::Client(want.clone())),
        Request::Retained(since_ms) => Some(Line::Retained(*since_ms)),
        Request::Group(_) => None,
    }
}

impl Kept {
    /// Reads what was left unserved.
    pub(super) fn open(spool_dir: &Path) -> io::Result<(Kept, Vec<Request>)> {
        let path = spool_dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let unserved: VecDeque<Line> = lines.collect();
        let requests = unserved.iter().cloned().map(|line| match line {
            Line::Client(want) => Request::Client(want),
            Line::Retained(since_ms) => Request::Retained(since_ms),
        });
        let requests = requests.collect();
        let file = written(&path, &unserved)?;
        let kept = Kept {
            path,
            file,
            unserved,
            is_failing: false,
        };
        Ok((kept, requests))
    }

    /// Keeps a request, if it is one of those.
    pub(super) fn add(&mut self, request: &Request) {
        let Some(line) = line_of(request) else {
            return;
        };
        let text = text_of(&line);
        self.unserved.push_back(line);
        let written = match self.is_failing {
            // The last line may be there in part.
            true => self.rewrite(),
            false => self.file.write_all(text.as_bytes()),
        };
        self.judge(written);
    }

    /// So many, those that came first, need not be kept any more.
    pub(super) fn served(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.unserved.drain(..count.min(self.unserved.len()));
        let written = self.rewrite();
        self.judge(written);
    }

    fn rewrite(&mut self) -> io::Result<()> {
        self.file = written(&self.path, &self.unserved)?;
        Ok(())
    }

    /// It is served all the same, unless the sidecar is killed before.
    fn judge(&mut self, written: io::Result<()>) {
        if let Err(error) = &written
            && !self.is_failing
        {
            log::warn!("{} can't be written: {error}", self.path.display());
        }
        self.is_failing = written.is_err();
    }
}

fn text_of(line: &Line) -> String {
    // It has no maps, and so can't fail.
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

/// A new file with these lines, in the place of the old one.
fn written(path: &Path, lines: &VecDeque<Line>) -> io::Result<File> {
    let fresh = path.with_extension("missed.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    let text: String = lines.iter().map(text_of).collect();
    file.write_all(text.as_bytes())?;
    std::fs::rename(&fresh, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(client_id: &str) -> Want {
        Want {
            client_id: client_id.to_owned(),
            filter: "a/\n+".to_owned(),
            earlier: vec!["b/#".into()],
            since_ms: 7,
            downlink_position: u64::MAX,
            uplink_position: 0,
        }
    }

    fn lines(dir: &Path) -> Vec<Line> {
        let (_, requests) = Kept::open(dir).unwrap();
        requests.iter().filter_map(line_of).collect()
    }

    #[test]
    fn what_was_not_served_is_requested_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kept, none) = Kept::open(dir.path()).unwrap();
        assert!(none.is_empty());
        for name in ["one", "two", "three"] {
            kept.add(&Request::Client(want(name)));
        }
        kept.add(&Request::Retained(5));
        kept.served(2);
        kept.add(&Request::Client(want("four")));
        drop(kept);
        let expected = [
            Line::Client(want("three")),
            Line::Retained(5),
            Line::Client(want("four")),
        ];
        assert_eq!(lines(dir.path()), expected);
        assert_eq!(lines(dir.path()), expected, "until it is served");
        // Killed in the midst of a line.
        let path = dir.path().join(FILE);
        let mut text = std::fs::read(&path).unwrap();
        text.truncate(text.len() - 4);
        std::fs::write(&path, text).unwrap();
        assert_eq!(lines(dir.path()), expected[..2]);
        let (mut kept, _) = Kept::open(dir.path()).unwrap();
        kept.served(9);
        assert!(lines(dir.path()).is_empty());
    }
}
