//! An `acl_file`, judged as Mosquitto 2.0 judges it (`security_default.c`): would it let this client write to this topic, or read it?
//!
//! Needed on brokers that do not export their own check (Debian's 2.0.21, upstream builds): there this is the only way to know whether a will was sent, and which member of a
//! shared subscription may have a message. Not used for anything else.

use std::fs;
use std::io;
use std::path::Path;

use protocol::trie::TopicTrie;

use crate::events::Client;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Deny,
    Write,
    Read,
    ReadWrite,
    /// No word that Mosquitto knows.
    Other,
}

impl Access {
    /// Whether a line with this says anything about one of the two.
    fn is_about(self, wanted: Access) -> bool {
        self == wanted || matches!(self, Access::Deny | Access::ReadWrite)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// Whom a `topic` line is for; `None`: clients without a user name.
    user: Option<String>,
    pattern: bool,
    access: Access,
    topic: String,
}

/// The lines of the file.
#[derive(Debug, Default)]
pub(crate) struct AclFile {
    lines: Vec<Line>,
}

impl AclFile {
    /// Reads it. The broker has done so before us and refuses a bad one, so a line that makes no sense is left out.
    pub(crate) fn read(path: &Path) -> io::Result<AclFile> {
        Ok(AclFile::parse(&String::from_utf8_lossy(&fs::read(path)?)))
    }

    fn parse(text: &str) -> AclFile {
        let mut lines = Vec::new();
        let mut user = None;
        for line in text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.starts_with('#'))
        {
            let (word, rest) = line
                .trim_start_matches(' ')
                .split_once(' ')
                .unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "user" => user = Some(rest.to_owned()),
                "topic" | "pattern" => {
                    let (access, topic) = access_and_topic(rest);
                    let pattern = word == "pattern";
                    let user = if pattern { None } else { user.clone() };
                    lines.push(Line {
                        user,
                        pattern,
                        access,
                        topic: topic.to_owned(),
                    });
                }
                _ => {}
            }
        }
        AclFile { lines }
    }

    /// Whether it lets the client publish on the topic.
    pub(crate) fn may_write(&self, client: &Client<'_>, topic: &str) -> bool {
        self.may(client, topic, Access::Write)
    }

    /// Whether it lets the client have a message of the topic.
    pub(crate) fn may_read(&self, client: &Client<'_>, topic: &str) -> bool {
        self.may(client, topic, Access::Read)
    }

    /// The client's own lines first, then the patterns; in each, a denial before any permission.
    fn may(&self, client: &Client<'_>, topic: &str, wanted: Access) -> bool {
        let own = self
            .lines
            .iter()
            .filter(|line| !line.pattern && line.user.as_deref() == client.username);
        if let Some(allowed) = judge(
            own.map(|line| (line.access, line.topic.clone())),
            topic,
            wanted,
        ) {
            return allowed;
        }
        // A name with a wildcard in it would turn a pattern into another one.
        let dangerous = |name: &str| name.contains(['+', '#']);
        if client.username.is_some_and(dangerous) || dangerous(client.id) {
            return false;
        }
        let patterns = self
            .lines
            .iter()
            .filter(|line| line.pattern)
            .filter_map(|line| {
                let topic = line.topic.replace("%c", client.id);
                match client.username {
                    Some(name) => Some((line.access, topic.replace("%u", name))),
                    None => (!topic.contains("%u")).then_some((line.access, topic)),
                }
            });
        judge(patterns, topic, wanted).unwrap_or(false)
    }
}

fn access_and_topic(rest: &str) -> (Access, &str) {
    match rest.split_once(' ') {
        None => (Access::ReadWrite, rest),
        Some((word, topic)) => {
            let access = match word {
                "write" => Access::Write,
                "read" => Access::Read,
                "readwrite" => Access::ReadWrite,
                "deny" => Access::Deny,
                _ => Access::Other,
            };
            (access, topic.trim())
        }
    }
}

/// `None`: none of the lines says anything about the topic.
fn judge(
    lines: impl Iterator<Item = (Access, String)>,
    topic: &str,
    wanted: Access,
) -> Option<bool> {
    let mut allowed = None;
    for (access, filter) in lines {
        if !access.is_about(wanted) || !matches(&filter, topic) {
            continue;
        }
        if access == Access::Deny {
            return Some(false);
        }
        allowed = Some(true);
    }
    allowed
}

fn matches(filter: &str, topic: &str) -> bool {
    let mut trie = TopicTrie::new();
    let mut found = false;
    if trie.insert(filter, ()).is_ok() {
        trie.matches(topic, |()| found = true);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client<'a>(id: &'a str, username: Option<&'a str>) -> Client<'a> {
        Client {
            key: 1,
            id,
            username,
            mqtt_version: 4,
        }
    }

    const FILE: &str = "# comment\n\
        topic readwrite open/#\n\
        topic read news/#\n\
        topic deny open/closed\n\
        user ann\n\
        topic write ann/#\n\
        topic plain with blank\n\
        pattern write of/%u/%c\n\
        pattern deny of/%u/secret\n";

    #[test]
    fn lines_without_a_user_are_for_clients_without_a_name() {
        let file = AclFile::parse(FILE);
        let nobody = client("c", None);
        assert!(file.may_write(&nobody, "open/a"));
        assert!(
            !file.may_write(&nobody, "open/closed"),
            "a denial counts wherever it stands"
        );
        assert!(!file.may_write(&nobody, "news/a") && !file.may_write(&nobody, "ann/a"));
        assert!(file.may_read(&nobody, "news/a") && file.may_read(&nobody, "open/a"));
        assert!(!file.may_read(&nobody, "open/closed"));
        assert!(
            !file.may_read(&client("c", Some("ann")), "ann/a"),
            "to write alone"
        );
        assert!(
            !file.may_write(&client("c", Some("bob")), "open/a"),
            "not for those with one"
        );
    }

    #[test]
    fn a_user_has_lines_and_patterns() {
        let file = AclFile::parse(FILE);
        let ann = client("c1", Some("ann"));
        assert!(file.may_write(&ann, "ann/a"));
        assert!(file.may_write(&ann, "of/ann/c1") && !file.may_write(&ann, "of/ann/c2"));
        assert!(!file.may_write(&client("secret", Some("ann")), "of/ann/secret"));
        assert!(
            !file.may_write(&client("c1", None), "of//c1"),
            "%u needs a name"
        );
    }

    #[test]
    fn a_name_with_wildcards_gets_no_pattern() {
        let file = AclFile::parse("pattern write a/%c/b\n");
        assert!(file.may_write(&client("x", None), "a/x/b"));
        assert!(!file.may_write(&client("+", None), "a/x/b"));
        assert!(!file.may_write(&client("x", Some("#")), "a/x/b"));
    }

    #[test]
    fn an_empty_file_denies_everything() {
        assert!(!AclFile::default().may_write(&client("c", None), "a"));
    }
}
