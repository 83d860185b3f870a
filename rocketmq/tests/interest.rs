//! Reading by an interest that changes, from a real RocketMQ: what is of interest arrives, each message once, those of a tag in order,
//! whatever happens meanwhile. The messages are from RocketMQ's own producer, and by its own consumer it is known which there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::probe::{Produced, Topic, unique};
use harness::rocketmq::{OwnRocketMq, Part};
use harness::wait::DEADLINE;
use rocketmq::{
    Backbone, Consumer, Incoming, Interest, Queue, Select, Settings, StartAt, Subscription,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const QUEUES: i32 = 3;
const TAGS: usize = 40;
/// Of what is stored that much before a tag's time nothing may come, however long a broker held a pull.
const TOO_EARLY_MS: i64 = 20_000;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("small")
}

fn tag(number: usize) -> String {
    format!("t{number}")
}

/// RocketMQ's own producer, which goes on until it is stopped: messages of all tags to all queues.
struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    fn start(topic: &Topic) -> Stream {
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, stopped) = (topic.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut next = 0;
            while !stopped.load(Ordering::Relaxed) {
                let queue = i32::try_from(next).expect("small") % QUEUES;
                let message = Produced::new(format!("{next}"))
                    .tag(&tag(next * 7 % TAGS))
                    .queue(queue);
                // While RocketMQ is away: the next one then. Which are stored is asked for in the end.
                topic.try_produce(message, Duration::from_secs(2));
                next += 1;
            }
        });
        Stream {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the producer");
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// A consumer, what it was told to be interested in, and what it got.
struct Reading {
    runtime: Runtime,
    backbone: Arc<dyn Backbone>,
    consumer: Option<Box<dyn Consumer>>,
    topic: String,
    group: String,
    interest: watch::Sender<Arc<Interest>>,
    got: Vec<Incoming>,
    settled_ms: i64,
}

impl Reading {
    fn new(namesrv: String, topic: &str) -> Reading {
        let runtime = Runtime::new().expect("a runtime");
        let settings = Settings {
            namesrv,
            producer_group: "GID_INTEREST".to_owned(),
            instance: unique("interest"),
            send_timeout: Duration::from_secs(3),
        };
        Reading {
            backbone: runtime
                .block_on(async { rocketmq::connect(settings) })
                .expect("a backbone"),
            runtime,
            consumer: None,
            topic: topic.to_owned(),
            group: unique("GID"),
            interest: watch::channel(Arc::default()).0,
            got: Vec::new(),
            settled_ms: 0,
        }
    }

    fn subscribe(&mut self) {
        let subscription = Subscription {
            topic: self.topic.clone(),
            select: Select::Interest(self.interest.subscribe()),
        };
        let subscribed = self
            .backbone
            .subscribe(&self.group, vec![subscription], StartAt::Latest);
        self.consumer = Some(self.runtime.block_on(subscribed).expect("a consumer"));
    }

    fn set(&self, number: usize, since_ms: i64) {
        self.change(|interest| {
            interest.tags.insert(tag(number), since_ms);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Interest)) {
        self.interest
            .send_modify(|interest| change(Arc::make_mut(interest)));
    }

    /// Of interest from now on; returns since when that is.
    fn add(&self, number: usize, ago_ms: i64) -> i64 {
        let since_ms = now_ms() - ago_ms;
        self.set(number, since_ms);
        since_ms
    }

    fn remove(&self, number: usize) {
        self.change(|interest| {
            interest.tags.remove(&tag(number));
        });
    }

    fn poll(&mut self) -> usize {
        let consumer = self.consumer.as_mut().expect("it is subscribed");
        let polled = self
            .runtime
            .block_on(consumer.poll(64, Duration::from_millis(50)));
        // While the broker is away it fails, and reads on by itself.
        let polled = polled.unwrap_or_default();
        let count = polled.len();
        self.got.extend(polled);
        count
    }

    fn poll_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.poll();
        }
    }

    fn poll_until(&mut self, what: &str, mut is_true: impl FnMut(&Reading) -> bool) {
        let start = Instant::now();
        while !is_true(self) {
            assert!(
                start.elapsed() < DEADLINE,
                "waited for this in vain: {what}"
            );
            self.poll();
        }
    }

    fn is_settled(&self) -> bool {
        self.consumer
            .as_ref()
            .is_some_and(|consumer| consumer.settled_ms().is_some())
    }

    /// Commits all that was got, and ends as a process does that is killed.
    fn commit_and_end(&mut self) {
        let mut consumer = self.consumer.take().expect("it is subscribed");
        let mut next: BTreeMap<&Queue, i64> = BTreeMap::new();
        for message in self.got.iter().filter(|message| !message.is_read_back) {
            next.insert(&message.queue, message.offset + 1);
        }
        let offsets: Vec<(Queue, i64)> = next
            .into_iter()
            .map(|(queue, offset)| (queue.clone(), offset))
            .collect();
        self.settled_ms = consumer.settled_ms().unwrap_or(self.settled_ms);
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = self.runtime.block_on(consumer.commit(&offsets)) {
            assert!(Instant::now() < deadline, "no commit: {error}");
        }
    }

    /// Waits until everything that RocketMQ has of the tags was got, and checks that nothing else was.
    ///
    /// For each tag: since when it is of interest, and until when at least.
    fn check(&mut self, topic: &Topic, tags: &BTreeMap<usize, (i64, i64)>) {
        let mut reader = topic.reader();
        let start = Instant::now();
        // A broker that has just started again may not have told its topics yet.
        while reader.poll() > 0 || reader.messages.len() < self.got.len().max(1) {
            assert!(
                start.elapsed() < DEADLINE,
                "RocketMQ has {} messages: {:?}",
                reader.messages.len(),
                reader.last_error
            );
        }
        let mut wanted: BTreeMap<String, BTreeSet<(i32, i64)>> = BTreeMap::new();
        let mut stored_at_ms = BTreeMap::new();
        for message in &reader.messages {
            let queue: i32 = message
                .queue
                .rsplit('/')
                .next()
                .and_then(|id| id.parse().ok())
                .expect("a queue");
            let place = (queue, message.offset);
            stored_at_ms.insert(place, message.stored_at_ms);
            let tag = message.tag.clone().expect("a tag");
            let number: usize = tag[1..].parse().expect("a number");
            if tags
                .get(&number)
                .is_some_and(|(since, until)| (*since..*until).contains(&message.stored_at_ms))
            {
                wanted.entry(tag).or_default().insert(place);
            }
        }
        let total: usize = wanted.values().map(BTreeSet::len).sum();
        assert!(
            total > 30,
            "{total} of {} messages are no test",
            reader.messages.len()
        );
        let missing = |got: &[Incoming]| -> Vec<(String, i32, i64)> {
            let got: BTreeSet<(i32, i64)> = got
                .iter()
                .map(|message| (message.queue.id, message.offset))
                .collect();
            let all = wanted.iter().flat_map(|(tag, places)| {
                places
                    .iter()
                    .map(move |place| (tag.clone(), place.0, place.1))
            });
            all.filter(|(_, queue, offset)| !got.contains(&(*queue, *offset)))
                .collect()
        };
        let start = Instant::now();
        while !missing(&self.got).is_empty() && start.elapsed() < DEADLINE {
            self.poll_for(Duration::from_millis(300));
        }
        let lost = missing(&self.got);
        assert!(lost.is_empty(), "never came, of {total}: {lost:?}");
        // What would be too much, comes now.
        self.poll_for(Duration::from_secs(2));
        let mut last: BTreeMap<(i32, &str), i64> = BTreeMap::new();
        for message in &self.got {
            let place = (message.queue.id, message.offset);
            let tag = message.tag.as_deref().expect("a tag");
            let number: usize = tag[1..].parse().expect("a number");
            let since_ms = tags
                .get(&number)
                .unwrap_or_else(|| panic!("{tag} was never of interest"))
                .0;
            assert!(
                stored_at_ms[&place] > since_ms - TOO_EARLY_MS,
                "{tag} {place:?} was stored {} ms before it was of interest",
                since_ms - stored_at_ms[&place]
            );
            let before = last.insert((message.queue.id, tag), message.offset);
            assert!(
                before.is_none_or(|before| before < message.offset),
                "{tag}: {place:?} came behind offset {before:?}"
            );
        }
        eprintln!(
            "{} messages in RocketMQ, {total} wanted, {} came, {} of them read back",
            reader.messages.len(),
            self.got.len(),
            self.got
                .iter()
                .filter(|message| message.is_read_back)
                .count()
        );
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.consumer = None;
        self.runtime.block_on(self.backbone.shutdown());
    }
}

