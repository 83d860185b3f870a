//! `mosquitto-rocketmq nodes` and `mosquitto-rocketmq clients`: asked of the running sidecar of any node.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;

use super::text::{bytes, duration};
use super::{SPOOL_DIR, percent, status};
use crate::cluster::report::{Client, Clients, Node, Report, State};
use crate::metrics::unix_ms;
use crate::status::CLIENTS;

/// Shows the nodes of the cluster, and how each stands.
///
/// Asks the running sidecar of this node: it is its view. Exits with 0 when all nodes are alive or have left on purpose, with 1 when not or when it
/// can't be asked.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// The spool, as plugin_opt_spool_dir says.
    #[arg(long, value_name = "DIR", default_value = SPOOL_DIR)]
    spool_dir: PathBuf,
    /// Print JSON; the names in it are stable.
    #[arg(long)]
    json: bool,
}

/// Shows where clients are, in the whole cluster.
///
/// Those that are connected, or with an ID this one, also where it was last. Asks the running sidecar of this node. Exits with 1 when the client is not
/// known or not connected.
#[derive(Debug, Args)]
pub(crate) struct ClientsArgs {
    /// The client id.
    id: Option<String>,
    /// Those of one node alone.
    #[arg(long, value_name = "NODE", conflicts_with = "id")]
    node: Option<String>,
    /// The spool, as plugin_opt_spool_dir says.
    #[arg(long, value_name = "DIR", default_value = SPOOL_DIR)]
    spool_dir: PathBuf,
    /// Print JSON, one object a line; the names in it are stable.
    #[arg(long)]
    json: bool,
}

pub(crate) fn nodes(args: &NodesArgs) -> anyhow::Result<ExitCode> {
    let report = status::ask(&args.spool_dir).map_err(|problem| anyhow!(problem))?;
    let no_cluster = || anyhow!("this node belongs to no cluster (plugin_opt_cluster)");
    let cluster = report.cluster.ok_or_else(no_cluster)?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&cluster.nodes)? + "\n",
        false => table(&cluster, unix_ms()),
    };
    io::stdout().write_all(text.as_bytes())?;
    let is_well = |node: &Node| matches!(node.state, State::Alive | State::Left);
    Ok(
        match !cluster.is_refused && cluster.nodes.iter().all(is_well) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    )
}

fn state_text(state: State) -> &'static str {
    match state {
        State::Alive => "alive",
        State::Suspect => "SUSPECT",
        State::Dead => "DEAD",
        State::Left => "left",
        State::Unknown => "unknown",
    }
}

fn table(cluster: &Report, now_ms: u64) -> String {
    let ago = |ms: u64| duration(now_ms.saturating_sub(ms) / 1000);
    let mut out = String::new();
    // Writing into a string can't fail.
    if cluster.is_refused {
        let _ = writeln!(
            out,
            "ANOTHER BROKER WORKS UNDER THIS NODE'S ID: this one takes no part in the cluster"
        );
    }
    if let Some(since_ms) = cluster.stale_since_ms {
        let _ = writeln!(
            out,
            "This node has not heard itself through RocketMQ for {}: the others are as they were then.",
            ago(since_ms)
        );
    }
    let _ = writeln!(
        out,
        "{:<24} {:<8} {:<14} {:>8} {:>10} {:>10}  {:<10} degraded",
        "node", "state", "for", "clients", "up", "down", "version"
    );
    for node in &cluster.nodes {
        let name = match node.is_this {
            true => format!("{} (this)", node.node),
            false => node.node.clone(),
        };
        let degraded = match node.load.degraded.is_empty() {
            true => "no".to_owned(),
            false => node.load.degraded.join(", "),
        };
        let _ = writeln!(
            out,
            "{name:<24} {:<8} {:<14} {:>8} {:>10} {:>10}  {:<10} {degraded}",
            state_text(node.state),
            ago(node.since_ms),
            node.clients_known,
            bytes(node.load.uplink_bytes),
            bytes(node.load.downlink_bytes),
            node.version
        );
    }
    out
}

