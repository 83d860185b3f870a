use std::path::Path;

use handoff::{LogOptions, Reader, ReaderOptions, Writer};
use protocol::message::{Message, Property, PropertyBuffer, QoS, Returned, RuleIds};
use protocol::rules::RuleTable;

use super::export::export;
use super::status::look;
use super::*;

fn write(writer: &mut Writer, message: &Message<'_>) -> u64 {
    writer
        .append_with(message.encoded_len(), |out| message.encode_into(out))
        .unwrap()
}

fn lines(spool: &Path, args: &ExportArgs) -> Vec<serde_json::Value> {
    let mut out = Vec::new();
    export(spool, args, &mut out).unwrap();
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const WAITING: ExportArgs = ExportArgs {
    direction: None,
    from_position: None,
    all: false,
};

/// One message of the uplink log is done with, and two wait; one of the downlink log waits and one is no message.
fn spool(dir: &Path) -> (Writer, Reader, Writer) {
    std::fs::write(
        dir.join("options.conf"),
        "namesrv 127.0.0.1:9876\nnode_id edge-1\nuplink a/# A\n",
    )
    .unwrap();
    let mut table = RuleTable::open(dir.join("rules.table")).unwrap();
    let rule = table.id_of("a/# A").unwrap();
    let mut up = Writer::open(&dir.join("uplink"), &LogOptions::default()).unwrap();
    let mut properties = PropertyBuffer::new();
    properties.push(&Property::User("k", "v")).unwrap();
    properties
        .push(&Property::CorrelationData(b"\x01"))
        .unwrap();
    let rules = [rule];
    let first = Message {
        topic: "a/1",
        payload: b"\0x",
        qos: QoS::ExactlyOnce,
        retain: true,
        client_id: "dev",
        username: Some("u"),
        received_at_ms: 1_000,
        expiry_s: Some(9),
        properties: properties.as_properties(),
        injected: None,
        rules: RuleIds::from_slice(&rules),
        ..Message::default()
    };
    write(
        &mut up,
        &Message {
            topic: "a/0",
            ..first
        },
    );
    write(&mut up, &first);
    let back = Message {
        topic: "d/1",
        payload: b"down",
        ..Message::default()
    };
    let mut frame = vec![0; back.encoded_len()];
    back.encode_into(&mut frame);
    let returned = Returned {
        reason: "refused",
        returned_at_ms: 5_000,
        epoch: 1,
        position: 2,
        payload: &frame,
    };
    up.append_with(returned.encoded_len(), |out| returned.encode_into(out))
        .unwrap();
    let mut reader = Reader::open(&dir.join("uplink"), &ReaderOptions::default()).unwrap();
    let next = reader.poll().unwrap().unwrap().next;
    reader.release(next);
    let mut down = Writer::open(&dir.join("downlink"), &LogOptions::default()).unwrap();
    write(&mut down, &back);
    down.append(b"no message").unwrap();
    (up, reader, down)
}

#[test]
fn what_waits_is_exported_whole_beside_both_processes() {
    let dir = tempfile::tempdir().unwrap();
    let (up, reader, _down) = spool(dir.path());
    let found = lines(dir.path(), &WAITING);
    assert_eq!(found.len(), 4);
    let first = &found[0];
    assert_eq!(first["topic"], "a/1");
    assert_eq!(first["payload"], "AHg=");
    assert_eq!((&first["qos"], &first["retain"]), (&2.into(), &true.into()));
    assert_eq!(
        (&first["client_id"], &first["username"]),
        (&"dev".into(), &"u".into())
    );
    assert_eq!(
        (&first["time_ms"], &first["expiry_s"]),
        (&1_000.into(), &9.into())
    );
    assert_eq!(first["rules"][0], "a/# A");
    assert_eq!(first["properties"]["user"][0][1], "v");
    assert_eq!(first["properties"]["correlation_data"], "AQ==");
    assert_eq!(first["position"], reader.released());
    let id = format!("edge-1:{:x}:{}", up.epoch(), reader.released());
    assert_eq!(first["id"], id);
    assert_eq!(
        (&found[1]["not_injected"], &found[1]["topic"]),
        (&"refused".into(), &"d/1".into())
    );
    assert_eq!(
        (&found[2]["direction"], &found[2]["payload"]),
        (&"downlink".into(), &"ZG93bg==".into())
    );
    assert!(found[3]["unreadable"].is_string());
    // Nobody noticed.
    assert_eq!(up.released(), reader.released());
}

#[test]
fn a_part_of_it_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (_up, reader, _down) = spool(dir.path());
    let topics = |args: &ExportArgs| -> Vec<String> {
        let found = lines(dir.path(), args);
        found
            .iter()
            .map(|line| line["topic"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let uplink = ExportArgs {
        direction: Some(Direction::Uplink),
        ..WAITING
    };
    assert_eq!(topics(&uplink), ["a/1", "d/1"]);
    let all = ExportArgs {
        all: true,
        ..uplink
    };
    assert_eq!(topics(&all), ["a/0", "a/1", "d/1"]);
    let from = ExportArgs {
        from_position: Some(reader.released()),
        direction: Some(Direction::Uplink),
        ..WAITING
    };
    assert_eq!(topics(&from), ["a/1", "d/1"]);
}

#[test]
fn the_status_counts_what_waits_and_tells_damage() {
    let dir = tempfile::tempdir().unwrap();
    assert!(look(dir.path(), Direction::Uplink).unwrap().is_none());
    let (up, _reader, down) = spool(dir.path());
    let found = look(dir.path(), Direction::Uplink).unwrap().unwrap();
    assert_eq!((found.waiting_messages, found.oldest_ms), (2, Some(1_000)));
    assert!(found.damaged.is_empty());
    // Both processes are gone, and more of the first waiting frame is damaged than can be mended.
    drop((up, down));
    let path = dir.path().join("uplink/segment-0000000000");
    let mut bytes = std::fs::read(&path).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    let at = 64 + usize::try_from(json["released"].as_u64().unwrap()).unwrap() + 20;
    bytes[at..at + 24].fill(0xAA);
    std::fs::write(&path, bytes).unwrap();
    let found = look(dir.path(), Direction::Uplink).unwrap().unwrap();
    assert_eq!((found.waiting_messages, found.damaged.len()), (1, 1));
    assert_eq!(lines(dir.path(), &WAITING).len(), 3, "the others are saved");
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["bytes_max"], 1 << 30);
}