#[test]
fn what_is_of_interest_comes_once_and_in_order_while_the_broker_hangs_and_dies() {
    let mut rocketmq = OwnRocketMq::started();
    let topic = Topic::create(
        &rocketmq.namesrv(),
        &unique("INTEREST"),
        QUEUES.cast_unsigned(),
    );
    let mut reading = Reading::new(rocketmq.namesrv(), topic.name());
    let mut tags = BTreeMap::new();
    // Of interest, for good: since when.
    let mut add = |reading: &Reading, number: usize, ago_ms: i64| {
        let since_ms = reading.add(number, ago_ms);
        tags.insert(number, (since_ms, i64::MAX));
    };
    add(&reading, 0, 0);
    reading.subscribe();
    let stream = Stream::start(&topic);
    reading.poll_until("the first message", |reading| !reading.got.is_empty());
    add(&reading, 1, 0);
    reading.poll_for(Duration::from_millis(700));
    // What reading has passed over.
    add(&reading, 2, 600);
    // One after the other, faster than a broker answers.
    for number in 3..20 {
        add(&reading, number, 20 * i64::try_from(number).expect("small"));
        reading.poll();
    }
    reading.poll_until("all of it", Reading::is_settled);
    // While the broker answers nobody, and then goes on.
    rocketmq.signal(Part::Broker, libc::SIGSTOP);
    add(&reading, 20, 1_000);
    reading.poll_for(Duration::from_millis(500));
    add(&reading, 21, 300);
    reading.poll_for(Duration::from_secs(3));
    rocketmq.signal(Part::Broker, libc::SIGCONT);
    reading.poll_for(Duration::from_secs(3));
    // While it is dead.
    add(&reading, 22, 500);
    rocketmq.kill_part(Part::Broker);
    add(&reading, 23, 1_500);
    reading.poll_for(Duration::from_secs(1));
    add(&reading, 24, 0);
    rocketmq.start_part(Part::Broker);
    add(&reading, 25, 200);
    reading.poll_until("all of it, after the broker was dead", Reading::is_settled);
    reading.poll_for(Duration::from_secs(2));
    stream.end();
    assert!(reading.got.iter().any(|message| message.is_read_back));
    reading.check(&topic, &tags);
}

