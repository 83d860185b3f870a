//! `cluster.sessions` in the spool: what the events have told, so that it outlives the sidecar.
//!
//! The file begins with all that was known when it was written anew; each event since then is a line behind that. A line that can't
//! be read (the last one of a sidecar that was killed) is left out: its event is still in the hand-off log, and is read again.
//! Events that are read twice do no harm: the last word counts.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::message::{Event, What};

use super::interest::KNOWN;
use super::sessions::{Session, Sessions};

/// The file's name.
pub(super) const FILE: &str = "cluster.sessions";
const MAGIC: &str = "mosquitto-rocketmq cluster sessions 1\n";
/// The file is written anew when so much, and as much as it began with, was added.
const GROWTH_BYTES: u64 = 1 << 20;
/// Written at once when the file is made anew.
const PIECE_BYTES: usize = 64 << 10;

/// The file, to be written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next line goes.
    end: u64,
    /// How long it was when it was made.
    base: u64,
    /// Lines that are not in the file yet.
    lines: String,
}

impl Journal {
    /// Reads what was kept, and begins the file anew with it.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub(super) fn open(spool_dir: &Path, now_ms: u64) -> io::Result<(Journal, Sessions)> {
        let path = spool_dir.join(FILE);
        let mut sessions = Sessions::default();
        match std::fs::read(&path) {
            Ok(bytes) => read(&mut sessions, &String::from_utf8_lossy(&bytes), now_ms),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        sessions.wanted.restored(now_ms);
        sessions.sweep(now_ms);
        let mut journal = Journal {
            file: fresh_file(&path)?,
            path,
            end: 0,
            base: 0,
            lines: String::new(),
        };
        journal.rewrite(&sessions)?;
        Ok((journal, sessions))
    }

    /// Notes an event. [`Journal::flush`] keeps it.
    pub(super) fn note(&mut self, event: &Event<'_>, version: u64) {
        put_event(&mut self.lines, event, version);
    }

    /// Keeps what was noted. On an error it may be tried again.
    pub(super) fn flush(&mut self, sessions: &Sessions) -> io::Result<()> {
        if self.end + self.lines.len() as u64 > self.base * 2 + GROWTH_BYTES {
            return self.rewrite(sessions);
        }
        self.file.write_all_at(self.lines.as_bytes(), self.end)?;
        self.end += self.lines.len() as u64;
        self.lines.clear();
        Ok(())
    }

