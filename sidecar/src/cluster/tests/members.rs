use super::*;

const START_MS: u64 = 1_000_000;
const TIMEOUT: Duration = Duration::from_secs(5);

fn beat(node: &str, instance: &str, seq: u64) -> Beat {
    Beat {
        node: node.into(),
        spool: format!("spool of {instance}"),
        instance: instance.into(),
        started_ms: START_MS,
        epoch: START_MS,
        seq,
        ..Beat::default()
    }
}

/// Node `a` with a clock of its own.
struct Bench {
    members: Members,
    begin: Instant,
    seq: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            members: Members::new(beat("a", "a1", 0), TIMEOUT),
            begin: Instant::now(),
            seq: 0,
        }
    }

    fn now(&self, ms: u64) -> Now {
        Now {
            at: self.begin + Duration::from_millis(ms),
            unix_ms: START_MS + ms,
        }
    }

    fn hears(&mut self, ms: u64, beat: &Beat) -> Vec<Change> {
        let stored_at_ms = i64::try_from(START_MS + ms).unwrap();
        self.members.heard(beat, stored_at_ms, self.now(ms))
    }

    /// Our own beat comes back.
    fn echo(&mut self, ms: u64) -> Vec<Change> {
        self.seq += 1;
        self.hears(ms, &beat("a", "a1", self.seq))
    }

    fn judge(&mut self, ms: u64) -> Vec<Change> {
        self.members.judge(self.now(ms))
    }

    /// Every 250 ms from one time to another a judgement, and each second an echo and a beat of these.
    fn run(&mut self, from: u64, to: u64, others: &[&str]) -> Vec<Change> {
        let mut changes = Vec::new();
        for ms in (from..=to).step_by(250) {
            if ms % 1_000 == 0 {
                changes.extend(self.echo(ms));
                for node in others {
                    self.seq += 1;
                    let beat = beat(node, &format!("{node}1"), self.seq);
                    changes.extend(self.hears(ms, &beat));
                }
            }
            changes.extend(self.judge(ms));
        }
        changes
    }

    fn state(&self, node: &str) -> State {
        self.members.peers[node].state
    }
}

#[test]
fn a_silent_node_is_suspect_then_dead_and_back_when_it_is_heard() {
    let mut bench = Bench::new();
    let joined = Change::Joined("b".into());
    assert_eq!(bench.run(0, 2_000, &["b"]), [joined]);
    assert_eq!(bench.run(2_250, 4_500, &[]), []);
    assert_eq!(bench.run(4_750, 6_750, &[]), [Change::Suspect("b".into())]);
    assert_eq!(bench.run(7_000, 9_000, &[]), [Change::Dead("b".into())]);
    assert_eq!(bench.state("b"), State::Dead);
    assert!(bench.members.is_lowest());
    assert_eq!(
        bench.run(10_000, 12_000, &["b"]),
        [Change::Back("b".into())]
    );
    // Only two beats are missed.
    let changes = bench.run(12_250, 15_750, &[]);
    assert_eq!(changes, [Change::Suspect("b".into())]);
    assert_eq!(
        bench.run(16_000, 17_000, &["b"]),
        [Change::Recovered("b".into())]
    );
}

#[test]
fn who_is_cut_off_says_nothing_of_the_others_and_judges_anew_when_it_hears() {
    let mut bench = Bench::new();
    bench.run(0, 2_000, &["b", "c"]);
    let mut changes = Vec::new();
    for ms in (2_250..=60_000).step_by(250) {
        changes.extend(bench.judge(ms));
    }
    assert_eq!(changes, [Change::ViewLost]);
    assert_eq!(
        (bench.state("b"), bench.state("c")),
        (State::Unknown, State::Unknown)
    );
    assert!(!bench.members.is_hearing());
    let changes = bench.run(61_000, 65_750, &["b"]);
    assert!(
        matches!(&changes[..], [Change::ViewBack(time), Change::Suspect(node)]
        if *time >= Duration::from_secs(50) && node == "c"),
        "{changes:?}"
    );
    assert_eq!(bench.state("b"), State::Alive);
    assert_eq!(
        bench.run(66_000, 67_000, &["b"]),
        [Change::Dead("c".into())]
    );
}

#[test]
fn after_a_sleep_of_our_own_nobody_is_dead() {
    let mut bench = Bench::new();
    bench.run(0, 2_000, &["b"]);
    // A stopped process wakes up and reads what came meanwhile, its own beats first.
    bench.echo(60_000);
    assert_eq!(bench.judge(60_001), [Change::ViewLost]);
    let changes = bench.run(60_250, 62_000, &["b"]);
    assert!(matches!(changes[..], [Change::ViewBack(_)]), "{changes:?}");
    assert_eq!(bench.state("b"), State::Alive);
}