#[test]
fn what_comes_and_goes_is_not_given_twice_and_a_start_reads_back_what_is_not_settled() {
    let topic = Topic::shared("INTEREST", QUEUES.cast_unsigned());
    let mut reading = Reading::new(harness::environment::shared_namesrv(), topic.name());
    let mut tags = BTreeMap::new();
    let stream = Stream::start(&topic);
    // The stream has begun when this starts, which reads it back: it was of interest before.
    std::thread::sleep(Duration::from_secs(1));
    tags.insert(0, (reading.add(0, 500), i64::MAX));
    tags.insert(1, (reading.add(1, 0), i64::MAX));
    reading.subscribe();
    reading.poll_until("the first message", |reading| !reading.got.is_empty());
    for _ in 0..40 {
        // Gone, and there again since before it was gone.
        let gone = Instant::now();
        reading.remove(1);
        reading.poll_for(Duration::from_millis(40));
        let ago_ms = i64::try_from(gone.elapsed().as_millis()).expect("small");
        reading.add(1, ago_ms + 100);
        reading.poll_for(Duration::from_millis(40));
    }
    // Nothing at all, and something again.
    reading.remove(1);
    reading.remove(0);
    let gone_ms = now_ms();
    reading.poll_for(Duration::from_secs(2));
    tags.insert(2, (reading.add(2, 1_000), i64::MAX));
    // In its turn, in each queue: what is committed then is behind all that was read back.
    reading.poll_until("what has come", |reading| {
        let in_turn = reading
            .got
            .iter()
            .filter(|message| message.tag.as_deref() == Some("t2") && !message.is_read_back);
        let queues: BTreeSet<i32> = in_turn.map(|message| message.queue.id).collect();
        queues.len() == usize::try_from(QUEUES).expect("small") && reading.is_settled()
    });
    for number in 0..2 {
        // What was stored just before it was gone may not have been read.
        tags.get_mut(&number).expect("it was added").1 = gone_ms - 2_000;
    }
    reading.commit_and_end();
    assert!(reading.settled_ms > 0);
    // The next start: one is settled, and one was added while nobody read.
    let settled_ms = reading.settled_ms;
    std::thread::sleep(Duration::from_secs(1));
    tags.insert(3, (reading.add(3, 800), i64::MAX));
    reading.change(|interest| interest.settled_ms = settled_ms);
    reading.subscribe();
    reading.poll_until("all of it", Reading::is_settled);
    reading.poll_for(Duration::from_secs(2));
    stream.end();
    reading.check(&topic, &tags);
}

