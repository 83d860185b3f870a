//! `mosquitto-rocketmq spool export`.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use handoff::ReadError;
use protocol::message::{Epochs, Identity, Message, Property, UplinkFrame};
use protocol::rules::RuleTable;
use serde::Serialize;

use super::{DIRECTIONS, ExportArgs, open};
use crate::dead_letter::Direction;

/// A message of a log. The names are stable; what there is nothing of is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line<'a> {
    direction: Direction,
    position: u64,
    /// `node:epoch:position`; nothing without a configuration that says which node this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retain: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    will: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry_s: Option<u32>,
    #[serde(skip_serializing_if = "Properties::is_empty")]
    properties: Properties<'a>,
    /// The rules that want it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<&'a str>,
    /// Why Mosquitto did not take it: a message on its way to the dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_injected: Option<&'a str>,
    /// Why this is no message: then the payload is the whole frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// Base64.
    payload: String,
}

/// MQTT 5 properties by their names.
#[derive(Debug, Default, Serialize)]
struct Properties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_format: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    /// Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user: Vec<(&'a str, &'a str)>,
}

impl<'a> Properties<'a> {
    fn of(message: &Message<'a>) -> Properties<'a> {
        let mut found = Properties::default();
        for property in message.properties.iter() {
            match property {
                Property::PayloadFormat(format) => found.payload_format = Some(format),
                Property::ContentType(text) => found.content_type = Some(text),
                Property::ResponseTopic(text) => found.response_topic = Some(text),
                Property::CorrelationData(data) => {
                    found.correlation_data = Some(BASE64.encode(data));
                }
                Property::User(name, value) => found.user.push((name, value)),
            }
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.payload_format.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user.is_empty()
    }
}

pub(super) fn run(spool_dir: &Path, args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = export(spool_dir, args, &mut out).and_then(|()| Ok(out.flush()?));
    match written {
        // `… | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(ErrorKind::BrokenPipe)
}

pub(super) fn export(
    spool_dir: &Path,
    args: &ExportArgs,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    // A spool to be rescued may lack either: the messages are what counts.
    let node = crate::app::read_config(spool_dir)
        .map(|config| config.node_id)
        .ok();
    let rules = RuleTable::open_read(spool_dir.join("rules.table")).ok();
    for direction in DIRECTIONS {
        if args.direction.is_some_and(|only| only != direction) {
            continue;
        }
        let Some(mut peek) = open(spool_dir, direction)? else {
            continue;
        };
        if args.all {
            peek.seek(peek.oldest());
        } else if let Some(position) = args.from_position {
            peek.seek(position);
        }
        let log_epoch = peek.epoch();
        let epochs = (direction == Direction::Uplink)
            .then(|| Epochs::read(spool_dir, log_epoch).ok())
            .flatten();
        loop {
            match peek.poll() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let mut line = line(frame.payload, rules.as_ref());
                    line.direction = direction;
                    line.position = frame.position;
                    line.id = node.as_deref().map(|node| {
                        let position = frame.position;
                        let epoch = epochs
                            .as_ref()
                            .map_or(log_epoch, |epochs| epochs.at(position));
                        Identity {
                            node,
                            epoch,
                            position,
                        }
                        .to_string()
                    });
                    serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                Err(ReadError::Corrupt {
                    from, to, reason, ..
                }) => {
                    let name = direction.as_str();
                    writeln!(
                        io::stderr(),
                        "{name}: damaged from {from} to {to}: {reason}"
                    )?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn line<'a>(frame: &'a [u8], rules: Option<&'a RuleTable>) -> Line<'a> {
    match UplinkFrame::decode(frame) {
        Ok(UplinkFrame::Message(message)) => of_message(&message, rules),
        Ok(UplinkFrame::Returned(returned)) => Line {
            not_injected: Some(returned.reason),
            ..line(returned.payload, None)
        },
        Err(error) => Line {
            unreadable: Some(error.to_string()),
            payload: BASE64.encode(frame),
            ..Line::default()
        },
    }
}

fn of_message<'a>(message: &Message<'a>, rules: Option<&'a RuleTable>) -> Line<'a> {
    let text_of = |id| rules.and_then(|rules| rules.text_of(id));
    Line {
        time_ms: Some(message.received_at_ms),
        topic: Some(message.topic),
        client_id: message.client_id,
        username: message.username,
        qos: Some(message.qos.as_u8()),
        retain: Some(message.retain),
        will: message.will,
        expiry_s: message.expiry_s,
        properties: Properties::of(message),
        rules: message.rules.iter().filter_map(text_of).collect(),
        payload: BASE64.encode(message.payload),
        ..Line::default()
    }
}