#[test]
fn who_has_left_is_not_missed_but_its_clients_are_given_up_when_it_stays_away() {
    let mut bench = Bench::new();
    bench.run(0, 2_000, &["b"]);
    let now = bench.now(2_100);
    assert_eq!(bench.members.left("b", "of another", now), None);
    let left = Some(Change::Left("b".into()));
    assert_eq!(bench.members.left("b", "b1", now), left);
    // A beat that was sent before, read from another queue.
    assert_eq!(bench.hears(2_200, &beat("b", "b1", 99)), []);
    assert_eq!(bench.run(2_250, 6_750, &[]), []);
    assert_eq!(bench.run(7_000, 8_000, &[]), [Change::Gone("b".into())]);
    assert_eq!(bench.state("b"), State::Left);
    let mut again = beat("b", "b2", 1);
    again.started_ms += 8_000;
    assert_eq!(bench.hears(8_100, &again), [Change::Back("b".into())]);
}

#[test]
fn what_was_read_of_the_time_before_the_start_does_not_bring_a_node_back() {
    let mut bench = Bench::new();
    let now = bench.now(0);
    let stored_at_ms = i64::try_from(START_MS).unwrap();
    let old = beat("old", "old1", 5);
    assert_eq!(bench.members.heard(&old, stored_at_ms - 60_000, now), []);
    assert_eq!(
        bench
            .members
            .heard(&beat("b", "b1", 5), stored_at_ms - 500, now),
        []
    );
    assert_eq!(bench.echo(10), [Change::Joined("b".into())]);
    assert!(!bench.members.peers.contains_key("old"));
}

#[test]
fn of_two_with_one_id_the_younger_gives_way_until_the_elder_is_gone() {
    let mut bench = Bench::new();
    bench.run(0, 2_000, &[]);
    assert!(bench.members.is_at_work(bench.now(2_000)));
    let mut elder = beat("a", "z-elder", 100);
    elder.started_ms -= 1;
    let changes = bench.hears(2_100, &elder);
    assert!(
        matches!(
            changes[..],
            [Change::Rival {
                is_refused: true,
                ..
            }]
        ),
        "{changes:?}"
    );
    assert!(!bench.members.is_at_work(bench.now(2_100)));
    assert!(
        bench
            .members
            .next_beat(bench.now(2_200), Load::default())
            .is_refused
    );
    elder.seq += 1;
    assert_eq!(bench.hears(3_000, &elder), [], "said once");
    assert_eq!(bench.run(3_000, 7_750, &[]), []);
    assert_eq!(bench.run(8_000, 9_000, &[]), [Change::RivalGone]);
    assert!(bench.members.is_at_work(bench.now(9_000)));
}

#[test]
fn of_two_with_one_id_the_elder_works_on_and_says_so_once() {
    let mut bench = Bench::new();
    bench.run(0, 2_000, &[]);
    let mut younger = beat("a", "a0", 1);
    younger.started_ms += 1;
    younger.is_refused = true;
    let changes = bench.hears(2_100, &younger);
    assert!(
        matches!(
            changes[..],
            [Change::Rival {
                is_refused: false,
                ..
            }]
        ),
        "{changes:?}"
    );
    younger.seq += 1;
    assert_eq!(bench.hears(3_100, &younger), []);
    assert!(bench.members.is_at_work(bench.now(3_100)));
}

#[test]
fn late_beats_of_the_sidecar_before_this_one_are_no_second_node() {
    let mut bench = Bench::new();
    let mut before = beat("a", "a0", 100);
    before.spool.clone_from(&bench.members.own.spool);
    before.started_ms -= 60_000;
    // Read of the time before, and on its way while we started.
    assert_eq!(bench.hears(0, &before), []);
    bench.run(0, 2_000, &[]);
    assert_eq!(bench.hears(2_100, &before), []);
    assert_eq!(bench.hears(4_100, &before), []);
    assert!(!bench.members.is_refused);
    // A copied spool goes on beating.
    before.seq += 1;
    let changes = bench.hears(5_200, &before);
    assert!(
        matches!(
            changes[..],
            [Change::Rival {
                is_refused: true,
                ..
            }]
        ),
        "{changes:?}"
    );
}

#[test]
fn an_old_beat_of_a_node_that_started_again_says_nothing() {
    let mut bench = Bench::new();
    bench.run(0, 1_000, &[]);
    let mut new = beat("b", "b2", 1);
    new.started_ms += 500;
    bench.hears(1_100, &new);
    bench.hears(1_200, &beat("b", "b1", 900));
    assert_eq!(bench.members.peers["b"].beat.instance, "b2");
}

#[test]
fn a_short_time_out_has_faster_beats() {
    let members = Members::new(beat("a", "a1", 0), Duration::from_secs(1));
    assert_eq!(members.beat_every(), Duration::from_millis(250));
    assert!(members.patience() < Duration::from_secs(1));
}
