/// Whatever can go wrong, by the part it went wrong in. The message of each variant is that of its part, with file, tensor,
/// layer and cause.
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
    #[cfg(feature = "model")]
    #[error(transparent)]
    Tensor(#[from] sparq_tensor::Error),
    /// A model or its tokenizer.
    #[cfg(feature = "model")]
    #[error(transparent)]
    Model(#[from] sparq_model::Error),
    /// A recipe or a run over a checkpoint.
    #[cfg(feature = "export")]
    #[error(transparent)]
    Pipeline(#[from] sparq_pipeline::Error),
    /// An export.
    #[cfg(feature = "export")]
    #[error(transparent)]
    Export(#[from] sparq_export::Error),
    /// An evaluation.
    #[cfg(feature = "eval")]
    #[error(transparent)]
    Eval(#[from] sparq_eval::Error),
    /// A metric.
    #[cfg(feature = "eval")]
    #[error(transparent)]
    Metric(#[from] sparq_metric::Error),
    /// A sweep.
    #[cfg(feature = "sweep")]
    #[error(transparent)]
    Sweep(#[from] sparq_sweep::Error),
    /// A report.
    #[cfg(feature = "sweep")]
    #[error(transparent)]
    Report(#[from] sparq_report::Error),
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
