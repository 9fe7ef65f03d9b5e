use sparq_core::CompressError;

/// Why a checkpoint could not be compressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer or a setting.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The model.
    #[error(transparent)]
    Model(#[from] sparq_model::Error),
    /// A file of the checkpoint.
    #[error(transparent)]
    Tensor(#[from] sparq_tensor::Error),
    /// A recipe in text form.
    #[error("recipe {recipe:?}: {reason}")]
    Recipe {
        /// The text.
        recipe: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A glob pattern.
    #[error("pattern {pattern:?} is not a glob: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// Nothing would be compressed.
    #[error("no linear layer matches the targets; layers are named like {example:?}")]
    NoTargets {
        /// One name the model has.
        example: String,
    },
    /// Text to calibrate on is missing or empty.
    #[error("{what}; give calibration text of at least a few thousand tokens")]
    Calibration {
        /// What is missing.
        what: String,
    },
    /// A linear that was compressed has no tensor of its own in the checkpoint.
    #[error("tensor {tensor} is not in the checkpoint, so its compressed form has no place in the output")]
    NoPlace {
        /// Name of the tensor.
        tensor: String,
    },
    /// config.json cannot be adapted to the output.
    #[error("config.json: {reason}")]
    Config {
        /// Why.
        reason: String,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
