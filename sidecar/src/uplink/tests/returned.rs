//! What came down and could not be injected, and what is damaged: dead letters by way of the log.

use protocol::message::Returned;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_plugin_gives_back_is_a_dead_letter_of_the_way_down() {
    let fake = Fake::new(|_, _, _| Ok(()));
    let mut bench = Bench::start(&fake, &[]);
    let message = Message {
        topic: "down/+",
        client_id: "one",
        payload: b"as it was",
        ..Message::default()
    };
    let mut frame = vec![0; message.encoded_len()];
    message.encode_into(&mut frame);
    for payload in [&frame[..], b"no message"] {
        let returned = Returned {
            reason: "Mosquitto refused it (code 3)",
            returned_at_ms: 77,
            epoch: 31,
            position: 160,
            payload,
        };
        bench
            .writer
            .append_with(returned.encoded_len(), |out| returned.encode_into(out))
            .unwrap();
    }
    bench.publish("c", "goes on", &["# T"]);
    let drained = bench.drain(Duration::from_secs(60)).await;
    assert_eq!(drained, DrainOutcome::Drained);
    assert_eq!(fake.stored(), 1);
    let letters = bench.letters();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0]["direction"], "downlink");
    assert_eq!(letters[0]["reason"], "Mosquitto refused it (code 3)");
    assert_eq!(letters[0]["topic"], "down/+");
    assert_eq!(letters[0]["client_id"], "one");
    assert_eq!(letters[0]["time_ms"], 77);
    assert_eq!(letters[0]["position"], "n:1f:160");
    let letter: crate::dead_letter::Letter = serde_json::from_value(letters[0].clone()).unwrap();
    assert_eq!(letter.payload().unwrap(), b"as it was");
    assert_eq!(letters[1]["topic"], serde_json::Value::Null);
    assert_eq!(
        bench.metrics.snapshot().unroutable,
        0,
        "its rule is not of the way up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_beyond_repair_is_kept_as_it_is() {
    use std::os::unix::fs::FileExt;
    let fake = Fake::new(|_, _, _| Ok(()));
    let mut bench = Bench::start(&fake, &[]);
    let limit = Duration::from_secs(60);
    assert_eq!(bench.drain(limit).await, DrainOutcome::Drained);
    bench.publish("c", "before", &["# T"]);
    let at = bench.publish("c", "a secret", &["# T"]);
    let behind = bench.publish("c", "behind", &["# T"]);
    let segment = bench.dir.path().join("uplink/segment-0000000000");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap();
    // Behind the headers of file and frame; more than can be mended.
    file.write_all_at(&[0xAA; 24], 64 + at + 16).unwrap();
    bench.run(&fake, &[]);
    assert_eq!(bench.drain(limit).await, DrainOutcome::Drained);
    assert_eq!(fake.stored(), 2);
    let letters = bench.letters();
    assert_eq!(letters.len(), 1);
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains(&format!("from {at} to {behind}")),
        "{reason}"
    );
    let epoch = Epochs::read(bench.dir.path(), bench.writer.epoch())
        .unwrap()
        .at(at);
    assert_eq!(letters[0]["position"], format!("n:{epoch:x}:{at}"));
    let letter: crate::dead_letter::Letter = serde_json::from_value(letters[0].clone()).unwrap();
    let raw = letter.payload().unwrap();
    assert_eq!(raw.len() as u64, behind - at);
    assert!(
        raw.windows(8).any(|bytes| bytes == b"a secret"),
        "what can be read of it"
    );
    assert_eq!(bench.writer.released(), bench.writer.end());
}
