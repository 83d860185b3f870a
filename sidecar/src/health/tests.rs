use super::*;

const START: u64 = 1_000_000;

/// A judge with a clock of its own.
struct Bench {
    judge: Judge,
    begin: Instant,
    facts: Facts,
}

impl Bench {
    fn new() -> Bench {
        let up = ConnectionSnapshot {
            connected: true,
            since_ms: START,
            ..ConnectionSnapshot::default()
        };
        Bench {
            judge: Judge::default(),
            begin: Instant::now(),
            facts: Facts {
                started_ms: START,
                probed: up.clone(),
                sending: up.clone(),
                reading: up,
                ..Facts::default()
            },
        }
    }

    fn at(&mut self, ms: u64) -> Health {
        let now = self.begin + Duration::from_millis(ms);
        self.judge.look(now, START + ms, &self.facts)
    }

    fn uplink(&mut self, released: u64, end: u64) {
        self.facts.uplink = Some(log(released, end));
    }
}

fn log(released: u64, end: u64) -> Log {
    Log {
        released,
        end,
        waiting_bytes: end - released,
        waiting_messages: Some((end - released) / 16),
        bytes_max: 1000,
        ..Log::default()
    }
}

fn names(health: &Health) -> Vec<&str> {
    health
        .reasons
        .iter()
        .map(|reason| reason.what.as_str())
        .collect()
}

#[test]
fn all_is_well_since_the_start() {
    let health = Bench::new().at(100);
    assert_eq!(
        (health.state, health.since_ms, health.reasons.len()),
        (State::Ok, START, 0)
    );
}

#[test]
fn messages_that_wait_and_do_not_move_are_a_stall_from_when_they_stood_still() {
    let mut bench = Bench::new();
    bench.uplink(0, 32);
    assert_eq!(bench.at(1000).state, State::Ok);
    bench.uplink(16, 64);
    bench.at(2000);
    bench.uplink(16, 96);
    assert_eq!(bench.at(3900).state, State::Ok);
    let health = bench.at(4000);
    assert_eq!(names(&health), [what::UPLINK_STALLED]);
    assert_eq!(
        (health.since_ms, health.reasons[0].since_ms),
        (START + 2000, START + 2000)
    );
    assert!(health.reasons[0].detail.contains("5 messages (80 bytes)"));
    // One moves: it goes on.
    bench.uplink(32, 96);
    let health = bench.at(4250);
    assert_eq!((health.state, health.since_ms), (State::Ok, START + 4250));
    bench.uplink(96, 96);
    assert_eq!(bench.at(99_000).state, State::Ok, "nothing waits");
}

#[test]
fn mosquitto_that_takes_nothing_stalls_the_downlink() {
    let mut bench = Bench::new();
    bench.facts.downlink = Some(log(0, 16));
    bench.at(0);
    assert_eq!(names(&bench.at(2000)), [what::DOWNLINK_STALLED]);
    bench.facts.downlink = Some(log(16, 16));
    bench.facts.reading.connected = false;
    bench.facts.reading.last_error = Some("no permission".into());
    let health = bench.at(2250);
    assert_eq!(names(&health), [what::DOWNLINK_STALLED]);
    assert!(health.reasons[0].detail.contains("no permission"));
}

#[test]
fn rocketmq_is_away_when_a_probe_or_a_send_fails_and_says_why() {
    let mut bench = Bench::new();
    bench.facts.probed = ConnectionSnapshot::default();
    assert_eq!(bench.at(1900).state, State::Ok, "it has just started");
    assert_eq!(names(&bench.at(2000)), [what::ROCKETMQ_AWAY]);
    let mut bench = Bench::new();
    bench.facts.sending = ConnectionSnapshot {
        connected: false,
        since_ms: START + 700,
        last_error: Some("broker busy".into()),
        last_error_ms: None,
    };
    assert_eq!(
        bench.at(1000).state,
        State::Ok,
        "an old word, nothing waits"
    );
    bench.uplink(0, 16);
    let health = bench.at(1000);
    assert_eq!(names(&health), [what::ROCKETMQ_AWAY]);
    assert_eq!(health.reasons[0].detail, "broker busy");
    assert_eq!(health.since_ms, START + 700);
}

#[test]
fn drops_and_dead_letters_are_told_for_a_while() {
    let mut bench = Bench::new();
    (bench.facts.dropped, bench.facts.dead) = (5, 9);
    assert_eq!(bench.at(0).state, State::Ok, "those of earlier runs");
    bench.facts.dropped = 7;
    bench.facts.dead = 10;
    let health = bench.at(1000);
    assert_eq!(
        names(&health),
        [what::MESSAGES_DROPPED, what::DEAD_LETTERS_GROWING]
    );
    assert!(health.reasons[0].detail.starts_with("2 messages"));
    bench.facts.dropped = 8;
    let health = bench.at(20_000);
    assert!(health.reasons[0].detail.starts_with("3 messages"));
    assert_eq!(health.reasons[0].since_ms, START + 1000);
    assert_eq!(names(&bench.at(35_000)), [what::MESSAGES_DROPPED]);
    assert_eq!(bench.at(60_000).state, State::Ok);
}

#[test]
fn a_spool_that_is_nearly_full_is_high() {
    let mut bench = Bench::new();
    bench.uplink(0, 799);
    assert_eq!(bench.at(0).state, State::Ok);
    bench.uplink(0, 800);
    assert_eq!(names(&bench.at(250)), [what::SPOOL_HIGH]);
}

#[test]
fn what_is_wrong_in_the_cluster_is_told() {
    let mut bench = Bench::new();
    bench.facts.cluster = Some(Reason::new(what::NODE_ID_TWICE, START, "twice"));
    assert_eq!(names(&bench.at(0)), [what::NODE_ID_TWICE]);
    bench.facts.cluster = None;
    assert_eq!(bench.at(250).state, State::Ok);
}

#[test]
fn names_and_shape_are_stable() {
    let health = Health {
        state: State::Degraded,
        since_ms: 5,
        reasons: vec![Reason::new(what::DAMAGED, 6, "x")],
    };
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"state": "degraded", "since_ms": 5,
            "reasons": [{"what": "damaged", "since_ms": 6, "detail": "x"}]})
    );
}
