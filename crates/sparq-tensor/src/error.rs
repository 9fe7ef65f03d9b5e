//! The crate's error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::{DType, Fault};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be read or written.
///
/// Every variant names the file and, where there is one, the tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file became shorter while it was in use.
    #[error("{}: it had {opened} bytes when it was opened and has {now} now; do not change checkpoints in use", file.display())]
    Shrunk {
        /// The file.
        file: PathBuf,
        /// Its size when it was opened.
        opened: u64,
        /// Its size now.
        now: u64,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried, as a verb ("open", "rename").
        action: &'static str,
        /// The file or directory it was tried on.
        path: PathBuf,
        /// The operating system's answer.
        cause: io::Error,
    },
    /// The path is neither a checkpoint directory, nor a safetensors file, nor a GGUF file.
    #[error("{} is not a checkpoint: {reason}", path.display())]
    NotACheckpoint {
        /// The path given to [`Checkpoint::open`](crate::Checkpoint::open).
        path: PathBuf,
        /// What was looked for and not found.
        reason: String,
    },
    /// A file holds something else than its name says.
    #[error("{} is {found}", file.display())]
    OtherContent {
        /// The file.
        file: PathBuf,
        /// What it is, and what to do about it.
        found: &'static str,
    },
    /// A file's bytes contradict its format.
    #[error("{} is malformed: {fault}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// What a file says about one tensor contradicts the format or the rest of the file.
    #[error("{}: tensor {tensor} is malformed: {fault}", file.display())]
    MalformedTensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name as the file spells it.
        tensor: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The checkpoint's directory lacks a file that is needed.
    #[error("{} is missing: {needed_for}", file.display())]
    MissingFile {
        /// Where the file was expected.
        file: PathBuf,
        /// Who needs it.
        needed_for: String,
    },
    /// A tensor is absent where the index or the architecture promises it.
    #[error("{} does not hold tensor {tensor}", file.display())]
    MissingTensor {
        /// The file that should hold it.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// No tensor of this name is in the checkpoint.
    #[error("no tensor named {tensor} in {}", path.display())]
    UnknownTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The name asked for.
        tensor: String,
    },
    /// The tensor has another number of dimensions than the caller asked for.
    #[error("{}: tensor {tensor} has shape {shape:?}, expected {expected} dimension(s)", file.display())]
    Rank {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The number of dimensions asked for.
        expected: usize,
    },
    /// The tensor's element type cannot be decoded to f32.
    #[error("{}: tensor {tensor} has type {dtype}, which cannot be decoded to f32", file.display())]
    NotDecodable {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: DType,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor {tensor} holds {value} at {index:?}; a checkpoint with non-finite weights cannot be used", file.display())]
    NonFinite {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where, in row-major index order the first one.
        index: Vec<usize>,
        /// The value.
        value: f32,
    },
    /// The machine has not enough memory for a decoded tensor.
    #[error("no memory for tensor {tensor}: {bytes} bytes as f32")]
    OutOfMemory {
        /// The tensor.
        tensor: String,
        /// What was asked for.
        bytes: u64,
    },
    /// The GGUF file holds a model family whose names and row order are not known here.
    #[error("{}: architecture {architecture:?} is not supported (supported: {})", file.display(), supported.join(", "))]
    UnsupportedArchitecture {
        /// The file.
        file: PathBuf,
        /// `general.architecture`.
        architecture: String,
        /// What would have been accepted.
        supported: Vec<&'static str>,
    },
    /// A GGUF file was to be read or written, and the checkpoint was opened without families of models.
    #[error("{}: GGUF files differ by families of models, and none were given; open it with sparq_model::open_checkpoint, or Checkpoint::open_with", path.display())]
    NoFamilies {
        /// The path that was opened.
        path: PathBuf,
    },
    /// The GGUF file uses something that has no Hugging Face equivalent here.
    #[error("{}: {what} is not supported: {value}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The feature or metadata key.
        what: String,
        /// Its value.
        value: String,
    },
    /// A GGUF metadata key that is needed is absent.
    #[error("{}: metadata key {key} is missing", file.display())]
    MissingMetadata {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// A GGUF metadata key has an unusable type or value.
    #[error("{}: metadata key {key} is {found}, expected {expected}", file.display())]
    InvalidMetadata {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What was expected.
        expected: &'static str,
        /// What the file holds.
        found: String,
    },
    /// The destination is taken.
    #[error("{} exists already; remove it, choose another path or allow overwriting", path.display())]
    DestinationExists {
        /// The destination.
        path: PathBuf,
    },
    /// Overwriting was allowed, but what is there is not a checkpoint and is therefore not deleted.
    #[error("{} is not a checkpoint and will not be overwritten; choose another path", path.display())]
    NotOverwritable {
        /// The destination.
        path: PathBuf,
    },
    /// The destination is what is read from, or a directory around it.
    #[error("{} holds {}, which is read from; choose another destination", path.display(), source_path.display())]
    DestinationInUse {
        /// The destination.
        path: PathBuf,
        /// What lies there.
        source_path: PathBuf,
    },
    /// The plan given to the writer contradicts itself.
    #[error("cannot plan tensor {tensor}: {reason}")]
    InvalidPlan {
        /// The tensor.
        tensor: String,
        /// Why not.
        reason: String,
    },
    /// A tensor was written that is not in the plan.
    #[error("tensor {tensor} is not in the plan of {}", path.display())]
    NotPlanned {
        /// The destination.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor was written twice.
    #[error("tensor {tensor} was written already")]
    WrittenTwice {
        /// The tensor.
        tensor: String,
    },
    /// The writer was finished before every planned tensor was written.
    #[error("{} of the planned tensors were not written, the first is {}", missing.len(), missing.first().map_or("", String::as_str))]
    NotWritten {
        /// The tensors, in plan order.
        missing: Vec<String>,
    },
    /// What was handed to the writer has another shape than planned.
    #[error("tensor {tensor} was planned with shape {planned:?} but has shape {found:?}")]
    ShapeMismatch {
        /// The tensor.
        tensor: String,
        /// The planned shape.
        planned: Vec<usize>,
        /// The shape of the data.
        found: Vec<usize>,
    },
    /// What was handed to the writer has another size in bytes than planned.
    #[error("tensor {tensor} was planned with {planned} bytes but has {found}")]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// The planned size.
        planned: u64,
        /// The size of the data.
        found: u64,
    },
    /// A value cannot be stored in the planned element type (NaN, infinite, or too large for it).
    #[error("tensor {tensor}: {value} at {index:?} cannot be stored as {dtype}")]
    NotRepresentable {
        /// The tensor.
        tensor: String,
        /// Where, in row-major index order the first one.
        index: Vec<usize>,
        /// The value.
        value: f32,
        /// The planned element type.
        dtype: DType,
    },
    /// There is less space than what is to be written takes.
    #[error("{needed} bytes are to be written, but only {free} are free where {} is", .path.display())]
    NoSpace {
        /// A directory of the file system.
        path: PathBuf,
        /// Bytes that will be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Codes cannot be coded, or coded ones not be read.
    #[error("tensor {tensor}")]
    Coding {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: sparq_coding::Error,
    },
    /// A side file's name is not a plain file name, or is taken.
    #[error("{name:?} cannot be the name of a side file: {reason}")]
    InvalidSideFile {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}

impl Error {
    /// Turns what the system says when `action` fails on `path` into this crate's error, as `map_err` takes it.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |cause| Error::Io { action, path, cause }
    }

    pub(crate) fn malformed(file: &Path, fault: Fault) -> Error {
        Error::Malformed { file: file.to_path_buf(), fault }
    }

    pub(crate) fn tensor(file: &Path, tensor: &str, fault: Fault) -> Error {
        Error::MalformedTensor { file: file.to_path_buf(), tensor: tensor.to_owned(), fault }
    }

    /// There is no memory for so many elements as f32.
    pub(crate) fn out_of_memory(tensor: &str, elements: usize) -> Error {
        Error::OutOfMemory { tensor: tensor.to_owned(), bytes: (elements as u64).saturating_mul(4) }
    }
}
