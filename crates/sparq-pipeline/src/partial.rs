//! The directory of unfinished work beside a destination.

use crate::sink::SOLUTION;
use crate::state::State;
use crate::{Error, Result};
use std::fs::File;
use std::path::Path;

/// Name of the output before it is moved to its destination.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Names of a solution after tuning, of the one before it once the other has moved to the output, and of what an interrupted
/// tuning goes on from.
pub(crate) const TUNED: &str = "tuned";
pub(crate) const UNTUNED: &str = "untuned";
pub(crate) const TUNING: &str = "tuning.safetensors";
const LOCK: &str = "lock";

/// Creates the directory for unfinished work, or takes over what is there; nobody else may while the returned file lives.
/// `beside` is where the solution of a single file goes.
pub(crate) fn open(partial: &Path, beside: &Path, restart: bool) -> Result<File> {
    std::fs::create_dir_all(partial).map_err(sparq_tensor::Error::io("create", partial))?;
    let path = partial.join(LOCK);
    let lock = File::create(&path).map_err(sparq_tensor::Error::io("create", &path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Busy { path: partial.to_path_buf() }),
        Err(std::fs::TryLockError::Error(error)) => {
            return Err(sparq_tensor::Error::io("lock", &path)(error).into());
        }
    }
    let (solution, checkpoint, untuned) = (partial.join(SOLUTION), partial.join(CHECKPOINT), partial.join(UNTUNED));
    if restart {
        remove(&solution)?;
        remove(&checkpoint)?;
        remove(&untuned)?;
        remove(&partial.join(TUNING))?;
        State::remove(partial)?;
    }
    if !solution.exists() && untuned.is_dir() {
        let back = std::fs::rename(&untuned, &solution);
        back.map_err(sparq_tensor::Error::io("move back", &solution))?;
    }
    // Stopped between the last two renames: take the solution back, and export again.
    let moved = if checkpoint.is_file() { beside.to_path_buf() } else { checkpoint.join(SOLUTION) };
    if !solution.exists() && moved.is_dir() {
        let back = std::fs::rename(&moved, &solution);
        back.map_err(sparq_tensor::Error::io("move back", &solution))?;
    }
    remove(&checkpoint)?; // left by a run that was killed while it exported
    remove_hidden(partial)?;
    Ok(lock)
}

/// Removes a file or a directory, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(sparq_tensor::Error::io("remove", path)(error).into())
        }
        _ => Ok(()),
    }
}

/// Removes temporary directories that a killed export left.
fn remove_hidden(partial: &Path) -> Result<()> {
    let list = |error| sparq_tensor::Error::io("list", partial)(error);
    for entry in std::fs::read_dir(partial).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes the directory of a run that was killed after its output was in place, before it could clean up.
pub(crate) fn remove_remains(partial: &Path) -> Result<()> {
    let holds = |name: &str| partial.join(name).exists();
    let finished = State::read(partial).ok().flatten().is_some_and(|state| state.is_finished());
    if finished && !holds(SOLUTION) && !holds(CHECKPOINT) { remove(partial) } else { Ok(()) }
}
