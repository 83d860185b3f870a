//! The broker's queues are a table here.

use protocol::config::Config;
use protocol::message::QoS;

use super::*;

#[derive(Default)]
struct Broker(HashMap<usize, QueueState>);

impl Queues for Broker {
    fn of(&self, client: usize) -> Option<QueueState> {
        self.0.get(&client).copied()
    }

    fn id(&self, client: usize) -> Option<String> {
        Some(format!("client-{client}"))
    }
}

struct Setup {
    pressure: Pressure,
    broker: Broker,
    counters: Rc<Counters>,
    now: Instant,
    _dir: tempfile::TempDir,
}

const HOLD: Duration = Duration::from_secs(10);

fn setup() -> Setup {
    let dir = tempfile::tempdir().expect("a directory");
    let counters =
        Rc::new(Counters::create(&dir.path().join("counters"), count::COUNT).expect("counters"));
    let options = [
        ("namesrv", "a:1"),
        ("node_id", "n"),
        ("downlink", "T down/%k"),
    ];
    let config = Config::from_options(options.into_iter()).expect("good");
    let limits = QueueLimits {
        messages: 1000,
        ..QueueLimits::default()
    };
    Setup {
        pressure: Pressure::new(&config, limits, Rc::clone(&counters)),
        broker: Broker::default(),
        counters,
        now: Instant::now(),
        _dir: dir,
    }
}

fn filled(waiting: u32) -> QueueState {
    QueueState {
        connected: true,
        waiting,
        in_flight_max: 20,
        heads: (1, 2),
        ..QueueState::default()
    }
}

fn message<'a>(topic: &'a str, client_id: &'a str) -> Message<'a> {
    Message {
        topic,
        client_id,
        qos: QoS::AtLeastOnce,
        ..Message::default()
    }
}

impl Setup {
    /// A delivery as the broker asks about it.
    fn deliver(&mut self, client: usize, state: QueueState) {
        self.broker.0.insert(client, state);
        let id = || format!("client-{client}");
        let delivery = Delivery {
            client,
            state,
            qos: 1,
            id: &id,
        };
        self.pressure.delivers("down/a", &delivery);
    }

    /// Clients that have got something from RocketMQ before.
    fn takers(&mut self, clients: std::ops::RangeInclusive<usize>) {
        self.pressure.injected(&message("down/a", ""));
        for client in clients {
            self.deliver(client, filled(0));
        }
        self.tick();
    }

    fn tick(&mut self) -> Allowance {
        self.pressure.allowance(&self.broker, self.now, true)
    }

    fn dropped(&self) -> u64 {
        self.counters.get(count::DOWNLINK_QUEUE_DROPPED)
    }
}

#[test]
fn an_idle_broker_gets_a_quarter_of_a_queue_at_once() {
    let mut setup = setup();
    setup.takers(1..=1);
    assert_eq!(setup.tick().messages, 250);
    setup.deliver(1, filled(10));
    assert_eq!(setup.tick().messages, 250);
    assert!(
        setup.pressure.watched.is_empty(),
        "an empty queue is not watched"
    );
}

#[test]
fn no_more_is_injected_than_the_fullest_queue_takes() {
    let mut setup = setup();
    setup.takers(1..=2);
    setup.deliver(1, filled(400));
    setup.deliver(2, filled(990));
    assert_eq!(setup.tick().messages, 30);
    setup.broker.0.insert(2, filled(1020));
    assert_eq!(setup.tick().messages, 0);
    assert!(setup.pressure.is_holding());
    assert_eq!(setup.counters.get(count::DOWNLINK_HOLDS), 1);
    setup.broker.0.insert(2, filled(900));
    assert_eq!(setup.tick().messages, 120);
    assert!(!setup.pressure.is_holding());
    setup.broker.0.insert(2, filled(0));
    assert_eq!(setup.tick().messages, 250);
}

#[test]
fn a_client_that_takes_nothing_holds_the_others_no_longer_than_the_limit() {
    let mut setup = setup();
    setup.takers(1..=1);
    setup.deliver(1, filled(1020));
    assert_eq!(setup.tick().messages, 0);
    setup.now += HOLD - Duration::from_millis(1);
    assert_eq!(setup.tick().messages, 0);
    setup.now += Duration::from_secs(1);
    assert_eq!(setup.tick().messages, 250, "the others go on");
    assert_eq!(setup.dropped(), 0);
    setup.pressure.injected(&message("down/a", ""));
    setup.deliver(1, filled(1020));
    assert_eq!(setup.dropped(), 1);
    // It takes a part of its queue: it is waited for again.
    setup.broker.0.insert(1, filled(1005));
    assert_eq!(setup.tick().messages, 15);
}

#[test]
fn who_takes_something_is_waited_for() {
    let mut setup = setup();
    setup.takers(1..=1);
    setup.deliver(1, filled(1020));
    for n in 0..100 {
        // As many come from elsewhere as it takes: only the first messages differ.
        for head in 0..10 {
            setup.now += HOLD / 20;
            let heads = (n * 10 + head, 2);
            setup.broker.0.insert(
                1,
                QueueState {
                    heads,
                    ..filled(1020)
                },
            );
            assert_eq!(setup.tick().messages, 0, "{n}");
        }
    }
}

