//! The uplink with a log before it.

use handoff::{LogOptions, Position, ReaderOptions, Writer};
use protocol::message::{Message, Properties, QoS, RuleIds};

use super::*;

pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) writer: Writer,
    table: RuleTable,
    pub(super) metrics: Arc<Metrics>,
    handle: Option<UplinkHandle>,
}

impl Bench {
    pub(super) fn start(fake: &Arc<Fake>, options: &[(&str, &str)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::open(&dir.path().join("uplink"), &LogOptions::default()).unwrap();
        Epochs::begin(dir.path(), writer.epoch(), 0, 0).unwrap();
        let table = RuleTable::open(dir.path().join("rules.table")).unwrap();
        let mut bench = Bench {
            dir,
            writer,
            table,
            metrics: Arc::default(),
            handle: None,
        };
        bench.run(fake, options);
        bench
    }

    pub(super) fn run(&mut self, fake: &Arc<Fake>, options: &[(&str, &str)]) {
        let spool = self.dir.path().display().to_string();
        let base = [
            ("namesrv", "127.0.0.1:1"),
            ("node_id", "n"),
            ("spool_dir", spool.as_str()),
            ("uplink", "# T"),
        ];
        let options = base.iter().chain(options).copied();
        let config = Arc::new(Config::from_options(options).unwrap());
        let reader =
            Reader::open(&self.dir.path().join("uplink"), &ReaderOptions::default()).unwrap();
        let dead = DeadLetters::open(
            &self.dir.path().join("dead-letter"),
            config.dead_letter_bytes_max,
        )
        .unwrap();
        let table = RuleTable::open_read(self.dir.path().join("rules.table")).unwrap();
        let epochs = Epochs::read(self.dir.path(), reader.epoch()).unwrap();
        let backbone: Arc<dyn Backbone> = Arc::<Fake>::clone(fake);
        self.handle = Some(start(
            config,
            Log {
                reader,
                epochs,
                rules: table,
            },
            backbone,
            Arc::clone(&self.metrics),
            dead,
            None,
        ));
    }

    /// `rules.table`.
    pub(super) fn rules(&self) -> std::path::PathBuf {
        self.dir.path().join("rules.table")
    }

    pub(super) fn publish(&mut self, client_id: &str, body: &str, rules: &[&str]) -> Position {
        self.publish_with(client_id, body, rules, || {})
    }

    /// Does something when the rules are in the table and the message is not yet in the log.
    pub(super) fn publish_with(
        &mut self,
        client_id: &str,
        body: &str,
        rules: &[&str],
        between: impl FnOnce(),
    ) -> Position {
        let ids: Vec<u32> = rules
            .iter()
            .map(|rule| self.table.id_of(rule).unwrap())
            .collect();
        between();
        let message = Message {
            topic: "a/b",
            payload: body.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            will: false,
            mqtt_version: 4,
            client_id,
            username: None,
            received_at_ms: 1,
            expiry_s: None,
            properties: Properties::EMPTY,
            injected: None,
            rules: RuleIds::from_slice(&ids),
        };
        self.writer
            .append_with(message.encoded_len(), |out| message.encode_into(out))
            .unwrap()
    }

    pub(super) async fn drain(&mut self, limit: Duration) -> DrainOutcome {
        self.handle.take().unwrap().drain(limit).await
    }

    pub(super) fn letters(&self) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(self.dir.path().join("dead-letter")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            out.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()),
            );
        }
        out
    }
}
