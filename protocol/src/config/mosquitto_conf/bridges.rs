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
    /// What it takes from this broker: the `topic` lines with `out` or `both`.
    pub subscriptions: Vec<BridgeSubscription>,
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
        if let Some(id) = &self.local_client_id {
            return id.clone();
        }
        match &self.remote_client_id {
            Some(id) => format!("local.{id}"),
            None => format!("local.{hostname}.{}", self.name),
        }
    }

    /// Takes the line, if it is one that matters here.
    ///
    /// # Errors
    /// When Mosquitto would refuse the value.
    pub(super) fn line(&mut self, key: &str, text: &str) -> Result<bool, String> {
        match key {
            "local_clientid" => self.local_client_id = Some(text.to_owned()),
            "clientid" | "remote_clientid" => self.remote_client_id = Some(text.to_owned()),
            "topic" => self.subscriptions.extend(subscription(text)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `<pattern> [[[out | in | both] qos] local-prefix remote-prefix]`; nothing for one that takes nothing from this broker.
fn subscription(text: &str) -> Result<Option<BridgeSubscription>, String> {
    let given = |word: Option<&str>| {
        let word = word.unwrap_or("");
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
    let (qos, prefix) = match words.get(2) {
        None => (0, None),
        Some(comment) if comment.starts_with('#') => (0, None),
        Some(word) => {
            let qos = word.parse().ok().filter(|qos| *qos <= 2);
            let qos = qos.ok_or_else(|| format!("topic QoS \"{word}\" is not 0, 1 or 2"))?;
            (qos, words.get(3).copied())
        }
    };
    let prefix = given(prefix);
    // A pattern may well begin with `#`.
    let pattern = if pattern == "\"\"" { "" } else { pattern };
    let filter = format!("{prefix}{pattern}");
    Ok(takes.then_some(BridgeSubscription { filter, qos }))
}