#[test]
fn with_nothing_to_inject_nothing_is_looked_at_and_nobody_is_taken_for_hung() {
    let mut setup = setup();
    setup.takers(1..=1);
    setup.deliver(1, filled(1020));
    assert_eq!(setup.tick().messages, 0);
    let nobody = Broker::default();
    let idle = setup.pressure.allowance(&nobody, setup.now, false);
    assert_eq!(idle, Allowance::NONE);
    assert!(!setup.pressure.is_holding());
    // It has taken all, and got as much from elsewhere.
    setup.now += HOLD * 2;
    let heads = (3, 4);
    setup.broker.0.insert(
        1,
        QueueState {
            heads,
            ..filled(1020)
        },
    );
    assert_eq!(setup.tick().messages, 0, "it is waited for");
}

#[test]
fn a_client_that_is_gone_holds_nobody() {
    let mut setup = setup();
    setup.takers(1..=1);
    setup.deliver(1, filled(1020));
    assert_eq!(setup.tick().messages, 0);
    setup.pressure.gone(1);
    setup.broker.0.clear(); // as if freed: it must not be asked for any more
    assert_eq!(setup.tick().messages, 250);
    // Its own will, on 2.1, is delivered to it after its end was told, and so is what was injected just before.
    setup.pressure.gone(2);
    setup.pressure.injected(&message("down/a", ""));
    setup.deliver(2, filled(1020));
    assert!(setup.pressure.watched.is_empty() && setup.pressure.takers.is_empty());
}

#[test]
fn a_client_that_gets_nothing_from_rocketmq_holds_nobody() {
    let mut setup = setup();
    setup.pressure.joined(1);
    setup.deliver(1, filled(0));
    setup.tick();
    setup.deliver(1, filled(1020)); // all of it local
    assert_eq!(setup.tick().messages, 250);
    // The first message from RocketMQ for it is lost, and counted; then it is waited for.
    setup.pressure.injected(&message("down/a", ""));
    setup.deliver(1, filled(1020));
    assert_eq!(setup.dropped(), 1);
    assert_eq!(setup.tick().messages, 0);
}

#[test]
fn a_client_that_comes_with_a_full_queue_has_the_limit_to_show_that_it_is_ours() {
    let mut setup = setup();
    for client in 1..=2 {
        setup.pressure.joined(client);
        setup.broker.0.insert(client, filled(1010));
    }
    assert_eq!(setup.tick().messages, 10);
    setup.pressure.injected(&message("down/a", ""));
    setup.deliver(2, filled(1010));
    let mut messages = Vec::new();
    for n in 1..=4 {
        setup.now += HOLD / 4;
        for client in 1..=2 {
            // Both take messages, and get as many from elsewhere.
            let heads = (n, client);
            let state = QueueState {
                heads,
                ..filled(1020 - 10 * u32::try_from(client).expect("small"))
            };
            setup.broker.0.insert(client, state);
        }
        messages.push(setup.tick().messages);
    }
    assert_eq!(
        messages,
        [10, 10, 10, 20],
        "then only the one that is ours counts"
    );
}

#[test]
fn a_session_whose_client_is_away_is_counted_and_not_waited_for() {
    let mut setup = setup();
    setup.pressure.injected(&message("down/a", ""));
    let away = QueueState {
        connected: false,
        ..filled(1000)
    };
    setup.deliver(1, away);
    assert_eq!(setup.dropped(), 1);
    assert_eq!(setup.tick().messages, 250);
    // What is not from RocketMQ is not counted.
    setup.deliver(1, away);
    assert_eq!(setup.dropped(), 1);
}

#[test]
fn a_session_that_comes_back_with_a_full_queue_is_seen_before_anything_is_injected() {
    let mut setup = setup();
    setup.pressure.joined(1);
    setup.broker.0.insert(1, filled(1015));
    assert_eq!(setup.tick().messages, 5);
}

#[test]
fn messages_for_one_client_are_watched_by_its_id() {
    let mut setup = setup();
    setup.pressure.joined(1);
    setup.broker.0.insert(1, filled(0));
    assert_eq!(setup.tick().messages, 250);
    setup.pressure.injected(&message("any", "client-1"));
    setup.broker.0.insert(1, filled(1020));
    assert_eq!(setup.tick().messages, 0);
    setup.now += HOLD;
    assert_eq!(setup.tick().messages, 250);
    setup.pressure.injected(&message("any", "client-1"));
    assert_eq!(setup.dropped(), 1);
    // It has room for two more, and is hung.
    setup.broker.0.insert(1, filled(1018));
    assert_eq!(setup.tick().messages, 250);
    for _ in 0..5 {
        setup.pressure.injected(&message("any", "client-1"));
    }
    assert_eq!(setup.dropped(), 1 + 3);
    setup.pressure.gone(1);
    assert!(setup.pressure.by_id.is_empty() && setup.pressure.clients.is_empty());
}

#[test]
fn overlapping_subscriptions_are_allowed_for() {
    let mut setup = setup();
    setup.takers(1..=1);
    setup.deliver(1, filled(900));
    setup.tick();
    setup.pressure.injected(&message("down/a", ""));
    setup.deliver(1, filled(900));
    setup.deliver(1, filled(901));
    setup.broker.0.insert(1, filled(902));
    assert_eq!(
        setup.tick().messages,
        59,
        "118 are free, two are taken by each"
    );
}

#[test]
fn without_downlink_rules_nothing_is_kept() {
    let mut setup = setup();
    setup.pressure.wanted = false;
    setup.pressure.joined(1);
    setup.pressure.gone(2);
    setup.pressure.injected(&message("a", "b"));
    assert!(setup.pressure.fresh.is_empty() && setup.pressure.left.is_empty());
    assert!(setup.pressure.injected.is_empty());
}
