//! How a log comes to be, or is found again: the lock, the cursor page, and the page's rebuilding when it is lost.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cursor::{self, Cursor, Found};
use crate::dir::{self, Dir};
use crate::layout::{
    CURSOR_BYTES, CURSOR_MAGIC, DESCRIPTION_BYTES, Description, NoDescription, SEGMENT_MAGIC,
    VERSION,
};
use crate::log_files::{LogFiles, allocate};
use crate::primitive::{AtomicU64, Ordering};
use crate::recovery::boot_id;
use crate::{LogOptions, OpenError, Role};

/// Takes the writer's role in `path` and opens the cursor page, creating or rebuilding it if need be.
pub(crate) fn open_or_create(
    path: &Path,
    options: &LogOptions,
) -> Result<(LogFiles, File), OpenError> {
    let dir = Dir::create(path)?;
    let lock = dir.lock(Role::Writer, true)?;
    dir.remove_unready()
        .map_err(|e| OpenError::io(path, "remove unfinished files", e))?;
    let (description, file) = match open_cursor(&dir)? {
        Some(found) => found,
        None => create_cursor(&dir, options)
            .map_err(|e| OpenError::io(dir.cursor(), "create the cursor page", e))?,
    };
    let cursor = Cursor::map(file, &dir.cursor())
        .map_err(|e| OpenError::io(dir.cursor(), "map the cursor page", e))?;
    if description.segment_bytes != options.segment_bytes {
        log::info!(
            "{}: its segments have {} bytes each, as at its creation; the {} bytes that are configured count for a new log",
            path.display(),
            description.segment_bytes,
            options.segment_bytes
        );
    }
    let segments_max = (options.bytes_max / description.segment_bytes).max(2);
    Ok((
        LogFiles {
            dir,
            description,
            cursor: Arc::new(cursor),
            segments_max,
            prefault: !options.may_wait,
            current: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        },
        lock,
    ))
}

/// The cursor page that is there, rebuilt when it is damaged or lost; `None` when there is no log.
fn open_cursor(dir: &Dir) -> Result<Option<(Description, File)>, OpenError> {
    let path = dir.cursor();
    let io = |e| OpenError::io(&path, "read the cursor page", e);
    let damage = match dir::open(&path, true, false) {
        Ok(file) => match cursor::read_description(&file).map_err(io)? {
            Found::Good(description) => {
                heal_description(&file, &path, &description).map_err(io)?;
                return Ok(Some((description, file)));
            }
            Found::Version(found) => {
                return Err(OpenError::Version {
                    path,
                    found,
                    supported: VERSION,
                });
            }
            Found::Damaged(why) => Some((file, why)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(error)),
    };
    let Some(description) = describe_by_segments(dir)? else {
        if let Some((_, why)) = damage {
            log::warn!(
                "{}: {why}, and there are no segments: beginning a new log",
                path.display()
            );
        }
        return Ok(None);
    };
    log::warn!(
        "{}: {}; rebuilding it from the segments",
        path.display(),
        damage.as_ref().map_or("it is not there", |(_, why)| why)
    );
    let rebuild = || -> io::Result<File> {
        let Some((file, _)) = &damage else {
            return write_cursor(dir, &description, 0);
        };
        // In place: a reader may have the page mapped.
        allocate(file, CURSOR_BYTES)?;
        let cursor = Cursor::map(file.try_clone()?, &path)?;
        if !cursor.positions_agree() {
            // Zero positions and no boot: recovery looks at the segments for both ends.
            file.write_all_at(&[0; CURSOR_BYTES as usize], 0)?;
            cursor.begin();
        }
        file.write_all_at(&description.encode(CURSOR_MAGIC), 0)?;
        file.sync_all()?;
        file.try_clone()
    };
    let file = rebuild().map_err(|e| OpenError::io(&path, "rebuild the cursor page", e))?;
    Ok(Some((description, file)))
}

/// Writes the description again if a byte of it was damaged.
fn heal_description(file: &File, path: &Path, description: &Description) -> io::Result<()> {
    let right = description.encode(CURSOR_MAGIC);
    let mut found = [0; DESCRIPTION_BYTES];
    file.read_exact_at(&mut found, 0)?;
    if found != right {
        log::warn!(
            "{}: a byte of its description was damaged; writing it again",
            path.display()
        );
        file.write_all_at(&right, 0)?;
    }
    Ok(())
}

/// What the first segment with a good header says of the log; `None` when there is no segment.
pub(crate) fn describe_by_segments(dir: &Dir) -> Result<Option<Description>, OpenError> {
    let mut damaged = None;
    for number in dir
        .segments()
        .map_err(|e| OpenError::io(&dir.path, "list the segments", e))?
    {
        let path = dir.segment(number);
        let mut bytes = [0; DESCRIPTION_BYTES];
        let read =
            dir::open(&path, false, false).and_then(|file| file.read_exact_at(&mut bytes, 0));
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(OpenError::io(path, "read the segment", error)),
        }
        match Description::decode(&bytes, SEGMENT_MAGIC) {
            Ok(description) => return Ok(Some(description.of_segment(0))),
            Err(NoDescription::Version(found)) => {
                return Err(OpenError::Version {
                    path,
                    found,
                    supported: VERSION,
                });
            }
            Err(NoDescription::Damaged(why)) => damaged = Some((path, why)),
        }
    }
    damaged.map_or(Ok(None), |(path, why)| {
        Err(OpenError::Corrupt {
            path,
            reason: format!("{why}, and the cursor page is damaged or lost too"),
        })
    })
}

fn create_cursor(dir: &Dir, options: &LogOptions) -> io::Result<(Description, File)> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // `RandomState` is seeded by the system's random numbers.
    let salt = RandomState::new().build_hasher().finish() as u32;
    let description = Description {
        epoch: now.as_millis() as u64,
        salt,
        segment_bytes: options.segment_bytes,
        number: 0,
    };
    let file = write_cursor(dir, &description, boot_id())?;
    Ok((description, file))
}

/// Writes a fresh page beside the place and moves it there: a reader finds it whole or not at all.
fn write_cursor(dir: &Dir, description: &Description, boot: u64) -> io::Result<File> {
    let path = dir.cursor();
    let unready = path.with_extension("new");
    let file = dir::open(&unready, true, true)?;
    allocate(&file, CURSOR_BYTES)?;
    file.write_all_at(&description.encode(CURSOR_MAGIC), 0)?;
    let cursor = Cursor::map(file.try_clone()?, &unready)?;
    cursor.begin();
    cursor.words().boot.store(boot, Ordering::Relaxed);
    file.sync_all()?;
    fs::rename(&unready, &path)?;
    dir.sync()?;
    Ok(file)
}
