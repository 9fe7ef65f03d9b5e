use sparq_core::CompressError;
use std::path::PathBuf;

/// Why compressed layers could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer or a setting.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A file that is read or written.
    #[error(transparent)]
    Tensor(#[from] sparq_tensor::Error),
    /// A solution on disk cannot be read.
    #[error("{}: {reason}", path.display())]
    Solution {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The source has no weight for a compressed layer.
    #[error(
        "the source has no tensor {layer}.weight of shape {shape:?}: the layers were not solved on this checkpoint"
    )]
    NotInSource {
        /// Name of the layer.
        layer: String,
        /// Its shape, `[out, in]`.
        shape: [usize; 2],
    },
    /// A layer was asked for that is not among the compressed ones.
    #[error("no compressed layer is named {layer}")]
    UnknownLayer {
        /// The name.
        layer: String,
    },
    /// Two compressed layers have one name.
    #[error("two compressed layers are named {layer}")]
    DuplicateLayer {
        /// The name.
        layer: String,
    },
    /// A compressed layer contradicts itself or its announcement.
    #[error("compressed layer {layer}: {what} is {found}, expected {expected}")]
    Inconsistent {
        /// Name of the layer.
        layer: String,
        /// What is wrong.
        what: &'static str,
        /// What there is.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The format cannot hold the layers.
    #[error("{format} cannot hold {layer}: {reason}; {instead}")]
    Unfit {
        /// The format.
        format: String,
        /// Name of the first layer, or what else does not fit.
        layer: String,
        /// Why not.
        reason: String,
        /// The nearest format or setting that fits.
        instead: String,
    },
    /// What was written reads back as something else. Nothing is left at the destination.
    #[error("self-check: {tensor} reads back as {found} at {index:?}, expected {expected}; nothing was written")]
    Mismatch {
        /// Name of the tensor.
        tensor: String,
        /// Where, the first place in row-major order.
        index: Vec<usize>,
        /// What a reader of the format should get.
        expected: f32,
        /// What it gets.
        found: f32,
    },
    /// What was written has other tensors than the source.
    #[error("self-check: {tensor} is {what}; nothing was written")]
    MismatchedTensors {
        /// Name of the tensor.
        tensor: String,
        /// `missing`, or what else is wrong with it.
        what: String,
    },
    /// The source's config.json cannot be carried over.
    #[error("config.json of the source: {reason}")]
    Config {
        /// Why.
        reason: String,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