#[test]
fn all_since_the_beginning_leaves_out_what_had_come_and_a_queue_made_anew_is_read_whole() {
    // Without it a broker fails where it is to delete a topic.
    let mut rocketmq = OwnRocketMq::stopped().setting("timerWheelEnable=true");
    rocketmq.start();
    let name = unique("INTEREST");
    let topic = Topic::create(&rocketmq.namesrv(), &name, QUEUES.cast_unsigned());
    let mut reading = Reading::new(rocketmq.namesrv(), &name);
    let messages = |from: usize, count: usize| -> Vec<Produced> {
        let message = |number: usize| {
            let queue = i32::try_from(number).expect("small") % QUEUES;
            Produced::new(format!("{number}"))
                .tag(&tag(number % 4))
                .queue(queue)
        };
        (from..from + count).map(message).collect()
    };
    let bodies = |reading: &Reading| -> Vec<usize> {
        let number = |message: &Incoming| std::str::from_utf8(&message.body).ok()?.parse().ok();
        let mut bodies: Vec<usize> = reading.got.iter().filter_map(number).collect();
        bodies.sort_unstable();
        bodies
    };
    reading.add(1, 0);
    topic.produce(&messages(0, 60));
    reading.add(0, 0);
    reading.set(1, 0);
    reading.subscribe();
    // Since the beginning, and since just now by the clock, with what was just before.
    reading.poll_until("what was there", |reading| reading.is_settled());
    topic.produce(&messages(60, 60));
    let is_of = |number: &usize, tags: &[usize]| tags.contains(&(number % 4));
    let expected: Vec<usize> = (0..120)
        .filter(|number| is_of(number, &[1]) || *number >= 60 && is_of(number, &[0]))
        .collect();
    reading.poll_until("two tags", |reading| {
        expected
            .iter()
            .all(|number| bodies(reading).contains(number))
    });
    reading.change(|interest| interest.all_since_ms = Some(0));
    reading.poll_until("all", |reading| {
        bodies(reading).len() >= 120 && reading.is_settled()
    });
    reading.poll_for(Duration::from_secs(1));
    let all: Vec<usize> = (0..120).collect();
    assert_eq!(bodies(&reading), all, "each of them once");
    // Another topic of the same name.
    reading.change(|interest| interest.all_since_ms = None);
    topic.delete();
    let topic = Topic::create(&rocketmq.namesrv(), &name, QUEUES.cast_unsigned());
    topic.produce(&messages(120, 60));
    let expected: Vec<usize> = (0..180)
        .filter(|number| *number < 120 || is_of(number, &[0, 1]))
        .collect();
    reading.poll_until("the new one", |reading| {
        bodies(reading).len() >= expected.len()
    });
    reading.poll_for(Duration::from_secs(1));
    assert_eq!(bodies(&reading), expected, "each of them once");
    // And of that one what it had passed over.
    reading.set(2, 0);
    let expected: Vec<usize> = (0..180)
        .filter(|number| *number < 120 || is_of(number, &[0, 1, 2]))
        .collect();
    reading.poll_until("what was passed over", |reading| {
        bodies(reading).len() >= expected.len()
    });
    reading.poll_for(Duration::from_secs(1));
    assert_eq!(bodies(&reading), expected, "each of them once");
}
