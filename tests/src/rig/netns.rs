//! A network namespace joined to this one by a cable, on which packets can be dropped.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use super::{is_left_behind, name_of_ours, run, try_run};

const PREFIX: &str = "mrmq-";

/// A network namespace. It ends with this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    cable: String,
    net: u32,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Panics
    /// When it can't be made: that takes root, `ip` and `iptables`.
    #[track_caller]
    pub fn new() -> Namespace {
        remove_left_behind();
        let name = name_of_ours(PREFIX);
        let mut namespace = Namespace {
            // Names of interfaces have 15 characters at most.
            cable: format!("q{}", &name[PREFIX.len()..]),
            name,
            net: 0,
        };
        run(&["ip", "netns", "add", &namespace.name]);
        namespace.lay_cable();
        namespace
    }

    fn lay_cable(&mut self) {
        let (name, cable) = (self.name.clone(), self.cable.clone());
        let inner = format!("{cable}i");
        run(&[
            "ip", "link", "add", &cable, "type", "veth", "peer", "name", &inner, "netns", &name,
        ]);
        // Until the address is taken, nobody else here may look for a free one.
        static CHOOSING: Mutex<()> = Mutex::new(());
        let _choosing = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
        self.net = free_net();
        let [outside, servers, inside] =
            [self.outside(), self.servers(), self.inside()].map(|address| format!("{address}/29"));
        run(&["ip", "addr", "add", &outside, "dev", &cable]);
        run(&["ip", "addr", "add", &servers, "dev", &cable]);
        run(&["ip", "link", "set", &cable, "up"]);
        run(&["ip", "-n", &name, "addr", "add", &inside, "dev", &inner]);
        run(&["ip", "-n", &name, "link", "set", &inner, "up"]);
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
    }

    fn address(&self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.net + host)
    }

    /// The address in the namespace.
    pub fn inside(&self) -> Ipv4Addr {
        self.address(3)
    }

    /// This side's address, from which clients reach [`Namespace::inside`].
    pub fn outside(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// This side's address for servers that the namespace is cut off from by [`Namespace::drop_packets`].
    pub fn servers(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// What starts a command in it.
    pub fn command(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    fn rules(&self, change: &str) {
        let servers = self.servers().to_string();
        for (chain, side) in [("OUTPUT", "-d"), ("INPUT", "-s")] {
            let rule = [
                "iptables", "-w", change, chain, side, &servers, "-j", "DROP",
            ];
            let command: Vec<&str> = self.command().into_iter().chain(rule).collect();
            run(&command);
        }
    }

    /// From now on no packet goes between the namespace and [`Namespace::servers`], and nobody is told so.
    pub fn drop_packets(&self) {
        self.rules("-I");
    }

    /// Packets go again. Returns how many were dropped.
    pub fn pass_packets(&self) -> u64 {
        let listing = ["iptables", "-w", "-L", "-n", "-v", "-x"];
        let command: Vec<&str> = self.command().into_iter().chain(listing).collect();
        let dropped = run(&command)
            .lines()
            .filter(|line| line.contains(" DROP "))
            .filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .sum();
        self.rules("-D");
        dropped
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name, &self.cable);
    }
}

fn remove(name: &str, cable: &str) {
    // The other end goes with it, also while a process is still left in the namespace.
    let removals = [
        try_run(&["ip", "link", "del", cable]),
        try_run(&["ip", "netns", "del", name]),
    ];
    for problem in removals.into_iter().filter_map(Result::err) {
        eprintln!("{problem}");
    }
}

fn remove_left_behind() {
    let listing = try_run(&["ip", "netns", "list"]).unwrap_or_default();
    let names = listing.lines().filter_map(|line| line.split(' ').next());
    for name in names.filter(|name| is_left_behind(name, PREFIX)) {
        remove(name, &format!("q{}", &name[PREFIX.len()..]));
    }
}

/// A network of eight addresses, in 198.18.0.0/15, which RFC 2544 sets aside for tests between two machines.
fn free_net() -> u32 {
    let taken = run(&["ip", "-4", "-o", "addr", "show"]);
    let start = std::process::id().wrapping_mul(17);
    (0..16_384_u32)
        .map(|step| {
            u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (start.wrapping_add(step) % 16_384) * 8
        })
        .find(|net| !taken.contains(&format!(" {}/", Ipv4Addr::from(net + 1))))
        .expect("a free network")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn packets_to_the_servers_are_dropped_and_others_are_not() {
        let namespace = Namespace::new();
        let other = Namespace::new();
        assert_ne!(namespace.inside(), other.inside());
        let servers = TcpListener::bind((namespace.servers(), 0)).expect("a listener");
        let port = servers.local_addr().expect("its address").port();
        let reach = || {
            let address = format!("/dev/tcp/{}/{port}", namespace.servers());
            let script = format!("exec 3<>{address}");
            let command: Vec<&str> = namespace
                .command()
                .into_iter()
                .chain(["timeout", "2", "bash", "-c", &script])
                .collect();
            try_run(&command).is_ok()
        };
        assert!(reach());
        namespace.drop_packets();
        assert!(!reach());
        // Refused at once, as by a machine that can be reached.
        let inside = SocketAddr::from((namespace.inside(), 1));
        let refused = TcpStream::connect_timeout(&inside, Duration::from_secs(10));
        assert_eq!(
            refused
                .map(|mut stream| stream.read(&mut [0]).is_ok())
                .map_err(|e| e.kind()),
            Err(std::io::ErrorKind::ConnectionRefused)
        );
        assert!(namespace.pass_packets() > 0);
        assert!(reach());
        let name = namespace.name.clone();
        drop(namespace);
        assert!(!run(&["ip", "netns", "list"]).contains(&name));
    }
}
