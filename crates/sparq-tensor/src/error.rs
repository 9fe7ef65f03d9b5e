//! The crate's error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::DType;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be read or written.
///
/// Every variant names the file and, where there is one, the tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb ("open", "rename").
        action: &'static str,
        /// The file or directory it was tried on.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The path is neither a checkpoint directory, nor a safetensors file, nor a GGUF file.
    #[error("{} is not a checkpoint: {reason}", path.display())]
    NotACheckpoint {
        /// The path given to [`Checkpoint::open`](crate::Checkpoint::open).
        path: PathBuf,
        /// What was looked for and not found.
        reason: String,
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
        supported: &'static [&'static str],
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
    #[error("{} is not a checkpoint directory and will not be overwritten; choose another path", path.display())]
    NotOverwritable {
        /// The destination.
        path: PathBuf,
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
    /// A side file's name is not a plain file name, or is taken.
    #[error("{name:?} cannot be the name of a side file: {reason}")]
    InvalidSideFile {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}

/// What is wrong with a malformed file or tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file ends too early.
    #[error("{what} needs {needed} bytes but only {available} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// How many bytes it takes.
        needed: u64,
        /// How many there are.
        available: u64,
    },
    /// A count or a length is beyond what this reader accepts.
    #[error("{what} is {value}, more than the limit of {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The value in the file.
        value: u64,
        /// The largest one accepted, see the crate's limits.
        limit: u64,
    },
    /// A product or sum of numbers in the file does not fit 64 bits.
    #[error("{what} overflows")]
    Overflow {
        /// What was computed.
        what: &'static str,
    },
    /// The file does not begin as its format demands.
    #[error("it does not begin with {expected}")]
    Magic {
        /// What it should begin with.
        expected: &'static str,
    },
    /// The format's version is not supported.
    #[error("version {version} is not supported (supported: {supported})")]
    Version {
        /// The version in the file.
        version: u32,
        /// What would have been accepted.
        supported: &'static str,
    },
    /// Text is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// Which text.
        what: &'static str,
    },
    /// JSON does not parse, or has another structure than expected.
    #[error("{what} is not valid JSON: {reason}")]
    Json {
        /// Which text.
        what: &'static str,
        /// The parser's answer.
        reason: String,
    },
    /// A name occurs twice.
    #[error("{what} {name:?} occurs twice")]
    Duplicate {
        /// What has the name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A type code or name is not known.
    #[error("{what} {found:?} is not known")]
    UnknownType {
        /// What the type describes.
        what: &'static str,
        /// The code or name in the file.
        found: String,
    },
    /// The type is known but not supported.
    #[error("{what} {found} is not supported")]
    UnsupportedType {
        /// What the type describes.
        what: &'static str,
        /// The type.
        found: String,
    },
    /// Shape and type give another size than the byte range has.
    #[error("shape {shape:?} of {dtype} takes {expected} bytes but its byte range has {found}")]
    WrongSize {
        /// The shape.
        shape: Vec<usize>,
        /// The element type.
        dtype: DType,
        /// Bytes by shape and type.
        expected: u64,
        /// Bytes by range.
        found: u64,
    },
    /// The innermost dimension is not a whole number of quantization blocks.
    #[error("rows of {columns} elements are not a whole number of {dtype} blocks")]
    PartialBlock {
        /// The innermost dimension.
        columns: usize,
        /// The element type.
        dtype: DType,
    },
    /// A byte range is outside of the data section or runs backwards.
    #[error("byte range {begin}..{end} is not inside the data section of {available} bytes")]
    OutOfRange {
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
        /// Size of the data section.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("its bytes overlap those of tensor {other}")]
    Overlap {
        /// The tensor that comes before.
        other: String,
    },
    /// Bytes of the data section belong to no tensor, which safetensors forbids.
    #[error("bytes {begin}..{end} of the data section belong to no tensor")]
    Hole {
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
    },
    /// An offset or the alignment itself breaks the alignment rule.
    #[error("{what} {value} is not acceptable with an alignment of {alignment}")]
    Misaligned {
        /// What is misaligned.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The alignment in force.
        alignment: u64,
    },
    /// The shape is not acceptable.
    #[error("shape {shape:?} is not acceptable: {reason}")]
    BadShape {
        /// The shape.
        shape: Vec<usize>,
        /// Why not.
        reason: &'static str,
    },
    /// A file name in the index leads out of the directory.
    #[error("shard name {name:?} is not a plain file name")]
    ShardName {
        /// The name.
        name: String,
    },
    /// A number is outside of what its place allows.
    #[error("{what} is {value}, which is out of range")]
    BadValue {
        /// What it is.
        what: &'static str,
        /// The number.
        value: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    pub(crate) fn malformed(file: &Path, fault: Fault) -> Error {
        Error::Malformed { file: file.to_path_buf(), fault }
    }

    pub(crate) fn tensor(file: &Path, tensor: &str, fault: Fault) -> Error {
        Error::MalformedTensor { file: file.to_path_buf(), tensor: tensor.to_owned(), fault }
    }
}
