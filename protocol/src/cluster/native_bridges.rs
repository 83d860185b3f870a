//! What plugin and sidecar tell each other of Mosquitto's own bridges (`connection`), in files of the spool: what such a bridge brings from
//! another node of the cluster is not to be taken, since RocketMQ brings it.
//!
//! `native.bridges`, from the plugin: a line for each bridge of this broker, with its client id at the other broker, its client id here, and the addresses of the
//! other broker, with tabs between them.
//!
//! `cluster.carriers`, from the sidecar: a line for each client here that is a bridge from or to another node, with its client id and, for a bridge of this broker,
//! the addresses: if it has others now, it is another bridge. It is what the plugin goes by from its start on, until the sidecar tells it more.
//!
//! Both are sealed (`config::seal`). Ids with control characters, which `mosquitto.conf` can't give but by mistake, are left out.

use crate::config::{is_sound, seal};

/// The file of this broker's bridges.
pub const NATIVE_BRIDGES: &str = "native.bridges";
/// The file of the clients that are bridges between nodes.
pub const CARRIERS: &str = "cluster.carriers";

/// A bridge of this broker's, whose topics have the same names on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeBridge {
    /// Its client id at the other broker.
    pub remote_id: String,
    /// Its client id at this one.
    pub local_id: String,
    /// Where it connects to, as `mosquitto.conf` has it.
    pub addresses: String,
}

/// A client of this broker's that is a bridge between nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carrier {
    /// Its client id.
    pub client_id: String,
    /// Where it connects to, for a bridge of this broker's; else it comes from another node.
    pub addresses: Option<String>,
}

impl NativeBridge {
    /// What it is if it connects to another node.
    pub fn carrier(&self) -> Carrier {
        Carrier {
            client_id: self.local_id.clone(),
            addresses: Some(self.addresses.clone()),
        }
    }
}

/// The text of [`NATIVE_BRIDGES`].
pub fn native_bridges_text(bridges: &[NativeBridge]) -> String {
    sealed(bridges.iter().map(|bridge| {
        vec![
            bridge.remote_id.as_str(),
            &bridge.local_id,
            &bridge.addresses,
        ]
    }))
}

/// What [`NATIVE_BRIDGES`] says; nothing when it is damaged.
pub fn native_bridges_of(text: &[u8]) -> Vec<NativeBridge> {
    let bridge = |line: &str| match line.split('\t').collect::<Vec<_>>()[..] {
        [remote_id, local_id, addresses] => Some(NativeBridge {
            remote_id: remote_id.to_owned(),
            local_id: local_id.to_owned(),
            addresses: addresses.to_owned(),
        }),
        _ => None,
    };
    lines(text).filter_map(bridge).collect()
}

/// The text of [`CARRIERS`].
pub fn carriers_text<'a>(carriers: impl Iterator<Item = &'a Carrier>) -> String {
    sealed(carriers.map(|carrier| {
        let addresses = carrier.addresses.as_deref();
        [carrier.client_id.as_str()]
            .into_iter()
            .chain(addresses)
            .collect()
    }))
}

/// What [`CARRIERS`] says; nothing when it is damaged.
pub fn carriers_of(text: &[u8]) -> Vec<Carrier> {
    let carrier = |line: &str| {
        let (client_id, addresses) = match line.split_once('\t') {
            Some((client_id, addresses)) => (client_id, Some(addresses.to_owned())),
            None => (line, None),
        };
        Carrier {
            client_id: client_id.to_owned(),
            addresses,
        }
    };
    lines(text).map(carrier).collect()
}

fn sealed<'a>(rows: impl Iterator<Item = Vec<&'a str>>) -> String {
    let is_plain = |row: &Vec<&str>| {
        let mut words = row.iter();
        !row[0].is_empty() && !words.any(|word| word.contains(char::is_control))
    };
    let lines = rows.filter(is_plain).map(|row| row.join("\t") + "\n");
    seal(&lines.collect::<String>())
}

/// Without the seal, which is the last line.
fn lines(text: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(text)
        .ok()
        .filter(|text| is_sound(text.as_bytes()));
    let sealed = text.and_then(|text| text.trim_end_matches('\n').rsplit_once('\n'));
    sealed.map_or("", |(lines, _)| lines).lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_nothing() {
        let bridge = |remote_id: &str, local_id: &str| NativeBridge {
            remote_id: remote_id.to_owned(),
            local_id: local_id.to_owned(),
            addresses: "10.0.0.1:1883 b".to_owned(),
        };
        let bridges = [
            bridge("host.a b", "local.host.a b"),
            bridge("# crc32c ", "ü"),
        ];
        let text = native_bridges_text(&bridges);
        assert_eq!(native_bridges_of(text.as_bytes()), bridges);
        assert_eq!(native_bridges_of(text.replace('ü', "u").as_bytes()), []);
        assert_eq!(native_bridges_of(native_bridges_text(&[]).as_bytes()), []);
        let odd = [bridge("a\tb", "c"), bridge("", "d"), bridge("e", "f\n")];
        assert_eq!(native_bridges_of(native_bridges_text(&odd).as_bytes()), []);

        let from_elsewhere = Carrier {
            client_id: "one".to_owned(),
            addresses: None,
        };
        let carriers = [from_elsewhere, bridges[1].carrier()];
        let text = carriers_text(carriers.iter());
        assert_eq!(carriers_of(text.as_bytes()), carriers);
        assert!(carriers_of(carriers_text([].iter()).as_bytes()).is_empty());
        assert!(carriers_of(b"").is_empty() && carriers_of(b"one\xff\n").is_empty());
    }
}
