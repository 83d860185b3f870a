//! Mosquitto's own bridges (`connection`) between nodes of the cluster: what they bring of the shared topics is brought by RocketMQ, and must not be
//! taken once more. Taken, it would go round for ever.
//!
//! Which clients they are is said by the configuration (`cluster_bridge`), and else found out by the sidecars: each node tells the others what bridges it
//! has, as its plugin has read them from `mosquitto.conf`.

use std::collections::HashSet;
use std::path::Path;

use protocol::cluster::{
    CARRIERS, Carrier, NATIVE_BRIDGES, NativeBridge, carriers_of, native_bridges_text,
};
use protocol::config::Config;
use protocol::config::mosquitto_conf::Bridge;

use crate::broker_conf::BrokerConf;
use crate::spool::{self, Durability, SpoolError};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Carriers {
    /// By the configuration: the ids at the broker that such a bridge connects to.
    named: Vec<String>,
    /// By the sidecar.
    found: HashSet<String>,
}

impl Carriers {
    /// Those that are named, and those that were found before Mosquitto started.
    pub(crate) fn of(config: &Config, conf: &BrokerConf) -> Carriers {
        let mut carriers = Carriers {
            named: config.cluster_bridge.clone(),
            found: HashSet::new(),
        };
        if config.cluster.is_some() {
            // Without the file they are found once more, in a moment.
            let text = std::fs::read(config.spool_dir.join(CARRIERS)).unwrap_or_default();
            let own: Vec<Carrier> = own(conf).iter().map(NativeBridge::carrier).collect();
            // A bridge that is led elsewhere now may bring what nobody else does.
            let counts = |kept: &Carrier| kept.addresses.is_none() || own.contains(kept);
            let kept = carriers_of(&text).into_iter().filter(counts);
            carriers.found.extend(kept.map(|kept| kept.client_id));
        }
        carriers
    }

    /// Whether this client is one.
    pub(crate) fn has(&self, client_id: &str) -> bool {
        let is_named = |id: &String| {
            // The other end, at the broker that has the bridge.
            client_id == id || client_id.strip_prefix("local.") == Some(id)
        };
        !self.found.is_empty() && self.found.contains(client_id) || self.named.iter().any(is_named)
    }

    /// The sidecar has found that a client is one, or is none any more.
    pub(crate) fn set(&mut self, client_id: String, is_carrier: bool) {
        match is_carrier {
            true => self.found.insert(client_id),
            false => self.found.remove(&client_id),
        };
    }
}

/// Tells the sidecar what bridges this broker has.
pub(crate) fn tell_own(
    dir: &Path,
    conf: &BrokerConf,
    durability: Durability,
) -> Result<(), SpoolError> {
    let text = native_bridges_text(&own(conf));
    spool::replace(dir, NATIVE_BRIDGES, &text, durability)
}

/// The bridges of this broker that rename nothing: what has other names there is not what RocketMQ brings.
fn own(conf: &BrokerConf) -> Vec<NativeBridge> {
    let hostname = hostname();
    let bridges = conf.conf.iter().flat_map(|conf| &conf.bridges);
    let bridges = bridges.filter(|bridge| !bridge.remaps);
    let bridge = |bridge: &Bridge| NativeBridge {
        remote_id: bridge.remote_id(&hostname),
        local_id: bridge.client_id(&hostname),
        addresses: bridge.addresses.clone(),
    };
    bridges.map(bridge).collect()
}

/// The name of this machine, as bridges have it in their client ids.
pub(crate) fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use protocol::cluster::{carriers_text, native_bridges_of};

    use super::*;

    fn config(dir: &Path, options: &[(&str, &str)]) -> Config {
        let fixed = [("namesrv", "127.0.0.1:9876"), ("node_id", "n")];
        let dir = ("spool_dir", dir.to_str().expect("text"));
        Config::from_options(
            fixed
                .into_iter()
                .chain([dir])
                .chain(options.iter().copied()),
        )
        .expect("a configuration")
    }

    #[test]
    fn those_that_are_named_and_those_that_were_found_before_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let carrier = |client_id: &str, addresses: Option<&str>| Carrier {
            client_id: client_id.to_owned(),
            addresses: addresses.map(str::to_owned),
        };
        let kept = [
            carrier("host.kept", None),
            carrier("same", Some("10.0.0.1 10.0.0.2:1884")),
            carrier("elsewhere", Some("10.0.0.1")),
            carrier("gone", Some("10.0.0.1")),
        ];
        std::fs::write(dir.path().join(CARRIERS), carriers_text(kept.iter())).expect("written");
        let conf = BrokerConf::of_text(
            "connection one\nlocal_clientid same\naddresses 10.0.0.1  10.0.0.2:1884\n\
             connection two\nlocal_clientid elsewhere\naddress 10.0.0.3\n",
        );
        let options = [("cluster", "c"), ("cluster_bridge", "host.named")];
        let mut carriers = Carriers::of(&config(dir.path(), &options), &conf);
        assert!(carriers.has("host.named") && carriers.has("local.host.named"));
        assert!(carriers.has("host.kept") && !carriers.has("local.host.kept"));
        assert!(carriers.has("same") && !carriers.has("elsewhere") && !carriers.has("gone"));
        carriers.set("local.found".to_owned(), true);
        carriers.set("host.kept".to_owned(), false);
        assert!(carriers.has("local.found") && !carriers.has("host.kept"));
        assert!(!Carriers::of(&config(dir.path(), &[]), &conf).has("host.kept"));
    }

    #[test]
    fn the_sidecar_is_told_of_bridges_that_rename_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let conf = BrokerConf::of_text(
            "connection one\ntopic a/# both 1\n\
             connection two\nremote_clientid far\nlocal_clientid near\naddress b\ntopic # in\n\
             connection three\ntopic # out 1 \"\" site/\n",
        );
        tell_own(dir.path(), &conf, Durability::Written).expect("written");
        let text = std::fs::read(dir.path().join(NATIVE_BRIDGES)).expect("there");
        let bridge = |remote_id: &str, local_id: &str, addresses: &str| NativeBridge {
            remote_id: remote_id.to_owned(),
            local_id: local_id.to_owned(),
            addresses: addresses.to_owned(),
        };
        let host = hostname();
        let expected = [
            bridge(&format!("{host}.one"), &format!("local.{host}.one"), ""),
            bridge("far", "near", "b"),
        ];
        assert_eq!(native_bridges_of(&text), expected);
    }
}
