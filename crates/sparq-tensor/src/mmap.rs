//! Read-only file contents, mapped into memory.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, Result, content};

/// A file mapped for reading. Opening touches no page of it.
///
/// Another process that *truncates* the file while it is mapped makes a later access fail with a bus error, which no
/// Rust code can turn into an error value. So the length is looked at before every read of a tensor
/// ([`checked_bytes`](Self::checked_bytes)); only a truncation in the midst of one is fatal. A process that overwrites it in place makes reads return the new bytes.
/// Checkpoints are written once and replaced by renaming (as this crate does), which is harmless: the mapping keeps
/// the old file alive.
pub(crate) struct MappedFile {
    path: PathBuf,
    file: File,
    map: Option<Mmap>, // none for an empty file, which cannot be mapped
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("examine", path))?;
        if !metadata.is_file() {
            return Err(Error::NotACheckpoint { path: path.to_path_buf(), reason: "it is not a regular file".into() });
        }
        let map = if metadata.len() == 0 { None } else { Some(map_file(&file).map_err(Error::io("map", path))?) };
        let opened = Self { path: path.to_path_buf(), file, map };
        match content::stand_in(opened.bytes()) {
            Some(found) => Err(Error::OtherContent { file: opened.path, found }),
            None => Ok(opened),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The contents, after a look whether the file still has them all. It closes all but a moment of the window in which
    /// a file that shrank would end the process.
    pub(crate) fn checked_bytes(&self) -> Result<&[u8]> {
        let bytes = self.bytes();
        let now = self.file.metadata().map_err(Error::io("examine", &self.path))?.len();
        if now < bytes.len() as u64 {
            return Err(Error::Shrunk { file: self.path.clone(), opened: bytes.len() as u64, now });
        }
        Ok(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Says that nobody will look at this range soon: its pages stop counting as memory of this process, and come back from
    /// the file when somebody does. A checkpoint read tensor by tensor would else be held as a whole in the end.
    pub(crate) fn release(&self, range: &Range<usize>) {
        if let Some(map) = &self.map {
            forget_pages(map, range);
        }
    }
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is private to this crate and read-only, so no Rust code can write through it, and every byte
    // pattern is a valid u8. What remains is that another process changes the file under us: plain bytes may then
    // differ between two reads (every consumer in this crate checks sizes from values it has copied out, never from
    // bytes it reads a second time), and truncation ends in a signal, not in undefined behaviour of a read that went
    // through. Every mmap reader of weights accepts the same; the type's documentation says so.
    unsafe { Mmap::map(file) }
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn forget_pages(map: &Mmap, range: &Range<usize>) {
    use memmap2::UncheckedAdvice;
    // SAFETY: the mapping is shared, read-only and of a file, so that no page of it holds anything that the file does
    // not: one that is dropped is read again at the next access, also by a thread that reads it now. (What is dangerous is
    // dropping pages of private or anonymous memory, whose contents would turn into zeros.)
    let dropped = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    let _ = dropped; // advice: without it the pages are held a little longer
}

#[cfg(not(unix))]
fn forget_pages(_: &Mmap, _: &Range<usize>) {}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile")
            .field("path", &self.path)
            .field("bytes", &self.bytes().len())
            .finish_non_exhaustive()
    }
}
