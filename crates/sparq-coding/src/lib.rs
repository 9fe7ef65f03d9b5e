#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod classes;
mod decoder;
mod encode;
mod error;
mod header;
mod histogram;
mod rans;
mod size;
mod table;

pub use classes::{CodeLengths, ColumnLengths, classes, overhead_bits};
pub use decoder::Decoder;
pub use encode::{encode, encode_matrix};
pub use error::{Error, Result};
pub use header::stated_shape;
pub use size::{coded_size, entropy_bits};

/// Classes of columns, at most.
pub const MAX_CLASSES: usize = 64;
/// Rows of a matrix, at most.
pub const MAX_ROWS: usize = u32::MAX as usize;
/// Columns of a matrix, at most: a block of 16 rows that all escape stays below 4 GiB.
pub const MAX_COLUMNS: usize = 1 << 24;
