//! Which bell is possible here.

use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use protocol::config::mosquitto_conf::{Listener, MosquittoConf};

use super::pingreq::Address;
use crate::acl::Deciders;
use crate::events::BrokerVersion;
use crate::ffi::c;

/// The bell in use; the numbers stand in the counters page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    None = 0,
    Eventfd = 1,
    Pingreq = 2,
}

impl Method {
    pub(crate) fn as_number(self) -> u64 {
        self as u64
    }
}

/// Versions whose main loop was read and tried with a foreign eventfd in its epoll set.
const KNOWN: &[(u32, u32, u32)] = &[(2, 0, 11), (2, 0, 21), (2, 0, 22), (2, 1, 2)];

/// Whether the eventfd was tried on this version.
pub(crate) fn eventfd_is_known(version: BrokerVersion) -> bool {
    KNOWN.contains(&(version.major, version.minor, version.revision))
}

/// What our BASIC_AUTH answers for logins that are not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuthPlan {
    /// This is neutral.
    Answer(c_int),
    /// Nothing is: the connection can't be used.
    Impossible(&'static str),
}

/// Plugins that check every login: beside them our DEFER changes nothing.
const LOGIN_CHECKERS: &[&str] = &["mosquitto_dynamic_security", "mosquitto-auth", "go-auth"];

/// For Mosquitto 2.0. The same trap as in `acl`: a DEFER of ours, where nobody else checks logins, turns "anonymous
/// allowed" into "refused" for clients with a user name. (2.1 keeps DEFER and IGNORE of several callbacks apart here:
/// IGNORE is always neutral.)
pub(crate) fn auth_plan(conf: &MosquittoConf, deciders: &Deciders) -> AuthPlan {
    if deciders.unknown.is_some() {
        return AuthPlan::Impossible("mosquitto.conf could not be read");
    }
    let checked = conf.has_password_file()
        || deciders
            .before
            .iter()
            .chain(&deciders.after)
            .any(|path| LOGIN_CHECKERS.iter().any(|name| path.contains(name)));
    if checked && !conf.per_listener_settings {
        return AuthPlan::Answer(c::MOSQ_ERR_PLUGIN_DEFER);
    }
    if !deciders.before.is_empty() || !deciders.after.is_empty() {
        return AuthPlan::Impossible("it can't be told whether another plugin checks logins");
    }
    let open: Vec<bool> = conf
        .listeners
        .iter()
        .map(|listener| conf.allows_anonymous(listener))
        .collect();
    match (open.iter().all(|open| *open), open.iter().any(|open| *open)) {
        (true, _) if !conf.has_password_file() => AuthPlan::Answer(c::MOSQ_ERR_SUCCESS),
        (_, false) => AuthPlan::Answer(c::MOSQ_ERR_PLUGIN_DEFER),
        _ => AuthPlan::Impossible("the listeners differ in who may log in"),
    }
}

/// A listener that we can connect to ourselves.
pub(crate) fn ping_address(conf: &MosquittoConf) -> Option<Address> {
    let tcp = conf
        .listeners
        .iter()
        .filter(|listener| listener.is_plain_mqtt())
        .find_map(tcp_address);
    tcp.or_else(|| {
        conf.listeners
            .iter()
            .find_map(|listener| listener.unix_socket.clone())
            .map(Address::Unix)
    })
}

fn tcp_address(listener: &Listener) -> Option<Address> {
    if listener.bind_interface.is_some() {
        return None; // loopback may not be among its addresses
    }
    let ip = match listener.host.as_deref() {
        None | Some("localhost" | "0.0.0.0") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some("::" | "::1") => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(host) => host.parse().ok()?,
    };
    Some(Address::Tcp(SocketAddr::new(ip, listener.port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> MosquittoConf {
        MosquittoConf::parse(text).expect("no files are named")
    }

    #[test]
    fn the_eventfd_is_for_tried_versions_only() {
        let version = |major, minor, revision| BrokerVersion {
            major,
            minor,
            revision,
        };
        assert!(eventfd_is_known(version(2, 0, 11)) && eventfd_is_known(version(2, 1, 2)));
        assert!(!eventfd_is_known(version(2, 0, 23)) && !eventfd_is_known(version(2, 2, 0)));
    }

    #[test]
    fn logins_stay_as_they_are() {
        let nobody = Deciders::default();
        let other = Deciders {
            after: vec!["x.so".to_owned()],
            ..Deciders::default()
        };
        let open = conf("listener 1883\nallow_anonymous true\n");
        let closed = conf("listener 1883\n");
        let file = conf("listener 1883\npassword_file /p\n");
        assert_eq!(auth_plan(&open, &nobody), AuthPlan::Answer(0));
        assert_eq!(auth_plan(&closed, &nobody), AuthPlan::Answer(17));
        assert_eq!(auth_plan(&file, &nobody), AuthPlan::Answer(17));
        let unknown = |conf: &MosquittoConf, deciders: &Deciders| {
            matches!(auth_plan(conf, deciders), AuthPlan::Impossible(_))
        };
        assert!(unknown(&open, &other));
        let dynsec = Deciders {
            before: vec!["/usr/lib/mosquitto_dynamic_security.so".to_owned()],
            ..Deciders::default()
        };
        assert_eq!(auth_plan(&open, &dynsec), AuthPlan::Answer(17));
        // On which listener it is can't be told.
        let listeners = conf("per_listener_settings true\nlistener 1883\nallow_anonymous true\n");
        assert!(unknown(&listeners, &dynsec));
    }

    #[test]
    fn a_listener_that_we_can_reach_is_found() {
        let tcp = |text: &str| ping_address(&conf(text));
        let loopback = |port| Some(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        assert_eq!(tcp("listener 1884\n"), loopback(1884));
        assert_eq!(
            tcp("listener 8883\ncertfile /c\nlistener 1885 0.0.0.0\n"),
            loopback(1885)
        );
        assert_eq!(
            tcp("listener 1884 10.0.0.9\n"),
            Some(Address::Tcp(SocketAddr::from(([10, 0, 0, 9], 1884))))
        );
        assert_eq!(
            tcp("listener 0 /run/m.sock\n"),
            Some(Address::Unix("/run/m.sock".into()))
        );
        assert_eq!(tcp("listener 8080\nprotocol websockets\n"), None);
    }
}
