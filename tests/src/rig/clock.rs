//! A clock for some processes that can be set while they run. `CLOCK_REALTIME` has no namespace, so it is libfaketime that
//! stands before the C library's clock; Rust's standard library asks that one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::environment::required_path;

/// The clock of day of the processes that are started in its environment. `CLOCK_MONOTONIC` stays as it is, as it does when
/// somebody sets a machine's clock.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that goes right, until it is set. Its file lies in this folder.
    ///
    /// # Panics
    /// Where there is no libfaketime.
    #[track_caller]
    pub fn new(dir: &Path) -> Clock {
        let clock = Clock {
            library: required_path("MRMQ_LIBFAKETIME"),
            file: dir.join("clock"),
        };
        clock.set(0);
        clock
    }

    /// What to add to a process's environment.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Sets it to the real time and this many seconds.
    pub fn set(&self, seconds: i64) {
        // Replaced as a whole: it is read at every look at the clock.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n")).expect("a file");
        fs::rename(&next, &self.file).expect("a file");
    }
}
