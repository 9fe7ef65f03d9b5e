//! Putting a finished directory in its place, or nothing at all.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::Path;

use tempfile::TempDir;

use crate::container::gguf::parts;
use crate::container::safetensors::{INDEX_FILE, SINGLE_FILE};
use crate::{Error, Result};

/// Whether a checkpoint may be put at `destination`. A directory without anything in it is no obstacle.
pub(crate) fn check_destination(destination: &Path, overwrite: bool) -> Result<()> {
    let overwrite = overwrite || is_empty_directory(destination);
    check(destination, overwrite, |metadata| Ok(metadata.is_dir() && is_replaceable(destination)?))
}

/// Whether something may be put at `destination`: nothing is there, or what `may_go` and may be overwritten.
fn check(destination: &Path, overwrite: bool, may_go: impl FnOnce(&Metadata) -> Result<bool>) -> Result<()> {
    match fs::symlink_metadata(destination) {
        // Beneath a file there is nothing either; creating something there will say so.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(Error::io("examine", destination)(error)),
        Ok(_) if !overwrite => Err(Error::DestinationExists { path: destination.to_path_buf() }),
        Ok(metadata) if may_go(&metadata)? => Ok(()),
        Ok(_) => Err(Error::NotOverwritable { path: destination.to_path_buf() }),
    }
}

/// Whether there is a directory with nothing in it; a link to one is none.
fn is_empty_directory(path: &Path) -> bool {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    is_directory && fs::read_dir(path).is_ok_and(|mut items| items.next().is_none())
}

/// Refuses a destination whose file system has less free space than `bytes`. Where that cannot be told, nothing is refused.
///
/// # Errors
/// [`Error::NoSpace`].
pub fn check_space(destination: &Path, bytes: u64) -> Result<()> {
    let existing = destination.ancestors().find(|path| path.exists());
    // A relative name lies in the working directory.
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match free_space(existing) {
        Some(free) if free < bytes => Err(Error::NoSpace { path: existing.to_path_buf(), needed: bytes, free }),
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn free_space(path: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(path).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

#[cfg(not(target_os = "linux"))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

/// Refuses a destination that is what is read from, or a directory around it: overwriting would delete it.
///
/// # Errors
/// [`Error::DestinationInUse`].
pub fn check_apart(destination: &Path, read_from: &Path) -> Result<()> {
    // What is not there yet holds nothing.
    let (Ok(to), Ok(from)) = (destination.canonicalize(), read_from.canonicalize()) else { return Ok(()) };
    if from.starts_with(&to) {
        return Err(Error::DestinationInUse { path: destination.to_owned(), source_path: read_from.to_owned() });
    }
    Ok(())
}

/// Only an empty directory, one with safetensors weights, or one of the parts of a GGUF file is deleted, lest a mistyped path
/// cost somebody their files.
fn is_replaceable(directory: &Path) -> Result<bool> {
    if directory.join(SINGLE_FILE).is_file() || directory.join(INDEX_FILE).is_file() {
        return Ok(true);
    }
    let mut items = fs::read_dir(directory).map_err(Error::io("list", directory))?;
    // What a writer of parts leaves there, and the solution that may lie beside them.
    Ok(items.all(|item| item.is_ok_and(|item| item.file_name() == "sparq" || parts::is_written_part(&item.path()))))
}

/// A directory beside `destination`, so that the final rename stays inside one file system.
pub(crate) fn temporary_directory(destination: &Path) -> Result<TempDir> {
    let Some(name) = destination.file_name() else {
        return Err(Error::NotOverwritable { path: destination.to_path_buf() });
    };
    let parent = parent_of(destination);
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let prefix = format!(".{}.partial-", name.to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777)); // less the umask, as for any directory
    builder.tempdir_in(parent).map_err(Error::io("create a temporary directory in", parent))
}

pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Renames. Where the system can, an old destination changes places with the new one in one step and is deleted then;
/// elsewhere it is moved aside first and deleted last.
pub(crate) fn move_into_place(temporary: TempDir, destination: &Path, overwrite: bool) -> Result<()> {
    move_directory(temporary.path(), destination, overwrite)?;
    let _ = temporary.keep(); // its path is gone; nothing is left to remove
    Ok(())
}

fn move_directory(from: &Path, destination: &Path, overwrite: bool) -> Result<()> {
    check_destination(destination, overwrite)?;
    if destination.exists() && exchange(from, destination) {
        sync_directory(parent_of(destination))?;
        // What was replaced goes under a name that nobody takes for something else, and then away if it can.
        let aside = temporary_directory(from)?;
        return fs::rename(from, aside.path().join("old")).map_err(Error::io("move aside", from));
    }
    let mut old = None;
    if destination.exists() {
        let aside = temporary_directory(destination)?;
        let to = aside.path().join("old");
        fs::rename(destination, &to).map_err(Error::io("move aside", destination))?;
        old = Some((aside, to));
    }
    if let Err(error) = fs::rename(from, destination) {
        if let Some((aside, from)) = old
            && fs::rename(&from, destination).is_err()
        {
            // Better an odd name than no data: leave the old checkpoint where it is.
            let _ = aside.keep();
        }
        return Err(Error::io("rename the finished checkpoint to", destination)(error));
    }
    sync_directory(parent_of(destination))
}

/// Lets two paths change places in one step; false, and nothing done, where system or file system cannot.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
}

/// Moves a finished checkpoint, a directory or one file, from beside `destination` to it, in one step.
///
/// # Errors
/// [`Error::DestinationExists`], or with `overwrite` [`Error::NotOverwritable`] if what is there is no checkpoint;
/// [`Error::Io`]. After an error `from` and the destination are as they were.
///
/// # Examples
/// ```
/// let parent = tempfile::tempdir()?;
/// let (from, to) = (parent.path().join("unfinished"), parent.path().join("model"));
/// std::fs::create_dir(&from)?;
/// sparq_tensor::move_checkpoint(&from, &to, false)?;
/// assert!(to.is_dir() && !from.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn move_checkpoint(from: impl AsRef<Path>, destination: impl AsRef<Path>, overwrite: bool) -> Result<()> {
    let (from, destination) = (from.as_ref(), destination.as_ref());
    if from.is_dir() {
        move_directory(from, destination, overwrite)
    } else {
        move_file_into_place(from, destination, overwrite)
    }
}

