//! Finished checkpoints that are not at their destination yet.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Result;
use crate::destination::{move_file_into_place, move_into_place};

/// What [`CheckpointWriter::finish`](crate::CheckpointWriter::finish) or [`StagedCheckpoint::publish`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The directory.
    pub path: PathBuf,
    /// Bytes of tensors, without headers and side files.
    pub bytes: u64,
    /// The number of weight files.
    pub shards: usize,
}

/// A complete checkpoint beside its destination: open it, check it, then [`publish`](Self::publish) it. Dropping it
/// removes it and leaves the destination as it was.
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::{Checkpoint, CheckpointWriter, DType, TensorSpec, WriteOptions};
///
/// let parent = tempfile::tempdir()?;
/// let destination = parent.path().join("model");
/// let plan = vec![TensorSpec::new("a", [1], DType::BF16)];
/// let mut writer = CheckpointWriter::create(&destination, plan, WriteOptions::default())?;
/// writer.write_f32("a", array![0.1f32].into_dyn().view())?;
/// let staged = writer.stage()?;
/// assert_eq!(Checkpoint::open(staged.path())?.read_vector("a")?, array![0.100097656]);
/// assert!(!destination.exists());
/// assert_eq!(staged.publish()?.path, destination);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StagedCheckpoint {
    temporary: TempDir,
    /// The only file of the temporary directory, if it is the checkpoint; else the directory is.
    file: Option<PathBuf>,
    written: Written,
    overwrite: bool,
}

impl StagedCheckpoint {
    pub(crate) fn directory(temporary: TempDir, written: Written, overwrite: bool) -> Self {
        Self { temporary, file: None, written, overwrite }
    }

    pub(crate) fn file(temporary: TempDir, file: PathBuf, written: Written, overwrite: bool) -> Self {
        Self { temporary, file: Some(file), written, overwrite }
    }

    /// Where it is for now.
    pub fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(self.temporary.path())
    }

    /// Renames it into place.
    ///
    /// # Errors
    /// [`Error::DestinationExists`](crate::Error::DestinationExists) if somebody else has created the destination
    /// meanwhile; [`Error::Io`](crate::Error::Io). After an error nothing is left behind and the destination is as it
    /// was.
    pub fn publish(self) -> Result<Written> {
        match &self.file {
            None => move_into_place(self.temporary, &self.written.path, self.overwrite)?,
            Some(file) => move_file_into_place(file, &self.written.path, self.overwrite)?,
        }
        Ok(self.written)
    }
}
