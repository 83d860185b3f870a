//! Single bytes of the spool's files changed, as bad memory or a bad disk does.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::proc;

use crate::fault::{Fault, Plan, Repeats};
use crate::load::Rate;
use crate::random::Random;
use crate::run::{Run, log};

/// Damaged bytes are at least this far apart, in one file.
const APART: u64 = 8 * 1024;
/// Of the files that hold frames, about one in so many bytes is changed.
const SPARSE: u64 = 48 * 1024;
const ROUNDS: usize = 3;
/// So many wait in the log when it is damaged.
const WAITING: usize = 600;

/// As the sidecar and the plugin word it when they have mended a byte.
const MENDED: &str = "it was read all the same";

fn plan(repeats_max: Repeats) -> Plan {
    Plan {
        rate: Rate {
            payload_bytes: 600,
            ..Rate::default()
        },
        repeats_max,
        sums: false,
        ..Plan::shared()
    }
    .broker(|spec| super::kill::saving(spec).option("spool_segment_bytes", "256KiB"))
}

pub(super) static STOPPED: Fault = Fault {
    name: "spool-flipped-stopped",
    about: "single bytes of every file of the spool changed, while Mosquitto and the sidecar are dead and messages wait in it",
    seconds: 60,
    quick: false,
    plan: || plan(Repeats::MOSQUITTO_DIED),
    inject: |run| {
        for _ in 0..ROUNDS {
            let sidecar = run.broker.sidecar_pid();
            proc::signal(sidecar, libc::SIGSTOP);
            run.flow_up(WAITING);
            run.begins();
            proc::signal(run.broker.pid(), libc::SIGKILL);
            proc::signal(sidecar, libc::SIGKILL);
            run.broker.kill();
            flip_all(run);
            run.broker.start();
            run.ends();
            run.flow();
        }
        assert_mended(run);
    },
};

pub(super) static RUNNING: Fault = Fault {
    name: "spool-flipped-running",
    about: "single bytes of every file of the spool changed, while Mosquitto writes and the sidecar is behind",
    seconds: 60,
    quick: false,
    // The sidecar is stopped: its requests may run out of time; and what says how far the devices' messages were read is damaged.
    plan: || {
        plan(Repeats {
            down: 1_000,
            ..Repeats::UNHEARD
        })
    },
    inject: |run| {
        for _ in 0..ROUNDS {
            let sidecar = run.broker.sidecar_pid();
            run.begins();
            proc::signal(sidecar, libc::SIGSTOP);
            run.flow_up(WAITING);
            flip_all(run);
            proc::signal(sidecar, libc::SIGCONT);
            run.ends();
            run.flow();
            std::thread::sleep(Duration::from_secs(1));
        }
        assert_mended(run);
    },
};

/// That damage was met at all: what waited in the log has been read when this returns.
fn assert_mended(run: &mut Run) {
    run.broker.wait_for_log(&[MENDED]);
    let times = run.broker.log().matches(MENDED).count();
    run.note(format!("{times} times a damaged byte was met and mended"));
}

fn flip_all(run: &mut Run) {
    let spool = run.broker.spool_dir();
    let mut flipped = Vec::new();
    for path in files(&spool) {
        for offset in offsets(&path, &mut run.random) {
            // While it runs, a file may go, or be made shorter.
            if let Ok((old, new)) = flip(&path, offset, &mut run.random) {
                let name = path.strip_prefix(&spool).unwrap_or(&path).display();
                flipped.push(format!("{name}@{offset}:{old:02x}→{new:02x}"));
            }
        }
    }
    log(run.name, &format!("changed {}", flipped.join(" ")));
    assert!(!flipped.is_empty(), "the spool has no files");
}

/// The regular files below a folder.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Where to change bytes: one of a small file, some of a large one.
fn offsets(path: &Path, random: &mut Random) -> Vec<u64> {
    let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length == 0 {
        return Vec::new();
    }
    let mut offsets = vec![random.below(length)];
    for _ in 0..length / SPARSE {
        let offset = random.below(length);
        if offsets.iter().all(|other| offset.abs_diff(*other) >= APART) {
            offsets.push(offset);
        }
    }
    offsets.sort_unstable();
    offsets
}

fn flip(path: &Path, offset: u64, random: &mut Random) -> io::Result<(u8, u8)> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    let other = byte[0] ^ u8::try_from(1 + random.below(255)).unwrap_or(1);
    file.write_all_at(&[other], offset)?;
    Ok((byte[0], other))
}
