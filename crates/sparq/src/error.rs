/// Whatever can go wrong, by the part it went wrong in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer or a setting.
    #[error(transparent)]
    Compress(#[from] sparq_core::CompressError),
    /// A product or a factorization.
    #[error(transparent)]
    Linalg(#[from] sparq_linalg::Error),
    /// A file.
    #[error(transparent)]
    Tensor(#[from] sparq_tensor::Error),
    /// A model or its tokenizer.
    #[error(transparent)]
    Model(#[from] sparq_model::Error),
    /// A recipe or a run over a checkpoint.
    #[error(transparent)]
    Pipeline(#[from] sparq_pipeline::Error),
    /// An export.
    #[error(transparent)]
    Export(#[from] sparq_export::Error),
    /// An evaluation.
    #[error(transparent)]
    Eval(#[from] sparq_eval::Error),
    /// A metric.
    #[error(transparent)]
    Metric(#[from] sparq_metric::Error),
    /// A sweep.
    #[error(transparent)]
    Sweep(#[from] sparq_sweep::Error),
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
