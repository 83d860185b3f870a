//! What is made of a run: it waits until everything has arrived, counts, and judges. A row for each direction.

mod between;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use harness::probe::Reader;
use harness::{Mosquitto, Stored as InRocketMq, ledger};

use crate::count::{self, Acked, Count};
use crate::fault::Repeats;
use crate::identity;
use crate::load::{
    Arrival, DEVICES, DownlinkLoad, Published, Stored, publisher_id, read_up, up_topic,
};
use crate::row::{Direction, Row};
use crate::run::{Run, log};

const POLL_PAUSE: Duration = Duration::from_millis(250);
/// After everything has arrived: what comes again comes soon.
const QUIET: Duration = Duration::from_secs(2);
/// How many of a kind a note shows.
const SHOWN: usize = 4;

/// What the notes say of messages that are not as they were sent, …
pub(crate) const DAMAGED: &str = "damaged:";
/// … and of identities.
pub(crate) const MISNAMED: &str =
    "not as consumers are promised, who drop repetitions by identity:";

/// By what a run is judged.
pub(crate) struct Verdict<'a> {
    pub(crate) run: &'a Run,
    pub(crate) repeats_max: Repeats,
    pub(crate) goal_s: Option<f64>,
    pub(crate) recovery_limit_s: f64,
    pub(crate) patience: Duration,
    /// Whether a missed goal fails the row.
    pub(crate) strict: bool,
}

/// The load's topic, read from its beginning.
struct UpTopic {
    payload_bytes: usize,
    reader: Reader,
    read: usize,
    arrivals: Vec<Arrival>,
    damaged: Vec<String>,
}

impl UpTopic {
    fn poll(&mut self) {
        self.reader.poll();
        let new = self.reader.messages.split_off(self.read);
        self.take(&new);
        self.reader.messages.extend(new);
        self.read = self.reader.messages.len();
    }

    fn take(&mut self, messages: &[InRocketMq]) {
        for message in messages {
            match arrival(message, self.payload_bytes) {
                Ok(arrival) => self.arrivals.push(arrival),
                Err(problem) => self.damaged.push(problem),
            }
        }
    }
}

/// A message as it lies in RocketMQ; what is wrong with it where it is not what its device sent.
fn arrival(message: &InRocketMq, payload_bytes: usize) -> Result<Arrival, String> {
    let number = read_up(&message.body, payload_bytes)?;
    let property = |name: &str| message.property(name).unwrap_or_default();
    for (name, sent) in [
        ("mqtt_topic", up_topic(number.0)),
        ("mqtt_client_id", publisher_id(number.0)),
    ] {
        if property(name) != sent {
            let stored = property(name);
            return Err(format!("{number:?} has {name} {stored:?}, not {sent:?}"));
        }
    }
    Ok(Arrival {
        number,
        identity: property("mqtt_id").to_owned(),
        again: false,
        at_ms: message.stored_at_ms,
    })
}

