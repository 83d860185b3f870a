//! The cursor page: what the log is, both positions, and the words that the sides sleep on.
//!
//! ```text
//!    0  description (64 bytes, see `layout`; written at creation, or by the writer that rebuilds it)
//!   64  end       u64, writer: behind the last committed frame      72  again, inverted
//!   80  and once more, under a mask                                 88  futex word of those who wait for it   u32
//!   96  how many frames lie before `end`: see `counts`
//!  128  released  u64, reader: everything before is done with      136  again, inverted
//!  144  and once more, under a mask                                152  futex word of those who wait for it   u32
//!  160  how many frames lie before `released`
//!  192  boot      u64, writer: which boot of the machine `end` is of
//!  200  synced    u64, writer: everything before has been forced onto the disk
//!  208  zeros up to 4096
//! ```
//! The rest of the words is untrusted: any value in them leads to an error or a wait, never to undefined behaviour.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::{MmapOptions, MmapRaw};

use crate::counts::Counts;
use crate::gate::Gate;
use crate::layout::{CURSOR_BYTES, CURSOR_MAGIC, DESCRIPTION_BYTES, Description, NoDescription};
use crate::primitive::AtomicU64;

/// The words of the page, behind the description.
#[repr(C)]
pub(crate) struct Words {
    _description: [u8; DESCRIPTION_BYTES],
    pub(crate) end: Gate,
    pub(crate) end_frames: Counts,
    pub(crate) released: Gate,
    pub(crate) released_frames: Counts,
    pub(crate) boot: AtomicU64,
    pub(crate) synced: AtomicU64,
}

const _: () = assert!(std::mem::offset_of!(Words, end) == 64);
const _: () = assert!(std::mem::offset_of!(Words, end_frames) == 96);
const _: () = assert!(std::mem::offset_of!(Words, released) == 128);
const _: () = assert!(std::mem::offset_of!(Words, released_frames) == 160);
const _: () = assert!(std::mem::offset_of!(Words, boot) == 192);
const _: () = assert!(std::mem::offset_of!(Words, synced) == 200);
const _: () = assert!(size_of::<Words>() as u64 <= CURSOR_BYTES && align_of::<Words>() <= 64);

impl Words {
    /// Moves the end from `from` to `to`, before which there are `frames` frames. The writer alone.
    pub(crate) fn publish(&self, from: u64, to: u64, frames: u64) {
        self.end_frames.set(from, to, frames);
        self.end.advance(to);
    }

    /// Moves the released position from `from` to `to`, before which there are `frames` frames. The reader alone.
    pub(crate) fn give_back(&self, from: u64, to: u64, frames: u64) {
        self.released_frames.set(from, to, frames);
        self.released.advance(to);
    }
}

/// The mapped cursor page.
pub(crate) struct Cursor {
    map: MmapRaw,
    file: File,
    pub(crate) path: PathBuf,
}

/// What the page's file says.
pub(crate) enum Found {
    Good(Description),
    Version(u32),
    Damaged(&'static str),
}

/// Reads the description in an open cursor file.
pub(crate) fn read_description(file: &File) -> io::Result<Found> {
    if file.metadata()?.len() < CURSOR_BYTES {
        return Ok(Found::Damaged("it is too short"));
    }
    let mut bytes = [0; DESCRIPTION_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(match Description::decode(&bytes, CURSOR_MAGIC) {
        Ok(description) => Found::Good(description),
        Err(NoDescription::Version(found)) => Found::Version(found),
        Err(NoDescription::Damaged(why)) => Found::Damaged(why),
    })
}

impl Cursor {
    /// Maps an open cursor file, whose size is checked here.
    pub(crate) fn map(file: File, path: &Path) -> io::Result<Cursor> {
        Cursor::map_by(file, path, |options, file| options.map_raw(file))
    }

    /// The same to look at. Nothing may be stored through it.
    pub(crate) fn map_read_only(file: File, path: &Path) -> io::Result<Cursor> {
        Cursor::map_by(file, path, |options, file| options.map_raw_read_only(file))
    }

    fn map_by(
        file: File,
        path: &Path,
        map: impl FnOnce(&MmapOptions, &File) -> io::Result<MmapRaw>,
    ) -> io::Result<Cursor> {
        if file.metadata()?.len() < CURSOR_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the cursor page is too short",
            ));
        }
        let map = map(MmapOptions::new().len(CURSOR_BYTES as usize), &file)?;
        Ok(Cursor {
            map,
            file,
            path: path.to_owned(),
        })
    }

    pub(crate) fn words(&self) -> &Words {
        // SAFETY: the mapping is page-aligned, CURSOR_BYTES long (checked in `map`) and lives as long as `self`; `Words` fits into it, consists of bytes
        // never read through this type and of atomics, and any bit pattern is valid for those.
        unsafe { &*self.map.as_ptr().cast::<Words>() }
    }

    /// Sets both positions of a new page, which is zero: position 0 is not all zeros.
    pub(crate) fn begin(&self) {
        self.words().publish(0, 0, 0);
        self.words().give_back(0, 0, 0);
    }

    /// Whether each position has a majority: else the page is damaged at large.
    pub(crate) fn positions_agree(&self) -> bool {
        let words = self.words();
        words.end.agreed().is_ok() && words.released.agreed().is_ok()
    }

    /// Forces the page onto the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
