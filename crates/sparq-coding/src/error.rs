use std::ops::Range;

/// Why codes could not be encoded, or bytes not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice does not fit the shape.
    #[error("{what} has {got} elements, the shape needs {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length it needs.
        expected: usize,
    },
    /// A column's class is too large.
    #[error("column {column} has class {class}; classes are below {}", crate::MAX_CLASSES)]
    Class {
        /// Index of the column.
        column: usize,
        /// Its class.
        class: u8,
    },
    /// The matrix is larger than the format can say.
    #[error("{rows} rows of {columns} columns are too many: at most {} and {}", crate::MAX_ROWS, crate::MAX_COLUMNS)]
    TooLarge {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// The rows that were asked for are not all there.
    #[error("rows {}..{} were asked for, the matrix has {rows}", .range.start, .range.end)]
    Rows {
        /// The rows asked for.
        range: Range<usize>,
        /// Rows of the matrix.
        rows: usize,
    },
    /// The bytes do not begin with the format's name.
    #[error("these bytes are not coded weights: they do not begin with {:?}", crate::header::MAGIC.escape_ascii().to_string())]
    Magic,
    /// The bytes are of another version of the format.
    #[error("version {found} of the format is unknown, {} is read", crate::header::VERSION)]
    Version {
        /// The version they state.
        found: u16,
    },
    /// The bytes hold another matrix than the caller expects.
    #[error("the coded matrix is {found:?}, {expected:?} was expected")]
    Shape {
        /// Rows and columns in the header.
        found: (usize, usize),
        /// Rows and columns that the caller expects.
        expected: (usize, usize),
    },
    /// The bytes end early.
    #[error("the bytes end within {what}: {needed} are needed, {left} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes it takes.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A field of the header makes no sense.
    #[error("{field} is {value} in the header; {expected}")]
    Header {
        /// Name of the field.
        field: &'static str,
        /// What it says.
        value: usize,
        /// What would make sense.
        expected: &'static str,
    },
    /// The header is not what was written.
    #[error("the header does not match its checksum")]
    HeaderChecksum,
    /// A block is not what was written.
    #[error("block {block} does not match its checksum")]
    BlockChecksum {
        /// Index of the block.
        block: usize,
    },
    /// A block matches its checksum but was not made by an encoder of this format.
    #[error("block {block} {problem}")]
    Block {
        /// Index of the block.
        block: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