impl Verdict<'_> {
    /// The row of what devices sent.
    pub(crate) fn uplink(&self, published: &Published) -> Row {
        let acked: Acked = published
            .acked
            .iter()
            .filter(|(_, at)| self.counts(**at))
            .map(|(number, _)| (*number, None))
            .collect();
        let mut topic = UpTopic {
            payload_bytes: published.payload_bytes,
            reader: self.run.up_topic.reader(),
            read: 0,
            arrivals: Vec::new(),
            damaged: Vec::new(),
        };
        topic.take(&self.run.read_before);
        self.settle(|| {
            topic.poll();
            let counted = count::count(&acked, &topic.arrivals);
            (topic.read, counted.lost.is_empty())
        });
        let arrivals = &topic.arrivals;
        let counted = count::count(&acked, arrivals);
        let mut row = self.row(Direction::Uplink, &counted, &topic.damaged);
        row.sent = published.sent;
        row.acked = acked.len();
        row.recovery_s =
            self.recovery(|episode| count::recovery_s(episode, &published.acked, arrivals));
        let unsettled = published.unsettled();
        if unsettled > 0 {
            fail(
                &mut row,
                format!("{unsettled} neither acknowledged nor refused in the end"),
            );
        }
        let unexplained = unexplained(published, arrivals);
        let what = "arrived under more identities than the device sent them times; number, times, identities:";
        fail_for(&mut row, what, &unexplained);
        let stored: Vec<InRocketMq> = [&self.run.read_before[..], &topic.reader.messages].concat();
        fail_for(&mut row, MISNAMED, &identity::broken(&stored));
        self.judge_refused(&mut row, published, arrivals);
        let times = published.transmissions.values();
        let again: u32 = times.map(|times| times - 1).sum();
        log(
            self.run.name,
            &format!(
                "uplink: {counted}; {} refused; the devices sent {again} again",
                published.refused.len()
            ),
        );
        self.judge_recovery(&mut row);
        row
    }

    /// The row of what RocketMQ's own producer sent.
    pub(crate) fn downlink(&self, stored: &Stored, downlink: &DownlinkLoad) -> Row {
        let acked: Acked = stored
            .acked
            .iter()
            .filter(|(_, (_, at))| self.counts(*at))
            .map(|(number, (attempt, _))| (*number, Some(attempt.clone())))
            .collect();
        self.settle(|| {
            let arrivals = downlink.arrivals();
            let counted = count::count(&acked, &arrivals);
            (arrivals.len(), counted.lost.is_empty())
        });
        let arrivals = downlink.arrivals();
        let counted = count::count(&acked, &arrivals);
        let mut row = self.row(Direction::Downlink, &counted, &downlink.damaged());
        row.sent = stored.sent;
        row.acked = acked.len();
        let acked_at = stored
            .acked
            .iter()
            .map(|(number, (_, at))| (*number, *at))
            .collect();
        row.recovery_s = self.recovery(|episode| count::recovery_s(episode, &acked_at, &arrivals));
        let unsettled = stored.unsettled();
        if unsettled > 0 {
            fail(
                &mut row,
                format!("{unsettled} never acknowledged by RocketMQ"),
            );
        }
        log(self.run.name, &format!("downlink: {counted}"));
        self.judge_recovery(&mut row);
        row
    }

    /// Polls until nothing is missing, or nothing new has come for the plan's patience; then until it is quiet.
    fn settle(&self, mut poll: impl FnMut() -> (usize, bool)) {
        let mut last = (0, Instant::now());
        loop {
            let (arrived, complete) = poll();
            if arrived != last.0 {
                last = (arrived, Instant::now());
            }
            if last.1.elapsed() > if complete { QUIET } else { self.patience } {
                return;
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// Whether what was acknowledged then is held against the product.
    fn counts(&self, at: i64) -> bool {
        let uncounted = &self.run.uncounted;
        !uncounted
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&at))
    }

    fn row(&self, direction: Direction, counted: &Count, damaged: &[String]) -> Row {
        let mut row = Row {
            arrived: counted.arrived,
            lost: counted.lost.len(),
            duplicated: counted.duplicated,
            reordered: counted.reordered,
            passed: true,
            ..Row::empty(self.run.name, direction)
        };
        fail_for(&mut row, "lost:", &counted.lost);
        fail_for(&mut row, DAMAGED, damaged);
        let late_max = match direction {
            Direction::Uplink => self.run.late_max,
            Direction::Downlink => {
                self.run.late_max * self.run.listeners.as_ref().map_or(1, |_| DEVICES)
            }
        };
        if row.reordered > late_max {
            fail(&mut row, "not in order");
        }
        let episodes = self.run.episodes.len() + self.run.measured.len();
        let max = self.repeats_max.of(direction) * episodes.max(1);
        if row.duplicated > max {
            fail(&mut row, format!("more than {max} repetitions"));
        }
        row
    }

    /// The longest of all episodes; infinite where it did not go on.
    fn recovery(&self, of: impl Fn(count::Episode) -> Option<f64>) -> Option<f64> {
        let seen = self.run.episodes.iter();
        let seen = seen.map(|episode| of(*episode).unwrap_or(f64::INFINITY));
        let measured = self.run.measured.iter().map(Duration::as_secs_f64);
        seen.chain(measured).reduce(f64::max)
    }

    fn judge_recovery(&self, row: &mut Row) {
        let Some(seconds) = row.recovery_s else {
            return;
        };
        if seconds > self.recovery_limit_s {
            fail(row, format!("went on after {seconds} s"));
        } else if let Some(goal) = self.goal_s.filter(|goal| seconds > *goal) {
            let missed = format!("goal missed: to go on within {goal} s");
            if self.strict {
                fail(row, missed);
            } else {
                row.notes.push(missed);
            }
        }
        if row.recovery_s.is_some_and(f64::is_infinite) {
            // JSON has no infinity.
            row.recovery_s = None;
        }
    }

    /// Nothing that its device was told is refused may be in RocketMQ: but for what Mosquitto refused by itself, behind our callback.
    /// It does so when it is started after a kill with the state of before, in which exchanges at QoS 2 are open that their device has
    /// long ended: they take up what a device may have on its way, and never end.
    fn judge_refused(&self, row: &mut Row, published: &Published, arrivals: &[Arrival]) {
        // One that was sent twice may have been taken the first time, and refused when it was sent again.
        let once = arrivals
            .iter()
            .filter(|arrival| !published.transmissions.contains_key(&arrival.number));
        let refused: BTreeMap<_, _> = once
            .filter_map(|arrival| Some((arrival.number, published.refused.get(&arrival.number)?)))
            .collect();
        if refused.is_empty() {
            return;
        }
        let log_text = self.run.broker.log();
        let by_mosquitto =
            self.we_refused_nothing() && is_mosquittos(self.run.mosquitto, &refused, &log_text);
        if by_mosquitto {
            row.notes.push(format!(
                "{} arrived that Mosquitto, not the plugin, has refused, because of what it remembered from before its death",
                refused.len()
            ));
            return;
        }
        let refused: Vec<_> = refused.into_iter().collect();
        let what = "arrived that the device was told are refused; number, reason:";
        fail_for(row, what, &refused);
    }

    fn we_refused_nothing(&self) -> bool {
        let names = ["uplink_refused", "uplink_too_large", "uplink_errors"];
        names
            .iter()
            .all(|name| self.run.broker.status_number(name) == Some(0))
    }
}

