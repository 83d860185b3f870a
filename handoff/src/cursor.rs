//! The cursor page: what the log is, both positions, and the words that the sides sleep on.
//!
//! ```text
//!    0  description (64 bytes, see `layout`; written at creation, or by the writer that rebuilds it)
//!   64  end       u64, writer: behind the last committed frame      72  futex word of those who wait for it   u32
//!  128  released  u64, reader: everything before is done with       136  futex word of those who wait for it   u32
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

use crate::gate::Gate;
use crate::layout::{CURSOR_BYTES, CURSOR_MAGIC, DESCRIPTION_BYTES, Description, NoDescription};
use crate::primitive::AtomicU64;

/// The words of the page, behind the description.
#[repr(C)]
pub(crate) struct Words {
    _description: [u8; DESCRIPTION_BYTES],
    pub(crate) end: Gate,
    _end_line: [u8; 48],
    pub(crate) released: Gate,
    _released_line: [u8; 48],
    pub(crate) boot: AtomicU64,
    pub(crate) synced: AtomicU64,
}

const _: () = assert!(std::mem::offset_of!(Words, end) == 64);
const _: () = assert!(std::mem::offset_of!(Words, released) == 128);
const _: () = assert!(std::mem::offset_of!(Words, boot) == 192);
const _: () = assert!(std::mem::offset_of!(Words, synced) == 200);
const _: () = assert!(size_of::<Words>() as u64 <= CURSOR_BYTES && align_of::<Words>() <= 64);

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
        if file.metadata()?.len() < CURSOR_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the cursor page is too short",
            ));
        }
        let map = MmapOptions::new()
            .len(CURSOR_BYTES as usize)
            .map_raw(&file)?;
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

    /// Forces the page onto the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