    /// Writes the whole file anew beside the old one, and puts it in its place.
    fn rewrite(&mut self, sessions: &Sessions) -> io::Result<()> {
        let file = fresh_file(&self.path)?;
        let mut out = MAGIC.to_owned();
        let mut end = 0;
        let mut put = |out: &mut String, least| -> io::Result<()> {
            if out.len() >= least {
                file.write_all_at(out.as_bytes(), end)?;
                end += out.len() as u64;
                out.clear();
            }
            Ok(())
        };
        put_times(&mut out, sessions);
        for (client_id, session) in sessions.iter() {
            put_session(&mut out, client_id, session);
            for filter in sessions.filters_of(session) {
                line(&mut out, &format!("f\t{}", escape(filter)));
            }
            put(&mut out, PIECE_BYTES)?;
        }
        put(&mut out, 0)?;
        std::fs::rename(temporary(&self.path), &self.path)?;
        (self.file, self.end, self.base) = (file, end, end);
        self.lines.clear();
        Ok(())
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("sessions.new")
}

fn fresh_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(temporary(path))
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn put_times(out: &mut String, sessions: &Sessions) {
    let wanted = &sessions.wanted;
    line(out, &format!("R\t{}", wanted.retained_since_ms));
    if let Some(deaf) = wanted.deaf {
        line(out, &format!("D\t{}", deaf.since_ms));
        if let Some(until_ms) = deaf.until_ms {
            line(out, &format!("H\t{until_ms}"));
        }
    }
    let (all_since_ms, tags) = wanted.times();
    if all_since_ms != 0 {
        line(out, &format!("A\t{all_since_ms}"));
    }
    for (tag, since_ms) in tags {
        line(out, &format!("T\t{tag}\t{since_ms}"));
    }
}

fn put_session(out: &mut String, client_id: &str, session: &Session) {
    // Writing into a string can't fail.
    let _ = writeln!(
        out,
        "c\t{}\t{}\t{}\t{}\t{}\t{}",
        session.login,
        session.version,
        session.away_since_ms,
        session.mqtt_version,
        u8::from(session.is_clean),
        escape(client_id)
    );
}

fn put_event(out: &mut String, event: &Event<'_>, version: u64) {
    let at_ms = event.at_ms;
    let text = match event.what {
        // It changes nothing that is kept.
        What::Resumed { .. } => return,
        What::Started { saved_at_ms, .. } => format!("started\t{at_ms}\t{saved_at_ms}"),
        What::Online {
            client_id,
            login,
            mqtt_version,
            clean,
            ..
        } => {
            let (clean, client_id) = (u8::from(clean), escape(client_id));
            format!("online\t{at_ms}\t{login}\t{version}\t{mqtt_version}\t{clean}\t{client_id}")
        }
        What::Offline {
            client_id,
            login,
            cause,
            session_stays,
        } => {
            let (stays, client_id) = (u8::from(session_stays), escape(client_id));
            format!("offline\t{at_ms}\t{login}\t{cause}\t{stays}\t{client_id}")
        }
        What::Subscribed {
            client_id, filter, ..
        } => format!("sub\t{at_ms}\t{}\t{}", escape(client_id), escape(filter)),
        What::Unsubscribed { client_id, filter } => {
            format!("unsub\t{at_ms}\t{}\t{}", escape(client_id), escape(filter))
        }
        What::Restored {
            client_id, filter, ..
        } => format!("saved\t{at_ms}\t{}\t{}", escape(client_id), escape(filter)),
        What::Deaf { why } => format!("deaf\t{at_ms}\t{}", escape(why)),
    };
    line(out, &text);
}

fn read(sessions: &mut Sessions, text: &str, now_ms: u64) {
    let Some(lines) = text.strip_prefix(MAGIC) else {
        log::warn!("{FILE} is not ours, or of another version: it is begun anew");
        return;
    };
    // What has no end was not written to it.
    let whole = lines.rfind('\n').map_or("", |end| &lines[..end]);
    let mut client = String::new();
    for text in whole.split('\n').filter(|text| !text.is_empty()) {
        let fields: Vec<Cow<'_, str>> = text.split('\t').map(unescape).collect();
        let fields: Vec<&str> = fields.iter().map(AsRef::as_ref).collect();
        if read_line(sessions, &fields, &mut client, now_ms).is_none() {
            log::warn!("{FILE}: a line that can't be read is left out");
        }
    }
}

/// Nothing for a line that makes no sense.
fn read_line(
    sessions: &mut Sessions,
    fields: &[&str],
    client: &mut String,
    now_ms: u64,
) -> Option<()> {
    let number = |text: &str| text.parse::<u64>().ok();
    match *fields {
        ["R", since] => sessions.wanted.retained_since_ms = number(since)?,
        ["D", since] => sessions.wanted.set_deaf(number(since)?),
        ["H", _] => sessions.wanted.set_hearing(now_ms),
        ["A", since] => sessions.wanted.restore(None, number(since)?),
        ["T", tag, since] => sessions.wanted.restore(Some(tag), number(since)?),
        ["c", login, version, away, mqtt_version, clean, client_id] => {
            let session = Session {
                login: number(login)?,
                version: number(version)?,
                away_since_ms: number(away)?,
                mqtt_version: mqtt_version.parse().ok()?,
                is_clean: clean == "1",
                ..Session::default()
            };
            sessions.restore(client_id, session);
            client_id.clone_into(client);
        }
        ["f", filter] => sessions.subscribe(client, filter, KNOWN),
        [what, at, ref rest @ ..] => {
            let (what, version) = read_event(what, rest)?;
            let at_ms = number(at)?;
            sessions.apply(&Event { at_ms, what }, version);
        }
        _ => return None,
    }
    Some(())
}

fn read_event<'a>(what: &str, fields: &[&'a str]) -> Option<(What<'a>, u64)> {
    let what = match (what, fields) {
        ("started", [saved]) => What::Started {
            saved_at_ms: saved.parse().ok()?,
            // For the moment in which it happened.
            ran_until_ms: 0,
        },
        ("online", [login, version, mqtt_version, clean, client_id]) => {
            let online = What::Online {
                client_id,
                username: None,
                login: login.parse().ok()?,
                mqtt_version: mqtt_version.parse().ok()?,
                clean: *clean == "1",
            };
            return Some((online, version.parse().ok()?));
        }
        ("offline", [login, cause, stays, client_id]) => What::Offline {
            client_id,
            login: login.parse().ok()?,
            cause: cause.parse().ok()?,
            session_stays: *stays == "1",
        },
        ("sub", [client_id, filter]) => What::Subscribed {
            client_id,
            filter,
            qos: 0,
            downlink_position: 0,
            uplink_position: 0,
        },
        ("unsub", [client_id, filter]) => What::Unsubscribed { client_id, filter },
        ("saved", [client_id, filter]) => What::Restored {
            client_id,
            filter,
            qos: 0,
        },
        ("deaf", [why]) => What::Deaf { why },
        _ => return None,
    };
    Some((what, 0))
}

/// Without tabs and line ends, which stand between fields and lines.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\t', '\n', '\\']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('\\', "\\\\");
    Cow::Owned(text.replace('\t', "\\t").replace('\n', "\\n"))
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('t') => out.push('\t'),
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
#[path = "tests/journal.rs"]
mod tests;