/// Whether [`move_checkpoint`] may put a checkpoint, a directory or a file, where one like it may be already. An empty
/// directory is no obstacle.
///
/// # Errors
/// [`Error::DestinationExists`], or with `overwrite` [`Error::NotOverwritable`] if what is there is no checkpoint;
/// [`Error::Io`].
///
/// # Examples
/// ```
/// let parent = tempfile::tempdir()?;
/// let notes = parent.path().join("notes.txt");
/// assert!(sparq_tensor::check_replaceable(&notes, false).is_ok()); // nothing is there
/// std::fs::write(&notes, "dear diary")?;
/// assert!(sparq_tensor::check_replaceable(&notes, true).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check_replaceable(destination: impl AsRef<Path>, overwrite: bool) -> Result<()> {
    let destination = destination.as_ref();
    check(destination, overwrite || is_empty_directory(destination), |metadata| {
        if metadata.is_dir() { is_replaceable(destination) } else { is_gguf(metadata, destination) }
    })
}

/// Makes a rename durable where the system lets directories be flushed.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io("flush", directory))?;
    }
    Ok(())
}

/// Whether a GGUF file may be put at `destination`. Only a file that begins as one is replaced.
pub(crate) fn check_file_destination(destination: &Path, overwrite: bool) -> Result<()> {
    check(destination, overwrite, |metadata| is_gguf(metadata, destination))
}

fn is_gguf(metadata: &Metadata, path: &Path) -> Result<bool> {
    if !metadata.is_file() {
        return Ok(false);
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(4).read_to_end(&mut start).map_err(Error::io("read", path))?;
    Ok(start == b"GGUF")
}

/// Renames a file, which replaces an old one at once.
pub(crate) fn move_file_into_place(file: &Path, destination: &Path, overwrite: bool) -> Result<()> {
    check_file_destination(destination, overwrite)?;
    fs::rename(file, destination).map_err(Error::io("rename the finished checkpoint to", destination))?;
    sync_directory(parent_of(destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_does_not_fit_on_the_disk_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("not/there/yet");
        check_space(&out, 1).unwrap();
        check_space(Path::new("here"), 1).unwrap();
        let refused = check_space(&out, u64::MAX).expect_err("too much");
        assert!(matches!(&refused, Error::NoSpace { path, .. } if path == directory.path()), "{refused}");
    }
}
