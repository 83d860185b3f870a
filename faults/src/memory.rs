//! The memory of Mosquitto and of the sidecar while a fault lasts: bounded, and flat.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness::rig::memory::{MemoryRecord, Resident, Sample, csv, growth, peak};

use crate::run::Run;

/// What either may have of its own, in KiB: `in_flight_bytes_max` twice.
const OWN_MAX: u64 = 32 * 1024;
/// What the sidecar should have resident in all, in KiB. Shown where it is missed, not failed: half of it are pages of the program and of
/// the logs' newest segments, which the kernel takes back when it needs memory.
const SIDECAR_GOAL: u64 = 64 * 1024;
/// How much either may grow from one third of the fault to the next, in KiB: an allocator's unrest, and no leak. A leak of one byte
/// for each message of the load would be ten times this.
const GROWTH_MAX: i64 = 4 * 1024;

static DIR: OnceLock<PathBuf> = OnceLock::new();

/// From now on each record is written into this folder, too.
pub fn write_into(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // The command line is read once.
    DIR.get_or_init(|| dir.to_owned());
    Ok(())
}

/// Looks at the memory while `act` goes on, notes what it was, and judges it.
///
/// # Panics
/// When it was not bounded, or not flat.
pub fn watched(run: &mut Run, act: impl FnOnce(&mut Run)) {
    let record = MemoryRecord::start(run.broker.pid(), &run.broker.spool_dir());
    act(run);
    let samples = record.stop();
    if let Some(dir) = DIR.get() {
        let path = dir.join(format!("{}.csv", run.name));
        fs::write(&path, csv(&samples)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    judge(run, &samples);
}

type Process = fn(&Sample) -> Option<Resident>;

fn judge(run: &mut Run, samples: &[Sample]) {
    let processes: [(&str, Process); 2] = [
        ("Mosquitto", |sample| sample.mosquitto),
        ("the sidecar", |sample| sample.sidecar),
    ];
    for (name, process) in processes {
        let all = |sample: &Sample| process(sample).map(|resident| resident.all);
        let anonymous = |sample: &Sample| process(sample).map(|resident| resident.anonymous);
        let (Some(most), Some(grown), Some(own)) = (
            peak(samples, all),
            growth(samples, anonymous),
            peak(samples, anonymous),
        ) else {
            panic!("no record of {name}'s memory in {} samples", samples.len());
        };
        run.note(format!(
            "{name}: at most {most} KiB resident, {own} KiB of them its own, which grew by {grown} KiB in the last third of {} s",
            samples.len()
        ));
        assert!(
            grown <= GROWTH_MAX,
            "{name}'s own memory grew by {grown} KiB in a third of the fault"
        );
        assert!(
            own <= OWN_MAX,
            "{name} had {own} KiB of its own, more than {OWN_MAX}"
        );
        if name != "Mosquitto" && most > SIDECAR_GOAL {
            run.note(format!("goal missed: {name} within {SIDECAR_GOAL} KiB"));
        }
    }
}