/// One line, for the status.
pub(super) fn summary(cluster: &Report) -> String {
    let mut nodes = String::new();
    for node in &cluster.nodes {
        let _ = write!(nodes, " {} {}", node.node, state_text(node.state));
        nodes.push(',');
    }
    let interest = match cluster.interest_tags {
        Some(tags) => format!("{tags} tags of its messages"),
        None => "all of its messages".to_owned(),
    };
    let part = match (cluster.is_refused, cluster.is_at_work) {
        (true, _) => "TAKES NO PART (node id used twice);",
        (false, true) => "",
        (false, false) => "not heard yet;",
    };
    format!(
        "{} {part}{} {} clients here and {} in all, reads {interest}",
        cluster.name, nodes, cluster.clients_here, cluster.clients
    )
}

pub(crate) fn clients(args: &ClientsArgs) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if let Some(id) = &args.id {
        let found = page(&args.spool_dir, &format!("id={}", percent::encode(id)))?;
        let Some(client) = found.clients.first() else {
            writeln!(io::stderr(), "no node of the cluster knows a client {id:?}")?;
            return Ok(ExitCode::FAILURE);
        };
        show(&mut out, client, args.json)?;
        return Ok(match client.online {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    let node = args.node.as_deref().map(percent::encode);
    let node = node.map_or_else(String::new, |node| format!("node={node}"));
    let mut after: Option<String> = None;
    loop {
        let from = after.map_or_else(String::new, |id| format!("&after={}", percent::encode(&id)));
        let found = page(&args.spool_dir, &format!("{node}{from}"))?;
        for client in &found.clients {
            show(&mut out, client, args.json)?;
        }
        after = found.clients.last().map(|client| client.client.clone());
        if !found.has_more || after.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn page(spool_dir: &Path, query: &str) -> anyhow::Result<Clients> {
    status::get(spool_dir, &format!("{CLIENTS}?{query}")).map_err(|problem| anyhow!(problem))
}

fn show(out: &mut impl io::Write, client: &Client, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        writeln!(out, "{}", serde_json::to_string(client)?)?;
        return Ok(());
    }
    let since = duration(unix_ms().saturating_sub(client.at_ms) / 1000);
    let state = match (client.online, &client.cause) {
        (true, _) => "online".to_owned(),
        (false, cause) => format!("offline ({})", cause.as_deref().unwrap_or("unknown")),
    };
    writeln!(out, "{} {} {state} for {since}", client.client, client.node)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::report::Load;

    fn cluster() -> Report {
        let node = |name: &str, state| Node {
            node: name.to_owned(),
            state,
            since_ms: 1_000,
            is_this: name == "a",
            heard_ms: 0,
            started_ms: 0,
            version: "1.2.3".into(),
            seq: 1,
            load: Load::default(),
            clients_known: 3,
        };
        Report {
            name: "factory".into(),
            is_at_work: true,
            nodes: vec![node("a", State::Alive), node("b", State::Dead)],
            interest_tags: Some(7),
            ..Report::default()
        }
    }

    #[test]
    fn a_dead_node_and_an_old_view_catch_the_eye() {
        let mut cluster = cluster();
        let text = table(&cluster, 62_000);
        assert!(
            text.contains("b                        DEAD     1 min 1 s"),
            "{text}"
        );
        assert!(text.contains("a (this)"), "{text}");
        cluster.stale_since_ms = Some(60_000);
        cluster.is_refused = true;
        let text = table(&cluster, 62_000);
        assert!(text.starts_with("ANOTHER BROKER"), "{text}");
        assert!(text.contains("for 2 s: the others"), "{text}");
        assert!(summary(&cluster).contains("b DEAD"));
        assert!(summary(&cluster).contains("7 tags"));
    }

    #[test]
    fn a_client_is_a_line() {
        let client = Client {
            client: "c".into(),
            node: "a".into(),
            online: false,
            cause: Some("node lost".into()),
            at_ms: unix_ms(),
            login: 5,
        };
        let mut out = Vec::new();
        show(&mut out, &client, false).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "c a offline (node lost) for 0 s\n"
        );
        let mut out = Vec::new();
        show(&mut out, &client, true).unwrap();
        let read: Client = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, client);
    }
}
