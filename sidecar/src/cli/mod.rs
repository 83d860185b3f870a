//! The command line.

pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod dead_letter;
pub(crate) mod http;
pub(crate) mod percent;
pub(crate) mod publish;
pub(crate) mod spool;
pub(crate) mod status;
pub(crate) mod text;
pub(crate) mod time;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Where the spool is unless told otherwise.
pub(crate) const SPOOL_DIR: &str = "/var/lib/mosquitto/rocketmq";

/// The process beside a Mosquitto with the mosquitto-rocketmq plugin, and tools for its operators.
///
/// The plugin starts `mosquitto-rocketmq sidecar` by itself; the other commands are for people.
#[derive(Debug, Parser)]
#[command(name = "mosquitto-rocketmq", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// See [`Cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Carries messages between the spool and RocketMQ; the plugin starts this.
    Sidecar(SidecarArgs),
    /// Shows rules, rates, lag, spool and the connection to RocketMQ.
    Status(StatusArgs),
    /// Finds what is wrong with a configuration and with the connections it needs.
    Check(CheckArgs),
    /// Sends messages into a RocketMQ topic, as an application would.
    Publish(PublishArgs),
    /// Shows, replays and removes messages that could not be delivered.
    DeadLetter(dead_letter::DeadLetterArgs),
    /// Shows the nodes of the cluster, and how each stands.
    Nodes(cluster::NodesArgs),
    /// Shows where clients are, in the whole cluster.
    Clients(cluster::ClientsArgs),
    /// Shows what waits in the spool, and saves it where nothing else can.
    Spool(spool::SpoolArgs),
}

/// Carries messages between the spool and RocketMQ.
///
/// Reads its configuration from `options.conf` in the spool, which the plugin writes, and follows it when the rules are
/// reloaded. Ends on SIGTERM, on SIGINT, or when standard input is a pipe and its other end is closed: it then sends what is
/// in the spool for at most `drain_timeout`. Log lines go to standard error.
///
/// Exit codes: 0 all is sent; 2 the configuration or the command line is wrong; 3 messages are left in the spool, where they
/// are safe; 4 another sidecar uses the spool; 1 anything else.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct SidecarArgs {
    /// The spool, as plugin_opt_spool_dir says.
    #[arg(long, value_name = "DIR", default_value = SPOOL_DIR)]
    pub(crate) spool_dir: PathBuf,
}

/// Shows rules, rates, lag, spool and the connection to RocketMQ.
///
/// Asks the running sidecar over its socket in the spool. When none runs, or it does not answer within a second, it says so,
/// shows what the files in the spool tell, and exits with 1.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The spool, as plugin_opt_spool_dir says.
    #[arg(long, value_name = "DIR", default_value = SPOOL_DIR)]
    pub(crate) spool_dir: PathBuf,
    /// Print JSON; the names in it are stable.
    #[arg(long)]
    pub(crate) json: bool,
    /// For monitoring: print the health alone. Exits with 0 when messages get through, 1 when degraded, 2 when no sidecar answers.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Finds what is wrong with a configuration and with the connections it needs.
///
/// Prints one line a finding: "ok" or "PROBLEM" with what to do. Exits with 0 only if there is no problem.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration of Mosquitto; include_dir is followed.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/mosquitto/mosquitto.conf",
        conflicts_with = "options"
    )]
    pub(crate) config: PathBuf,
    /// A file of options without plugin_opt_ instead, such as options.conf in the spool.
    #[arg(long, value_name = "FILE")]
    pub(crate) options: Option<PathBuf>,
    /// Look at the configuration alone: no directories, no RocketMQ.
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Sends messages into a RocketMQ topic, as an application would.
///
/// Downlink rules make MQTT messages of them. Exits with 0 once RocketMQ has stored them all.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The RocketMQ topic.
    pub(crate) topic: String,
    /// The payload.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(crate) payload: Option<String>,
    /// Take the payload from a file; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The tag.
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// The key. Messages with the same key go to the same queue and so stay in order.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// A property, such as mqtt_qos=2 or mqtt_retain=1; may repeat. docs/mapping.md lists those with a meaning.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = parse_property)]
    pub(crate) properties: Vec<(String, String)>,
    /// Deliver to this MQTT client alone (property client_id).
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// Send it so many times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,
    /// RocketMQ's name servers, HOST:PORT joined by ; (else those of the spool's configuration).
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) namesrv: Option<String>,
    /// The spool to take the name servers from.
    #[arg(long, value_name = "DIR", default_value = SPOOL_DIR)]
    pub(crate) spool_dir: PathBuf,
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("must be NAME=VALUE, neither of them empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn publish_wants_a_payload_and_whole_properties() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from([&["mosquitto-rocketmq", "publish"], args].concat())
        };
        assert!(parse(&["T", "x", "--property", "a=b=c", "--count", "2"]).is_ok());
        assert!(parse(&["T", "--file", "-"]).is_ok());
        assert!(parse(&["T"]).is_err());
        assert!(parse(&["T", "x", "--file", "-"]).is_err());
        assert!(parse(&["T", "x", "--property", "ab"]).is_err());
        assert!(parse(&["T", "x", "--count", "0"]).is_err());
        assert_eq!(parse_property("a=b=c"), Ok(("a".into(), "b=c".into())));
    }
}
