//! What can be wrong with a file.

use crate::DType;

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
    /// A text file holds bytes that are not UTF-8.
    #[error("it is not UTF-8 text: byte {byte:#04x} at position {position} (line {line}){begins}")]
    NotText {
        /// Bytes before the first that is wrong.
        position: usize,
        /// Its line, from 1.
        line: usize,
        /// The byte.
        byte: u8,
        /// What the file's first bytes say it is, if they do.
        begins: &'static str,
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