/// Where the plugin has refused nothing: whether Mosquitto can have refused these, by a full quota. 2.1 writes a line for each. 2.0 ends
/// the connection behind it (`max_queued_messages` is 0 here), with a code that it has no words for; the plugin, when it refuses there,
/// does so by another code, and gives no reason.
fn is_mosquittos(
    mosquitto: Mosquitto,
    refused: &BTreeMap<ledger::Number, &String>,
    log: &str,
) -> bool {
    let mut of_device: HashMap<usize, usize> = HashMap::new();
    for (number, reason) in refused {
        if *reason != "QuotaExceeded" {
            return false;
        }
        *of_device.entry(number.0).or_default() += 1;
    }
    of_device.into_iter().all(|(device, times)| {
        let id = publisher_id(device);
        let line = match mosquitto {
            Mosquitto::V2_1_2 => format!("Client {id} has exceeded its receive-maximum quota"),
            _ => format!("Bad socket read/write on client {id}: Unknown error"),
        };
        log.matches(&line).count() >= times
    })
}

/// What arrived under more identities than it was sent times.
fn unexplained<'a>(
    published: &Published,
    arrivals: &'a [Arrival],
) -> Vec<(ledger::Number, u32, Vec<&'a str>)> {
    count::identities(arrivals)
        .into_iter()
        .map(|(number, identities)| {
            let sendings = published.transmissions.get(&number).copied().unwrap_or(1);
            (number, sendings, identities.into_iter().collect::<Vec<_>>())
        })
        .filter(|(_, sendings, identities)| identities.len() > *sendings as usize)
        .collect()
}

fn fail(row: &mut Row, why: impl Into<String>) {
    row.passed = false;
    row.notes.push(why.into());
}

/// Fails it where there is any of these, and shows some.
fn fail_for<T: std::fmt::Debug>(row: &mut Row, what: &str, found: &[T]) {
    if !found.is_empty() {
        let some = &found[..found.len().min(SHOWN)];
        fail(row, format!("{} {what} {some:?}", found.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mosquitto_refuses_by_itself_is_told_from_what_we_do() {
        let quota = "QuotaExceeded".to_owned();
        let other = "UnspecifiedError".to_owned();
        let line = |device: usize| {
            let id = publisher_id(device);
            format!(
                "1: Warning: Client {id} has exceeded its receive-maximum quota. This behaviour must …\n"
            )
        };
        let two = BTreeMap::from([((3, 7), &quota), ((3, 9), &quota)]);
        let by = |version, log: &str| is_mosquittos(version, &two, log);
        assert!(by(Mosquitto::V2_1_2, &line(3).repeat(2)));
        // A line for each, and of this device.
        assert!(!by(Mosquitto::V2_1_2, &line(3)));
        assert!(!by(Mosquitto::V2_1_2, &line(2).repeat(2)));
        let closed = "1: Bad socket read/write on client publisher-3: Unknown error.\n";
        assert!(by(Mosquitto::V2_0_21, &closed.repeat(2)));
        assert!(!by(Mosquitto::V2_0_21, closed));
        let one = BTreeMap::from([((3, 7), &other)]);
        assert!(!is_mosquittos(Mosquitto::V2_0_11, &one, closed));
        assert!(!is_mosquittos(Mosquitto::V2_1_2, &one, &line(3)));
    }
}
