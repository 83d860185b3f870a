//! The steps that a message costs on its way, each by itself and so many times: `scripts/instructions` has callgrind count them.
//!
//! Only what happens inside [`measured`] is counted.

use std::env;
use std::hint::black_box;

use anyhow::{Context, Result, bail};
use handoff::{LogOptions, Reader, ReaderOptions, SyncPolicy, Writer};
use protocol::message::{Message, Properties, QoS, RuleIds};
use protocol::trie::TopicTrie;

const TOPIC: &str = "sensors/device-0/telemetry";
const PAYLOAD: [u8; 128] = [0x5A; 128];

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [step, times] = arguments.as_slice() else {
        bail!("usage: mosquitto-rocketmq-instructions STEP TIMES");
    };
    let times = times.parse().context("TIMES")?;
    match step.as_str() {
        "match_1_rule" => matching(1, times),
        "match_10000_rules" => matching(10_000, times),
        "encode" => encoding(times),
        "decode" => decoding(times),
        "append" => appending(times),
        "poll" => polling(times),
        _ => bail!("no step `{step}`"),
    }
}

/// Everything that is counted runs inside this function, by whose name callgrind knows it.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

fn matching(rules: u32, times: u32) -> Result<()> {
    let mut trie = TopicTrie::new();
    for rule in 0..rules {
        let filter = match rule % 3 {
            0 => format!("sensors/device-{rule}/telemetry"),
            1 => format!("sensors/+/kind-{rule}"),
            _ => format!("site-{rule}/#"),
        };
        trie.insert(&filter, rule)?;
    }
    let mut ids: Vec<u32> = Vec::with_capacity(8);
    measured(&mut || {
        for _ in 0..times {
            ids.clear();
            trie.matches(black_box(TOPIC), |id| ids.push(*id));
            black_box(&ids);
        }
    });
    Ok(())
}

fn message<'a>(rules: &'a [u32]) -> Message<'a> {
    Message {
        topic: TOPIC,
        payload: &PAYLOAD,
        qos: QoS::AtLeastOnce,
        retain: false,
        will: false,
        mqtt_version: 4,
        client_id: "device-0",
        username: Some("device"),
        received_at_ms: 1_700_000_000_000,
        expiry_s: None,
        properties: Properties::EMPTY,
        injected: None,
        rules: RuleIds::from_slice(rules),
    }
}

fn encoding(times: u32) -> Result<()> {
    let message = message(&[7]);
    let mut out = vec![0; message.encoded_len()];
    measured(&mut || {
        for _ in 0..times {
            let message = black_box(&message);
            let len = message.encoded_len();
            message.encode_into(&mut out[..len]);
            black_box(&out);
        }
    });
    Ok(())
}

fn decoding(times: u32) -> Result<()> {
    let message = message(&[7]);
    let mut encoded = vec![0; message.encoded_len()];
    message.encode_into(&mut encoded);
    let mut failed = false;
    measured(&mut || {
        for _ in 0..times {
            failed |= black_box(Message::decode(black_box(&encoded))).is_err();
        }
    });
    if failed {
        bail!("what was encoded can't be decoded");
    }
    Ok(())
}

/// A log whose first segment holds all that is measured: what its threads do is not part of it.
fn log(dir: &tempfile::TempDir) -> Result<Writer> {
    let options = LogOptions {
        sync: SyncPolicy::None,
        ..LogOptions::default()
    };
    Ok(Writer::open(dir.path(), &options)?)
}

fn append(writer: &mut Writer, message: &Message<'_>, times: u32) -> bool {
    let mut kept = true;
    for _ in 0..times {
        let len = message.encoded_len();
        kept &= writer
            .append_with(len, |frame| message.encode_into(frame))
            .is_ok();
    }
    kept
}

fn appending(times: u32) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut writer = log(&dir)?;
    let message = message(&[7]);
    let mut kept = false;
    measured(&mut || kept = append(&mut writer, black_box(&message), times));
    if !kept {
        bail!("the log did not take everything");
    }
    Ok(())
}

fn polling(times: u32) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut writer = log(&dir)?;
    let mut reader = Reader::open(dir.path(), &ReaderOptions::default())?;
    if !append(&mut writer, &message(&[7]), times) {
        bail!("the log did not take everything");
    }
    let mut polled = 0;
    let mut result = Ok(());
    measured(&mut || {
        result = loop {
            match reader.poll() {
                Ok(Some(frame)) => {
                    black_box(frame.payload);
                    polled += 1;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
    });
    result?;
    if polled != times {
        bail!("{polled} of {times} frames came");
    }
    Ok(())
}
