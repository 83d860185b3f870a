//! A disk that is full soon.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{is_left_behind, name_of_ours, run, try_run};

const PREFIX: &str = "mrmq-disk-";

/// A file system of a size of its own, in memory. It ends with this value.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one.
    ///
    /// # Panics
    /// When it can't be mounted: that takes root.
    #[track_caller]
    pub fn new(bytes: u64) -> SmallDisk {
        unmount_left_behind();
        let name = name_of_ours(PREFIX);
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).expect("a folder");
        let disk = SmallDisk { dir };
        let size = format!("size={bytes}");
        let dir = disk.dir.to_string_lossy();
        run(&["mount", "-t", "tmpfs", "-o", &size, &name, &dir]);
        disk
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Takes up all that is free, but for about this many bytes, which are free all the time: who writes through a mapping of a file
    /// has no error to be told by when there is no page to be had.
    pub fn fill(&self, leave: u64) {
        // A look at what is free costs a process.
        let piece = vec![0; if leave == 0 { 65_536 } else { 1 << 20 }];
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("a file");
        // With nothing to be left it ends by the error that this is about.
        while leave == 0 || self.free() > leave {
            if file.write_all(&piece).is_err() {
                break;
            }
        }
    }

    fn free(&self) -> u64 {
        let answer = run(&["df", "-B1", "--output=avail", &self.dir.to_string_lossy()]);
        let number = answer.lines().nth(1).map(str::trim);
        number
            .and_then(|number| number.parse().ok())
            .expect("df's number")
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the disk was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.dir);
    }
}

fn unmount(dir: &Path) {
    // Lazily: a process that is about to end may still have files open there.
    if let Err(problem) = try_run(&["umount", "-l", &dir.to_string_lossy()]) {
        eprintln!("{problem}");
    }
    // Only when empty, which it is where the disk is gone.
    let _ = fs::remove_dir(dir);
}

fn unmount_left_behind() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(dir)) = (words.next(), words.next()) else {
            continue;
        };
        if is_left_behind(name, PREFIX) {
            unmount(Path::new(dir));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_when_filled_and_has_room_again() {
        let disk = SmallDisk::new(4 << 20);
        let file = disk.dir().join("file");
        fs::write(&file, vec![1; 1 << 20]).expect("room");
        disk.fill(0);
        let full = fs::write(disk.dir().join("more"), vec![1; 1 << 20]);
        assert_eq!(
            full.map_err(|problem| problem.kind()),
            Err(std::io::ErrorKind::StorageFull)
        );
        disk.make_room();
        fs::write(disk.dir().join("more"), vec![1; 2 << 20]).expect("room again");
        let dir = disk.dir().to_owned();
        drop(disk);
        assert!(!dir.exists());
    }
}
