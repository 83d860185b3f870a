//! Mosquitto's own bridges to other brokers: what they subscribe to at this one.

/// A `connection`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// `local_clientid`, where it is given.
    pub local_client_id: Option<String>,
    /// `remote_clientid`, where it is given.
    pub remote_client_id: Option<String>,
    /// The brokers that it connects to, as they are written.
    pub addresses: String,
    /// What it takes from this broker: the `topic` lines with `out` or `both`.
    pub subscriptions: Vec<BridgeSubscription>,
    /// Some topics have another name at the other broker.
    pub remaps: bool,
}

/// A subscription of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSubscription {
    /// The filter at this broker.
    pub filter: String,
    /// Its QoS.
    pub qos: u8,
}

impl Bridge {
    pub(super) fn new(name: &str) -> Bridge {
        Bridge {
            name: name.to_owned(),
            ..Bridge::default()
        }
    }

    /// The client id that it has at this broker, on a host of this name.
    pub fn client_id(&self, hostname: &str) -> String {
        match &self.local_client_id {
            Some(id) => id.clone(),
            None => format!("local.{}", self.remote_id(hostname)),
        }
    }

    /// The client id that it has at the other broker.
    pub fn remote_id(&self, hostname: &str) -> String {
        match &self.remote_client_id {
            Some(id) => id.clone(),
            None => format!("{hostname}.{}", self.name),
        }
    }

    /// Takes the line, if it is one that matters here.
    ///
    /// # Errors
    /// When Mosquitto would refuse the value.
    pub(super) fn line(&mut self, key: &str, text: &str) -> Result<bool, String> {
        match key {
            "local_clientid" => self.local_client_id = Some(text.to_owned()),
            "address" | "addresses" => {
                let words = text.split_whitespace();
                self.addresses = words.collect::<Vec<_>>().join(" ");
            }
            "clientid" | "remote_clientid" => self.remote_client_id = Some(text.to_owned()),
            "topic" => {
                let topic = topic(text)?;
                self.remaps |= topic.remaps;
                self.subscriptions.extend(topic.subscription);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What a `topic` line says.
struct TopicLine {
    /// Nothing for one that takes nothing from this broker.
    subscription: Option<BridgeSubscription>,
    remaps: bool,
}

/// `<pattern> [[[out | in | both] qos] local-prefix remote-prefix]`.
fn topic(text: &str) -> Result<TopicLine, String> {
    let given = |word: Option<&&str>| {
        let word = word.copied().unwrap_or("");
        // Both stand for none: the first begins a comment.
        let none = word.starts_with('#') || word == "\"\"";
        if none { String::new() } else { word.to_owned() }
    };
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let pattern = *words.first().ok_or("topic has no value")?;
    let direction = words.get(1).unwrap_or(&"out").to_ascii_lowercase();
    let takes = match direction.as_str() {
        "out" | "both" => true,
        "in" => false,
        _ => {
            return Err(format!(
                "topic direction \"{direction}\" is not out, in or both"
            ));
        }
    };
    let (qos, prefixes) = match words.get(2) {
        None => (0, &[][..]),
        Some(comment) if comment.starts_with('#') => (0, &[][..]),
        Some(word) => {
            let qos = word.parse().ok().filter(|qos| *qos <= 2);
            let qos = qos.ok_or_else(|| format!("topic QoS \"{word}\" is not 0, 1 or 2"))?;
            (qos, &words[3..])
        }
    };
    let prefixes = match prefixes.first() {
        Some(comment) if comment.starts_with('#') => &[][..],
        _ => prefixes,
    };
    let (local, remote) = (given(prefixes.first()), given(prefixes.get(1)));
    // A pattern may well begin with `#`.
    let pattern = if pattern == "\"\"" { "" } else { pattern };
    let filter = format!("{local}{pattern}");
    Ok(TopicLine {
        subscription: takes.then_some(BridgeSubscription { filter, qos }),
        remaps: local != remote,
    })
}
