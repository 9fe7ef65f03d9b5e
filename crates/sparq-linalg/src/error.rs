/// What can go wrong in a factorization or product.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The (shifted) matrix has a pivot that is not positive; a larger shift may help.
    #[error(
        "matrix of order {order} is not positive definite at pivot {pivot} with shift {shift:e} on its diagonal; raise the damping"
    )]
    NotPositiveDefinite {
        /// Order of the matrix.
        order: usize,
        /// Index of the failing pivot, in the original order of rows.
        pivot: usize,
        /// What had been added to the diagonal.
        shift: f64,
    },
    /// An entry or a result is NaN or infinite.
    #[error("matrix of order {order} has a value that is not finite in row {row}")]
    NotFinite {
        /// Order of the matrix.
        order: usize,
        /// First row with such a value.
        row: usize,
    },
    /// A square matrix was expected.
    #[error("a square matrix is needed, got {rows} x {columns}")]
    NotSquare {
        /// Rows of what was given.
        rows: usize,
        /// Columns of what was given.
        columns: usize,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
