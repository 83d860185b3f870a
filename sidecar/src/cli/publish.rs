//! `mosquitto-rocketmq publish`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use rocketmq::{Backbone, Outgoing, Queue, Settings};

use super::PublishArgs;

/// Messages in one request.
const BATCH: u64 = 64;
/// Bytes in one request; RocketMQ takes 4 MiB.
const BATCH_BYTES: u64 = 1 << 20;
/// How long RocketMQ may take for a request.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: &PublishArgs) -> anyhow::Result<ExitCode> {
    if let Err(error) = protocol::rules::rocketmq_name::validate_topic(&args.topic) {
        bail!("{error}");
    }
    let message = message(args)?;
    let namesrv = match &args.namesrv {
        Some(namesrv) => namesrv.clone(),
        None => configured_namesrv(&args.spool_dir)?,
    };
    let backbone = rocketmq::connect(Settings {
        namesrv: namesrv.clone(),
        producer_group: "PID_MQTT_CLI".to_owned(),
        instance: format!("publish-{}", std::process::id()),
        send_timeout: SEND_TIMEOUT,
    })?;
    let result = send(backbone.as_ref(), &args.topic, &message, args.count).await;
    backbone.shutdown().await;
    result.with_context(|| format!("topic {} at {namesrv}", args.topic))?;
    writeln!(std::io::stdout(), "{} sent to {}", args.count, args.topic)?;
    Ok(ExitCode::SUCCESS)
}

fn configured_namesrv(spool_dir: &Path) -> anyhow::Result<String> {
    let config = crate::app::read_config(spool_dir).with_context(|| {
        format!(
            "no name servers in {}: give --namesrv HOST:PORT or --spool-dir",
            spool_dir.display()
        )
    })?;
    Ok(config.namesrv.join(";"))
}

fn message(args: &PublishArgs) -> anyhow::Result<Outgoing> {
    let mut body = match (&args.payload, &args.file) {
        (Some(payload), _) => payload.clone().into_bytes(),
        (None, Some(file)) => read(file)?,
        (None, None) => bail!("no payload"),
    };
    let mut properties = args.properties.clone();
    if let Some(client) = &args.client_id {
        properties.push(("client_id".to_owned(), client.clone()));
    }
    if body.is_empty() {
        // RocketMQ refuses an empty body; this is how one is written (docs/mapping.md).
        body.push(0);
        properties.push(("mqtt_empty".to_owned(), "1".to_owned()));
    }
    if let Some((name, _)) = properties
        .iter()
        .find(|(name, value)| format!("{name}{value}").contains(['\u{1}', '\u{2}']))
    {
        bail!("property {name}: U+0001 and U+0002 can't stand in a RocketMQ property");
    }
    Ok(Outgoing {
        body: Bytes::from(body),
        tag: args.tag.clone(),
        keys: args.key.clone(),
        properties: properties.into_iter().collect(),
    })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin()
            .read_to_end(&mut body)
            .context("standard input")?;
        return Ok(body);
    }
    std::fs::read(file).with_context(|| file.display().to_string())
}

async fn send(
    backbone: &dyn Backbone,
    topic: &str,
    message: &Outgoing,
    count: u64,
) -> Result<(), rocketmq::Error> {
    let queues = backbone.write_queues(topic).await?;
    let per_batch = (BATCH_BYTES / (message.weight() as u64 + 128)).clamp(1, BATCH);
    let mut left = count;
    let mut turn = 0;
    while left > 0 {
        let size = left.min(per_batch);
        let queue = choose(&queues, message.keys.as_deref(), turn);
        let batch: Vec<Outgoing> = (0..size).map(|_| message.clone()).collect();
        match backbone.send(queue, &batch).await {
            // It is there; whoever typed this has no use for a second one.
            Err(error @ rocketmq::Error::Reserved { .. }) => log::error!("{error}"),
            other => other?,
        }
        left -= size;
        turn += 1;
    }
    Ok(())
}

/// By the key where there is one, else all in turn. There is at least one queue.
fn choose<'a>(queues: &'a [Queue], key: Option<&str>, turn: usize) -> &'a Queue {
    let index = key.map_or(turn, |key| {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish() as usize
    });
    &queues[index % queues.len()]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(args: &[&str]) -> PublishArgs {
        let cli = Cli::try_parse_from([&["mosquitto-rocketmq", "publish"], args].concat()).unwrap();
        match cli.command {
            Command::Publish(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_properties() {
        let sent = message(&args(&[
            "T",
            "on",
            "--tag",
            "A",
            "--key",
            "k",
            "--property",
            "mqtt_qos=2",
            "--client-id",
            "dev",
        ]))
        .unwrap();
        assert_eq!(&sent.body[..], b"on");
        assert_eq!(
            (sent.tag.as_deref(), sent.keys.as_deref()),
            (Some("A"), Some("k"))
        );
        assert_eq!(
            sent.properties.to_pairs(),
            [
                ("mqtt_qos".into(), "2".into()),
                ("client_id".into(), "dev".into())
            ]
        );
    }

    #[test]
    fn an_empty_payload_is_marked() {
        let sent = message(&args(&["T", ""])).unwrap();
        assert_eq!(&sent.body[..], [0]);
        assert_eq!(sent.properties.get("mqtt_empty"), Some("1"));
    }

    #[test]
    fn one_key_stays_in_one_queue() {
        let queues: Vec<_> = (0..4)
            .map(|id| Queue {
                topic: "T".into(),
                broker: "b".into(),
                id,
            })
            .collect();
        assert_eq!(choose(&queues, Some("k"), 0), choose(&queues, Some("k"), 3));
        assert_eq!(
            [choose(&queues, None, 1).id, choose(&queues, None, 6).id],
            [1, 2]
        );
    }

    #[test]
    fn a_spool_without_a_configuration_asks_for_the_name_servers() {
        let dir = tempfile::tempdir().unwrap();
        let error = configured_namesrv(dir.path()).unwrap_err();
        assert!(error.to_string().contains("--namesrv"), "{error}");
    }
}
