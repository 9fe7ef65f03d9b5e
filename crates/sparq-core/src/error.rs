use std::borrow::Cow;

/// Why a layer could not be compressed, or why a setting makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A setting is outside its range.
    #[error("{name} = {value} is out of range: {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        expected: Cow<'static, str>,
    },
    /// A matrix has the wrong shape.
    #[error("layer {layer}: {what} has shape {got:?}, needs {expected:?}")]
    Shape {
        /// Name of the layer.
        layer: String,
        /// Which matrix.
        what: &'static str,
        /// Its shape.
        got: (usize, usize),
        /// The shape it needs.
        expected: (usize, usize),
    },
    /// The layer's width does not divide by what the pattern needs.
    #[error(
        "layer {layer}: its {width} input channels do not divide into groups of {of}; choose another pattern, or leave this layer out"
    )]
    Indivisible {
        /// Name of the layer.
        layer: String,
        /// Input channels of the layer.
        width: usize,
        /// The group the pattern needs.
        of: usize,
    },
    /// A weight is NaN or infinite.
    #[error("layer {layer}: weight [{row}, {column}] is {value}; the checkpoint is damaged or overflowed")]
    NotFinite {
        /// Name of the layer.
        layer: String,
        /// Output channel.
        row: usize,
        /// Input channel.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// The method needs calibration statistics that the problem does not carry.
    #[error(
        "layer {layer}: {method} needs {needed}, but the problem carries {given}; calibrate, or choose a method that needs no data"
    )]
    MissingStatistics {
        /// Name of the layer.
        layer: String,
        /// The method asked for.
        method: String,
        /// What it needs.
        needed: crate::Statistics,
        /// What there is.
        given: crate::Statistics,
    },
    /// Two methods or settings cannot be combined.
    #[error("{first} cannot be combined with {second}: {reason}")]
    Conflict {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// Another process of the job cannot be reached.
    #[error("rank {rank}: {what}; what was committed is safe, and the same command goes on from there")]
    Ranks {
        /// The process that found it.
        rank: usize,
        /// What happened.
        what: String,
    },
}

impl CompressError {
    /// Refuses a matrix of another shape than the one it needs.
    ///
    /// # Errors
    /// [`CompressError::Shape`].
    ///
    /// ```
    /// use sparq_core::CompressError;
    /// assert!(CompressError::check_shape("q_proj", "mask", (2, 3), (2, 3)).is_ok());
    /// assert!(CompressError::check_shape("q_proj", "mask", (3, 2), (2, 3)).is_err());
    /// ```
    pub fn check_shape(layer: &str, what: &'static str, got: (usize, usize), expected: (usize, usize)) -> Result<()> {
        if got == expected { Ok(()) } else { Err(Self::Shape { layer: layer.to_owned(), what, got, expected }) }
    }
}

/// Result of this crate's functions and of every [`LayerCompressor`](crate::LayerCompressor).
pub type Result<T> = std::result::Result<T, CompressError>;
