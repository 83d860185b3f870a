//! How much memory processes have, each second.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::proc;

const EVERY: Duration = Duration::from_secs(1);

/// What `/proc/PID/status` says of one process, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// All that is resident (`VmRSS`), the pages of mapped files too: those the kernel can take back.
    pub all: u64,
    /// What is its own and no file's (`RssAnon`).
    pub anonymous: u64,
}

impl Resident {
    /// Of a process; `None` when it is not there.
    pub fn of(pid: u32) -> Option<Resident> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        Some(Resident {
            all: field("VmRSS:")?,
            anonymous: field("RssAnon:")?,
        })
    }
}

/// One moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Since the record began.
    pub at: Duration,
    /// Mosquitto.
    pub mosquitto: Option<Resident>,
    /// The sidecar; `None` while there is none.
    pub sidecar: Option<Resident>,
}

/// Looks at a Mosquitto and its sidecar each second.
#[derive(Debug)]
pub struct MemoryRecord {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

impl MemoryRecord {
    /// Begins.
    pub fn start(mosquitto: u32, spool_dir: &Path) -> MemoryRecord {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, spool_dir) = (Arc::clone(&stop), spool_dir.to_owned());
        let thread = std::thread::spawn(move || record(mosquitto, &spool_dir, &asked));
        MemoryRecord {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it, and returns what was seen.
    pub fn stop(mut self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for MemoryRecord {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn record(mosquitto: u32, spool_dir: &Path, stop: &AtomicBool) -> Vec<Sample> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let at = start.elapsed();
        let sidecar = proc::sidecars(spool_dir).first().copied();
        samples.push(Sample {
            at,
            mosquitto: Resident::of(mosquitto),
            sidecar: sidecar.and_then(Resident::of),
        });
        let next = EVERY * u32::try_from(samples.len()).unwrap_or(u32::MAX);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    samples
}

/// The samples as a table, with a line of names above.
pub fn csv(samples: &[Sample]) -> String {
    let mut text =
        "at_s,mosquitto_rss_kib,mosquitto_anon_kib,sidecar_rss_kib,sidecar_anon_kib\n".to_owned();
    for sample in samples {
        let mut line = vec![format!("{:.1}", sample.at.as_secs_f64())];
        for process in [sample.mosquitto, sample.sidecar] {
            let number = |of: fn(Resident) -> u64| {
                process.map(of).map_or_else(String::new, |n| n.to_string())
            };
            line.push(number(|resident| resident.all));
            line.push(number(|resident| resident.anonymous));
        }
        text.push_str(&line.join(","));
        text.push('\n');
    }
    text
}

/// How far a number has grown from the first third of the samples to the last one: the medians' difference. A leak grows on; what
/// was taken once, for a purpose, does not.
pub fn growth(samples: &[Sample], number: impl Fn(&Sample) -> Option<u64>) -> Option<i64> {
    let third = samples.len() / 3;
    let median = |part: &[Sample]| {
        let mut numbers: Vec<u64> = part.iter().filter_map(&number).collect();
        numbers.sort_unstable();
        i64::try_from(*numbers.get(numbers.len() / 2)?).ok()
    };
    // The middle third, not the first: there the process still warms up.
    Some(median(&samples[samples.len() - third..])? - median(&samples[third..2 * third])?)
}

/// The largest value of a number.
pub fn peak(samples: &[Sample], number: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
    samples.iter().filter_map(number).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, anonymous: u64) -> Sample {
        Sample {
            at: Duration::from_secs(second),
            mosquitto: Some(Resident { all: 10, anonymous }),
            sidecar: None,
        }
    }

    #[test]
    fn what_grows_on_is_told_from_what_was_taken_once() {
        let number = |sample: &Sample| sample.mosquitto.map(|resident| resident.anonymous);
        let leak: Vec<Sample> = (0..90).map(|second| sample(second, second * 100)).collect();
        assert_eq!(growth(&leak, number), Some(3_000));
        let once: Vec<Sample> = (0..90)
            .map(|second| sample(second, 5_000.min(second * 500)))
            .collect();
        assert_eq!(growth(&once, number), Some(0));
        assert_eq!(peak(&once, number), Some(5_000));
        assert_eq!(growth(&once, |_| None), None);
    }

    #[test]
    fn this_process_is_resident_and_a_table_has_a_line_a_sample() {
        let own = Resident::of(std::process::id()).expect("it runs");
        assert!(own.all >= own.anonymous && own.anonymous > 0);
        assert_eq!(Resident::of(u32::MAX), None);
        let table = csv(&[sample(0, 5), sample(1, 6)]);
        assert_eq!(table.lines().nth(2), Some("1.0,10,6,,"));
    }
}
